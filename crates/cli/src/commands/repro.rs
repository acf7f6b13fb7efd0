//! `rbuild repro`.

use rbuild::{BuildRequest, Built, Cause, FileDifference, Repro, ReproDifference, Round};
use rustix::fs::Mode;
use serde_json::{Value, json};

use crate::args::progress::ProgressMode;
use crate::args::repro::ReproArgs;
use crate::commands::{Context, diff};
use crate::failure::Failure;
use crate::progress::{self, Warnings};
use crate::{exit_code, interrupt, output, report};

/// The umask of the second build.
const UMASK: u32 = 0o077;
/// Further files of the layer that are told.
const ALSO: usize = 20;
/// Columns that an instruction gets.
const INSTRUCTION: usize = 120;

/// Says whether a build gives the same bytes again; the exit codes are those of diff(1).
pub fn run(args: &ReproArgs, context: &Context<'_>) -> Result<i32, Failure> {
    repro(args, context).map_err(exit_code::trouble)
}

fn repro(args: &ReproArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.check()?;
    let mode = match args.build.quiet {
        true => ProgressMode::Quiet,
        false => ProgressMode::settle(args.build.progress, context.environment)?,
    };
    let mut request = args.build.request(context.environment)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    if !args.plain {
        engine.fix_times(&mut request, &cancel)?;
    }
    let speaks = !matches!(mode, ProgressMode::Quiet | ProgressMode::None | ProgressMode::Rawjson);
    let mut build = |round: Round, request: &BuildRequest| -> Result<Built, rbuild::BuildError> {
        if speaks {
            output::say(match round {
                Round::First => "the first of two builds",
                Round::Second => "the second of two builds, under other conditions",
            });
        }
        let display = progress::display(mode, context.environment);
        let warnings = Warnings::new(display.as_ref());
        let usual = (round == Round::Second).then(|| umask(Mode::from_raw_mode(UMASK)));
        let outcome = engine.build(request, &warnings, &cancel);
        usual.map(umask);
        display.close();
        let said = warnings.finish();
        // The second build would say the same again.
        if speaks && round == Round::First {
            report::warnings(&said.name, said.text.as_deref(), &said.warnings);
        }
        outcome
    };
    let mut found = engine.repro(&request, &mut build, &cancel)?;
    found.varied.push(format!("umask of this program ({UMASK:03o})"));
    if speaks {
        output::say(&format!("the second build had another {}", found.varied.join("; ")));
    }
    match args.json {
        true => output::json(&document(&found))?,
        false => output::data(text(&found))?,
    }
    if found.difference.is_none() && speaks {
        say_how(&request);
    }
    Ok(match found.difference {
        None => exit_code::SUCCESS,
        Some(_) => exit_code::FAILURE,
    })
}

/// The umask belongs to the whole process, which does nothing else meanwhile.
fn umask(mask: Mode) -> Mode {
    rustix::process::umask(mask)
}

/// What makes `rbuild build` give the same image.
fn say_how(request: &BuildRequest) {
    let epoch = request.options.build_args.get("SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch
        && request.options.rewrite_timestamps == Some(true)
    {
        let epoch = output::visible(epoch);
        output::say(&format!(
            "`rbuild build --rewrite-timestamp` with SOURCE_DATE_EPOCH={epoch} makes this image"
        ));
    }
}

fn text(found: &Repro) -> String {
    let Some(difference) = &found.difference else {
        return format!("identical: {}\n", found.first.1);
    };
    let mut text = match difference {
        ReproDifference::Layer { index, layer, files, more_files } => {
            let created_by = instruction(&layer.created_by);
            let mut text = format!("different: layer {}, {created_by}\n", index + 1);
            match files.split_first() {
                None => text.push_str("  no file differs: the order of its files does\n"),
                Some(((file, cause), rest)) => {
                    text.push_str(&diff::of_file(file));
                    text.push_str(&format!("  {}\n", advice(*cause)));
                    text.push_str(&also(rest, *more_files));
                }
            }
            text
        }
        ReproDifference::LayerCount { first, second } => {
            format!("different: the first build made {first} layers, the second {second}\n")
        }
        ReproDifference::Config { fields, cause } => {
            let mut text = String::from("different: the config, with the same layers\n");
            for field in fields {
                text.push_str(&format!("  {}\n", diff::of_field(field)));
            }
            text.push_str(&format!("  {}\n", advice(*cause)));
            text
        }
    };
    let (first, second) = (found.first.0.short(), found.second.0.short());
    text.push_str(&format!("everything that differs: rbuild diff {first} {second}\n"));
    text
}

fn instruction(text: &str) -> String {
    output::visible(&output::instruction(text, Some(INSTRUCTION)))
}

fn advice(cause: Option<Cause>) -> String {
    match cause {
        Some(cause) => cause.to_string(),
        None => "no cause that is known: the instruction does not make the same twice".to_owned(),
    }
}

/// The other files of the layer, a line each.
fn also(rest: &[(FileDifference, Option<Cause>)], more: u64) -> String {
    let mut text = String::new();
    for (file, cause) in rest.iter().take(ALSO) {
        let cause = cause.map_or("no known cause", Cause::name);
        text.push_str(&format!("  also {}: {cause}\n", diff::path(file)));
    }
    let more = rest.len().saturating_sub(ALSO) as u64 + more;
    if more > 0 {
        text.push_str(&format!("  and {more} more of this layer\n"));
    }
    text
}

fn document(found: &Repro) -> Value {
    let image = |(id, manifest): &(rbuild::Digest, rbuild::Digest)| json!({ "ID": id, "Manifest": manifest });
    let mut document = json!({
        "Identical": found.difference.is_none(),
        "First": image(&found.first),
        "Second": image(&found.second),
        "Varied": found.varied,
    });
    match &found.difference {
        None => {}
        Some(ReproDifference::Layer { index, layer, files, more_files }) => {
            document["Layer"] = json!({
                "Number": index + 1,
                "CreatedBy": layer.created_by,
                "Files": files.iter().map(of_file).collect::<Vec<_>>(),
                "MoreFiles": more_files,
            });
        }
        Some(ReproDifference::LayerCount { first, second }) => {
            document["LayerCount"] = json!([first, second]);
        }
        Some(ReproDifference::Config { fields, cause }) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| {
                    json!({ "Field": field.field, "Before": field.before, "After": field.after })
                })
                .collect();
            document["Config"] = json!({ "Fields": fields, "Cause": cause.map(Cause::name) });
        }
    }
    document
}

fn of_file((file, cause): &(FileDifference, Option<Cause>)) -> Value {
    let aspects: Vec<_> = file.aspects.iter().map(|aspect| aspect.name()).collect();
    json!({
        "Path": format!("/{}", String::from_utf8_lossy(&file.path)),
        "Aspects": aspects,
        "Cause": cause.map(Cause::name),
        "Advice": cause.map(Cause::advice),
    })
}
