//! `rbuild manifest`.

use rbuild::{BuildError, Engine, ImageDocument, Reference, Silent};
use serde_json::{Value, json};

use crate::args::manifest::{InspectArgs, ListPushArgs, ManifestArgs, ManifestCommand};
use crate::commands::{Context, push};
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Does what was asked with manifest lists. What is made or changed is told by its digest, as in
/// Docker and podman.
pub fn run(args: &ManifestArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    match &args.command {
        ManifestCommand::Create(args) => {
            let name = list(&engine, &args.list)?;
            let (images, amend) = (&args.images, args.amend);
            engine.create_list(&name, images, amend, &Silent, &cancel)?;
            output::line(&format!("Created manifest list {name}"))?;
        }
        ManifestCommand::Add(args) => {
            let name = list(&engine, &args.list)?;
            engine.check_list(&name)?;
            let digest = engine.create_list(&name, &args.images, true, &Silent, &cancel)?;
            output::line(&digest.to_string())?;
        }
        ManifestCommand::Annotate(args) => {
            let (name, change) = (list(&engine, &args.list)?, args.change()?);
            engine.annotate_list(&name, &args.image, &change, &Silent, &cancel)?;
        }
        ManifestCommand::Remove(args) => {
            let name = list(&engine, &args.list)?;
            let digest = engine.remove_from_list(&name, &args.images, &Silent, &cancel)?;
            output::line(&digest.to_string())?;
        }
        ManifestCommand::Inspect(args) => inspect(args, &engine, &cancel)?,
        ManifestCommand::Push(args) => return push_list(args, context, &engine),
        ManifestCommand::Rm(args) => {
            for name in &args.lists {
                let name = list(&engine, name)?;
                engine.check_list(&name)?;
                engine.remove_image(&name.to_string(), false)?;
            }
        }
        ManifestCommand::Exists(args) => {
            let there = engine.check_list(&list(&engine, &args.list)?).is_ok();
            return Ok(if there { exit_code::SUCCESS } else { exit_code::FAILURE });
        }
    }
    Ok(exit_code::SUCCESS)
}

/// The name of a list.
fn list(engine: &Engine, text: &str) -> Result<Reference, Failure> {
    engine.reference(text).map_err(|error| Failure::usage(format!("{text}: {error}")))
}

fn push_list(args: &ListPushArgs, context: &Context<'_>, engine: &Engine) -> Result<i32, Failure> {
    let code = push::run(&args.push, context)?;
    if args.purge {
        engine.remove_image(&args.push.image, false)?;
    }
    Ok(code)
}

fn inspect(
    args: &InspectArgs,
    engine: &Engine,
    cancel: &rbuild::CancelToken,
) -> Result<(), Failure> {
    let name = args.names.last().map_or("", String::as_str);
    let found = engine.image_document(name, &Silent, cancel)?;
    let document = parsed(&found)?;
    if let [within, _] = args.names.as_slice() {
        let digest = found.digest.to_string();
        let outer = parsed(&engine.image_document(within, &Silent, cancel)?)?;
        let entries = outer["manifests"].as_array().cloned().unwrap_or_default();
        if !entries.iter().any(|entry| entry["digest"] == digest.as_str()) {
            let name = format!("{name} in the list {within}");
            return Err(BuildError::NoSuchImage { name }.into());
        }
    }
    if !args.verbose {
        return output::json(&document);
    }
    let mut all = vec![described(name, &found, &document)];
    for entry in document["manifests"].as_array().into_iter().flatten() {
        let digest = entry["digest"].as_str().unwrap_or_default();
        let repository = name.split('@').next().unwrap_or(name);
        let pinned = match engine.reference(repository) {
            Ok(name) => format!("{}@{digest}", name.repository()),
            Err(_) => digest.to_owned(),
        };
        let child = engine.image_document(&pinned, &Silent, cancel)?;
        all.push(described(&pinned, &child, &parsed(&child)?));
    }
    let shown = if all.len() == 1 { all.remove(0) } else { Value::from(all) };
    output::json(&shown)
}

fn parsed(document: &ImageDocument) -> Result<Value, Failure> {
    serde_json::from_slice(&document.bytes)
        .map_err(|error| Failure::usage(format!("the manifest is no JSON: {error}")))
}

/// As `docker manifest inspect --verbose` has it.
fn described(name: &str, found: &ImageDocument, document: &Value) -> Value {
    let size = found.bytes.len();
    json!({
        "Ref": name,
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest, "size": size },
        "Raw": document,
    })
}
