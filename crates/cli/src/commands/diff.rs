//! `rbuild diff`.

mod steps;

use rbuild::{
    Aspect, BuildError, ContainerChange, ContainerChangeKind, ContentDifference, FieldDifference,
    FileDifference, FileFacts, FileKind, ImageDifference, LayerDifference, LayerName, Silent,
};
use serde_json::{Value, json};

use crate::args::diff::DiffArgs;
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::output::visible;
use crate::{exit_code, human, interrupt, output};

/// Titles of the fields that a difference has.
const TITLES: [(&str, &str); 5] = [
    ("What", "WHAT"),
    ("Name", "NAME"),
    ("Change", "CHANGE"),
    ("Before", "BEFORE"),
    ("After", "AFTER"),
];
/// Columns that a value of a document gets.
const VALUE: usize = 120;

/// Says in what two images differ; the exit codes are those of diff(1).
pub fn run(args: &DiffArgs, context: &Context<'_>) -> Result<i32, Failure> {
    compare(args, context).map_err(exit_code::trouble)
}

fn compare(args: &DiffArgs, context: &Context<'_>) -> Result<i32, Failure> {
    if let Some(trees) = steps::trees(args, context)? {
        return steps::compare(args, context, trees);
    }
    let Some(after) = &args.after else { return of_container(args, context) };
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let platform = platform.as_ref();
    let difference = context.engine()?.diff(&args.before, after, platform, &Silent, &cancel)?;
    if args.json {
        output::json(&document(&difference))?;
    } else if let Some(listing) = listing {
        output::data(listing.render(&TITLES, &rows(&difference))?)?;
    } else if !args.quiet {
        output::data(text(&difference))?;
    }
    Ok(match difference.is_none() {
        true => exit_code::SUCCESS,
        false => exit_code::FAILURE,
    })
}

/// Docker's `diff`.
fn of_container(args: &DiffArgs, context: &Context<'_>) -> Result<i32, Failure> {
    if args.platform.is_some() || args.quiet {
        return Err(Failure::usage_hint(
            "--platform and --quiet are for two images",
            "two images: `rbuild diff A B`; a container: `rbuild diff NAME`",
        ));
    }
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let container = context.engine()?.container(&args.before).map_err(|error| match error {
        BuildError::NoSuchContainer { .. } => {
            Failure::usage_hint(error.to_string(), "two images are compared by `rbuild diff A B`")
        }
        error => error.into(),
    })?;
    let changes = container.changes(&cancel)?;
    let letter = |kind| match kind {
        ContainerChangeKind::Added => "A",
        ContainerChangeKind::Changed => "C",
        ContainerChangeKind::Deleted => "D",
    };
    let path = |change: &ContainerChange| change.path.to_string_lossy().into_owned();
    let row =
        |change: &ContainerChange| json!({ "Type": letter(change.kind), "Path": path(change) });
    let rows: Vec<Value> = changes.iter().map(row).collect();
    if args.json {
        output::json(&Value::from(rows))?;
    } else if let Some(listing) = listing {
        output::data(listing.render(&[("Type", "CHANGE TYPE"), ("Path", "PATH")], &rows)?)?;
    } else {
        let line = |change: &ContainerChange| {
            format!("{} {}\n", letter(change.kind), visible(&path(change)))
        };
        output::data(changes.iter().map(line).collect::<String>())?;
    }
    Ok(exit_code::SUCCESS)
}

fn text(difference: &ImageDifference) -> String {
    if difference.is_none() {
        return String::new();
    }
    let mut text = String::new();
    for (sign, image) in [("---", &difference.before), ("+++", &difference.after)] {
        let name = image.name.as_deref().unwrap_or_default();
        text.push_str(format!("{sign} {} {name}", image.id).trim_end());
        text.push('\n');
    }
    for (title, fields) in [("manifest", &difference.manifest), ("config", &difference.config)] {
        if !fields.is_empty() {
            text.push_str(&format!("{title}\n"));
        }
        for field in fields {
            text.push_str(&format!("  {}\n", of_field(field)));
        }
    }
    if !difference.layers.is_empty() {
        text.push_str(&format!("layers, {} are the same\n", difference.same_layers));
    }
    for layer in &difference.layers {
        text.push_str(&of_layer(layer));
    }
    text.push_str(&of_files(&difference.files, difference.more_files));
    text
}

fn of_files(files: &[FileDifference], more: u64) -> String {
    let mut text = String::new();
    if !files.is_empty() {
        text.push_str("files\n");
    }
    for file in files {
        text.push_str(&of_file(file));
    }
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

pub(super) fn of_field(field: &FieldDifference) -> String {
    let shown = |value: &Value| {
        console::truncate_str(&visible(&value.to_string()), VALUE, "…").into_owned()
    };
    let name = visible(&field.field);
    match (&field.before, &field.after) {
        (Some(before), Some(after)) => format!("{name}: {} -> {}", shown(before), shown(after)),
        (Some(before), None) => format!("{name}: - {}", shown(before)),
        (None, Some(after)) => format!("{name}: + {}", shown(after)),
        (None, None) => name,
    }
}

fn of_layer(difference: &LayerDifference) -> String {
    let mut text = String::new();
    for (sign, layer) in [("-", &difference.before), ("+", &difference.after)] {
        let Some(LayerName { diff_id, created_by }) = layer else { continue };
        let number = difference.index + 1;
        let created_by = output::instruction(created_by, Some(VALUE));
        text.push_str(&format!("  {sign} {number} {} {}\n", diff_id.short(), visible(&created_by)));
    }
    text
}

/// One line, and two more where contents differ.
pub(super) fn of_file(file: &FileDifference) -> String {
    let path = path(file);
    match (&file.before, &file.after) {
        (Some(before), Some(after)) => {
            let aspects = file.aspects.iter().map(|aspect| of_aspect(*aspect, before, after));
            let aspects: Vec<String> = aspects.collect();
            let mut text = format!("  ~ {path}: {}\n", aspects.join(", "));
            if let Some(content) = &file.content {
                text.push_str(&excerpts(content));
            }
            text
        }
        (Some(only), None) => format!("  - {path}: {}\n", of_facts(only)),
        (None, Some(only)) => format!("  + {path}: {}\n", of_facts(only)),
        (None, None) => String::new(),
    }
}

/// A path for people; bytes that are no text are replaced.
pub(super) fn path(file: &FileDifference) -> String {
    visible(&format!("/{}", String::from_utf8_lossy(&file.path)))
}

fn of_aspect(aspect: Aspect, before: &FileFacts, after: &FileFacts) -> String {
    let name = aspect.name();
    match aspect {
        Aspect::Kind => format!("{} -> {}", kind(before), kind(after)),
        Aspect::Content if before.size != after.size => {
            format!("{name} ({} -> {} bytes)", before.size, after.size)
        }
        Aspect::Target => {
            let target = |facts: &FileFacts| {
                let target = facts.target.as_ref().map(|target| target.to_string_lossy());
                visible(&target.unwrap_or_default())
            };
            format!("{name} {} -> {}", target(before), target(after))
        }
        Aspect::Mode => format!("{name} {:04o} -> {:04o}", before.mode, after.mode),
        Aspect::Owner => {
            format!("{name} {}:{} -> {}:{}", before.uid, before.gid, after.uid, after.gid)
        }
        Aspect::Time => {
            let time = |facts: &FileFacts| human::timestamp(facts.mtime.saturating_mul(1000));
            format!("{name} {} -> {}", time(before), time(after))
        }
        Aspect::Content
        | Aspect::Device
        | Aspect::Attributes
        | Aspect::HardLink
        | Aspect::Opacity => name.to_owned(),
    }
}

fn kind(facts: &FileFacts) -> String {
    facts.kind.map_or_else(|| "removed".to_owned(), |kind| kind.to_string())
}

fn of_facts(facts: &FileFacts) -> String {
    let kind = kind(facts);
    match facts.kind {
        Some(FileKind::Regular) => format!("{kind}, {}", human::bytes(facts.size)),
        Some(FileKind::Directory) => {
            format!("{kind}, {} in it, {}", facts.entries, human::bytes(facts.size))
        }
        _ => kind,
    }
}

/// What both contents are at the first difference.
fn excerpts(content: &ContentDifference) -> String {
    let ContentDifference { offset, excerpt_offset, before, after } = content;
    if before.is_empty() && after.is_empty() {
        return format!("      byte {offset}, not shown: only its owner may read it\n");
    }
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let place = match excerpt_offset {
        0 => String::new(),
        _ => "…".to_owned(),
    };
    let title = format!("byte {offset}");
    let blank = " ".repeat(title.len());
    format!("      {title} - {place}{}\n      {blank} + {place}{}\n", shown(before), shown(after))
}

fn change(before: bool, after: bool) -> &'static str {
    match (before, after) {
        (true, false) => "removed",
        (false, _) => "added",
        (true, true) => "changed",
    }
}

/// Every difference as one row.
fn rows(difference: &ImageDifference) -> Vec<Value> {
    let documents = [("manifest", &difference.manifest), ("config", &difference.config)];
    let fields = documents.into_iter().flat_map(|(what, fields)| {
        fields.iter().map(move |field| {
            row(
                what,
                &field.field,
                change(field.before.is_some(), field.after.is_some()),
                [json!(field.before), json!(field.after)],
            )
        })
    });
    let layers = difference.layers.iter().map(|layer| {
        let [before, after] =
            [&layer.before, &layer.after].map(|one| json!(one.as_ref().map(|one| one.diff_id)));
        let change = change(layer.before.is_some(), layer.after.is_some());
        row("layer", &(layer.index + 1).to_string(), change, [before, after])
    });
    fields.chain(layers).chain(difference.files.iter().map(file_row)).collect()
}

fn file_row(file: &FileDifference) -> Value {
    let aspects: Vec<_> = file.aspects.iter().map(|aspect| aspect.name()).collect();
    let change = match aspects.is_empty() {
        true => change(file.before.is_some(), file.after.is_some()).to_owned(),
        false => aspects.join(", "),
    };
    let [before, after] =
        [&file.before, &file.after].map(|facts| json!(facts.as_ref().map(json_facts)));
    row("file", &format!("/{}", String::from_utf8_lossy(&file.path)), &change, [before, after])
}

fn row(what: &str, name: &str, change: &str, [before, after]: [Value; 2]) -> Value {
    json!({ "What": what, "Name": name, "Change": change, "Before": before, "After": after })
}

fn json_facts(facts: &FileFacts) -> Value {
    let mut document = json!({
        "Kind": kind(facts),
        "Mode": format!("{:04o}", facts.mode),
        "Uid": facts.uid,
        "Gid": facts.gid,
        "Bytes": facts.size,
        "ModifiedAt": human::rfc3339(facts.mtime.saturating_mul(1000)),
    });
    if let Some(target) = &facts.target {
        document["Target"] = json!(target.to_string_lossy());
    }
    if facts.kind == Some(FileKind::Directory) {
        document["Entries"] = json!(facts.entries);
    }
    document
}

fn add_contents(rows: &mut [Value], files: &[FileDifference]) {
    for (row, file) in rows.iter_mut().zip(files) {
        if let Some(content) = &file.content {
            row["Content"] = json!({
                "Offset": content.offset,
                "ExcerptOffset": content.excerpt_offset,
                "Before": content.before.escape_ascii().to_string(),
                "After": content.after.escape_ascii().to_string(),
            });
        }
    }
}

fn document(difference: &ImageDifference) -> Value {
    let image = |image: &rbuild::ComparedImage| json!({ "ID": image.id, "Manifest": image.manifest_digest, "Name": image.name });
    let mut differences = rows(difference);
    let first_file = differences.len() - difference.files.len();
    add_contents(&mut differences[first_file..], &difference.files);
    json!({
        "Identical": difference.is_none(),
        "Before": image(&difference.before),
        "After": image(&difference.after),
        "SameLayers": difference.same_layers,
        "Differences": differences,
        "MoreFiles": difference.more_files,
    })
}
