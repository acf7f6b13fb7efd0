//! `rbuild layers`.

use rbuild::{Fate, ImageLayers, InspectedLayer, PathVersion, Silent};
use serde_json::{Value, json};

use crate::args::layers::LayersArgs;
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::listing::Listing;
use crate::table::Table;
use crate::{exit_code, human, interrupt, layers_report, output};

/// Titles of the fields that a layer has.
const TITLES: [(&str, &str); 9] = [
    ("Layer", "LAYER"),
    ("Digest", "DIGEST"),
    ("Size", "SIZE"),
    ("Bytes", "BYTES"),
    ("Added", "ADDED"),
    ("Changed", "CHANGED"),
    ("Removed", "REMOVED"),
    ("Wasted", "WASTED"),
    ("CreatedBy", "CREATED BY"),
];
/// Columns that an instruction gets.
const INSTRUCTION: usize = 60;
/// Files that are listed.
const FILES: usize = 25;

/// Shows layers and files of an image.
pub fn run(args: &LayersArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let listing = Listing::parse(args.format.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let image = context.engine()?.layers(&args.image, platform.as_ref(), &Silent, &cancel)?;
    let only = args.files.map(|files| files.index(image.layers.len())).transpose()?;
    let files = only.map(|only| {
        image.largest(FILES, |file| file.size > 0 && only.is_none_or(|only| file.layer == only))
    });
    if let Some(path) = &args.html {
        let page = layers_report::page(&image, &args.image);
        fs_err::write(path, page).map_err(Failure::io("write the page"))?;
    }
    if args.json {
        output::json(&document(&image, files.as_deref()))?;
        return Ok(exit_code::SUCCESS);
    }
    if let Some(listing) = listing {
        let layers = image.layers.iter().enumerate();
        let documents: Vec<Value> = layers.map(|(index, layer)| of_layer(index, layer)).collect();
        output::data(listing.render(&TITLES, &documents)?)?;
        return Ok(exit_code::SUCCESS);
    }
    output::data(layers(&image, args.no_trunc))?;
    output::line(&format!("\n{}", sums(&image)))?;
    if let Some(files) = files {
        output::line("")?;
        output::data(table_of_files(&files))?;
    }
    if let Some(path) = &args.html {
        output::say(&format!("the page is {}", path.display()));
    }
    Ok(exit_code::SUCCESS)
}

fn layers(image: &ImageLayers, whole: bool) -> String {
    let mut table =
        Table::new(&["LAYER", "SIZE", "ADDED", "CHANGED", "REMOVED", "WASTED", "CREATED BY"]);
    for (index, layer) in image.layers.iter().enumerate() {
        let created_by = output::instruction(&layer.created_by, (!whole).then_some(INSTRUCTION));
        table.row(&[
            &(index + 1).to_string(),
            &human::bytes(layer.size),
            &layer.added.to_string(),
            &layer.changed.to_string(),
            &layer.removed.to_string(),
            &human::bytes(layer.wasted),
            &created_by,
        ]);
    }
    table.render()
}

fn sums(image: &ImageLayers) -> String {
    let (total, wasted) = (human::bytes(image.total()), human::bytes(image.wasted()));
    let efficiency = image.efficiency() * 100.0;
    format!("{total} in files, {wasted} of them wasted; efficiency {efficiency:.1}%")
}

fn table_of_files(files: &[PathVersion<'_>]) -> String {
    let mut table = Table::new(&["SIZE", "LAYER", "WHAT", "FILE"]);
    for file in files {
        table.row(&[
            &human::bytes(file.size),
            &(file.layer + 1).to_string(),
            &what(file),
            &shown(file),
        ]);
    }
    table.render()
}

/// What a layer did, and what one above did to it: `added, removed in 4`.
fn what(file: &PathVersion<'_>) -> String {
    let first = if file.is_change { "changed" } else { "added" };
    match file.fate {
        Fate::Kept => first.to_owned(),
        Fate::Replaced(by) => format!("{first}, replaced in {}", by + 1),
        Fate::Removed(by) => format!("{first}, removed in {}", by + 1),
    }
}

/// A path for people; bytes that are no text are replaced.
fn shown(file: &PathVersion<'_>) -> String {
    format!("/{}", String::from_utf8_lossy(file.path))
}

fn of_layer(index: usize, layer: &InspectedLayer) -> Value {
    json!({
        "Layer": index + 1,
        "Digest": layer.diff_id,
        "Size": layer.size,
        "Bytes": layer.bytes,
        "Added": layer.added,
        "Changed": layer.changed,
        "Removed": layer.removed,
        "Wasted": layer.wasted,
        "CreatedBy": layer.created_by,
    })
}

fn document(image: &ImageLayers, files: Option<&[PathVersion<'_>]>) -> Value {
    let layers = image.layers.iter().enumerate();
    let mut document = json!({
        "ID": image.id,
        "Name": image.name,
        "Bytes": image.total(),
        "Wasted": image.wasted(),
        "Efficiency": image.efficiency(),
        "Layers": layers.map(|(index, layer)| of_layer(index, layer)).collect::<Vec<_>>(),
    });
    if let Some(files) = files {
        document["Files"] = files.iter().map(of_file).collect();
    }
    document
}

fn of_file(file: &PathVersion<'_>) -> Value {
    let (fate, by) = match file.fate {
        Fate::Kept => ("kept", None),
        Fate::Replaced(by) => ("replaced", Some(by + 1)),
        Fate::Removed(by) => ("removed", Some(by + 1)),
    };
    json!({
        "Path": shown(file),
        "Bytes": file.size,
        "Layer": file.layer + 1,
        "Change": if file.is_change { "changed" } else { "added" },
        "Fate": fate,
        "By": by,
    })
}
