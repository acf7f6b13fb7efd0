//! `rbuild inspect`.

mod container;
mod host_config;

use rbuild::{BuildError, ImageDetails, ImageManifest, Reference};
use serde_json::{Value, json};

use crate::args::images::InspectArgs;
use crate::args::transfer;
use crate::commands::Context;
use crate::failure::Failure;
use crate::template::Template;
use crate::{exit_code, human, output, report};

/// Prints what Docker prints, as far as it is known here: a container of that name, or an image.
pub fn run(args: &InspectArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let (containers, images) = match args.kind.as_deref() {
        // A platform is an image's.
        None => (args.platform.is_none(), true),
        Some("container") => (true, false),
        Some("image") => (false, true),
        Some(kind) => {
            return Err(Failure::usage_hint(
                format!("--type={kind} is not supported yet"),
                "there are container and image",
            ));
        }
    };
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let platform = transfer::platform(args.platform.as_deref())?;
    let engine = context.engine()?;
    let (mut documents, mut code) = (Vec::new(), exit_code::SUCCESS);
    for name in &args.names {
        let found = match containers.then(|| engine.container(name)) {
            Some(Ok(found)) => container::document(&found),
            Some(Err(error)) if !images || !is_none(&error) => Err(error),
            _ => match &platform {
                Some(platform) => engine.image_config_for(name, platform),
                None => engine.image_config(name),
            }
            .map(|details| document(&details)),
        };
        match found {
            Ok(document) => documents.push(document),
            Err(BuildError::NoSuchImage { name }) if containers => {
                code = report::failure(&Failure::usage(format!("no such object: {name}")));
            }
            Err(error) => code = report::failure(&error.into()),
        }
    }
    print_documents(template, documents)?;
    Ok(code)
}

/// Prints documents: one array, or a line for each by a template.
pub fn print_documents(template: Option<Template>, documents: Vec<Value>) -> Result<(), Failure> {
    match template {
        None => output::json(&Value::from(documents)),
        Some(template) => {
            documents.iter().try_for_each(|document| output::line(&template.render(document)?))
        }
    }
}

fn is_none(error: &BuildError) -> bool {
    matches!(error, BuildError::NoSuchContainer { .. })
}

fn document(details: &ImageDetails) -> Value {
    let config = &details.config;
    let names: Vec<Reference> = details.names.iter().filter_map(|name| name.parse().ok()).collect();
    let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
    let mut digests: Vec<String> = names
        .iter()
        .map(|name| format!("{}@{}", name.familiar_name(), details.manifest_digest))
        .collect();
    digests.dedup();
    let created = config.created.clone().unwrap_or_else(|| human::rfc3339(details.created_ms));
    let mut document = json!({
        "Id": details.id,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Comment": config.history.last().map_or("", |last| last.comment.as_str()),
        "Created": created,
        "Author": config.author,
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": details.size,
        "Config": config.config,
        "RootFS": { "Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": human::rfc3339(details.created_ms) },
        "Descriptor": { "mediaType": details.media_type, "digest": details.manifest_digest },
    });
    if !details.manifests.is_empty() {
        document["Manifests"] = details.manifests.iter().map(manifest).collect();
    }
    document
}

/// One image of an index, or what is said of one.
fn manifest(manifest: &ImageManifest) -> Value {
    let mut document = json!({
        "ID": manifest.digest,
        "Descriptor": {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.size,
            "platform": manifest.platform,
        },
        "Kind": "image",
    });
    match manifest.attests {
        None => document["ImageData"] = json!({ "Platform": manifest.platform }),
        Some(image) => {
            document["Kind"] = json!("attestation");
            document["AttestationData"] = json!({ "For": image });
        }
    }
    document
}
