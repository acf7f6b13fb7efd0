//! `rbuild build`.

use std::path::Path;
use std::time::Instant;

use rbuild::{Built, Silent};
use serde_json::{Map, Value, json};

use crate::args::build::BuildArgs;
use crate::args::call::Method;
use crate::args::progress::ProgressMode;
use crate::commands::{Context, check, outline, why};
use crate::failure::Failure;
use crate::progress::{self, Warnings};
use crate::{exit_code, interrupt, output, report};

/// Builds, or does with the Dockerfile what `--call` says.
pub fn run(args: &BuildArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let call = args.call()?;
    let mode = match args.quiet {
        true => ProgressMode::Quiet,
        false => ProgressMode::settle(args.progress, context.environment)?,
    };
    let request = args.request(context.environment)?;
    match call.method {
        Method::Check => return check::run(call, &request, context),
        Method::Outline => return outline::outline(call, &request, context),
        Method::Targets => return outline::targets(call, &request, context),
        Method::Describe => return outline::describe(call),
        Method::Build | Method::Dot => {}
    }
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    if call.method == Method::Dot {
        output::data(engine.graph(&request, &Silent, &cancel)?)?;
        return Ok(exit_code::SUCCESS);
    }

    let started = Instant::now();
    let display = progress::display(mode, context.environment);
    let progress = Warnings::new(display.as_ref());
    let outcome = engine.build(&request, &progress, &cancel);
    display.close();
    let said = progress.finish();
    if speaks(mode) {
        let say = match outcome.is_ok() {
            true => report::warnings,
            false => report::warnings_before_error,
        };
        say(&said.name, said.text.as_deref(), &said.warnings);
    }
    let built = outcome?;

    if let Some(image) = &built.image {
        if let Some(file) = &args.iidfile {
            write(file, image.id.to_string().as_bytes())?;
        }
        if mode == ProgressMode::Quiet {
            output::line(&image.id.to_string())?;
        }
    }
    if let Some(file) = &args.metadata_file {
        let mut text = serde_json::to_vec_pretty(&metadata(&built)).unwrap_or_default();
        text.push(b'\n');
        write(file, &text)?;
    }
    if speaks(mode) {
        output::say(&report::built(&built, started.elapsed()));
        if let Some(traffic) = &built.cache_traffic {
            output::say(&report::cache_traffic(traffic));
        }
    }
    Ok(exit_code::SUCCESS)
}

/// Whether people read along.
fn speaks(mode: ProgressMode) -> bool {
    matches!(mode, ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs_err::write(path, bytes).map_err(Failure::io("write what was built"))
}

/// The keys of `docker buildx build --metadata-file`, and the steps under a key of our own.
fn metadata(built: &Built) -> Value {
    let mut document = Map::new();
    if let Some(image) = &built.image {
        // Of an image that left, scripts want the digest that it has there.
        let left = image.exported.as_ref();
        let digest = left.map_or(image.manifest_digest, |left| left.digest);
        let mut descriptor = json!({
            "mediaType": left.map_or(&image.media_type, |left| &left.media_type),
            "digest": digest,
            "size": left.map_or(image.manifest_size, |left| left.size),
        });
        if let Some(left) = left.filter(|left| !left.annotations.is_empty()) {
            descriptor["annotations"] = json!(left.annotations);
        }
        // An index has neither a config nor a platform.
        let config = left.map_or(image.config_digest, |left| left.config_digest);
        if let (Some(config), [platform]) = (config, image.platforms.as_slice()) {
            descriptor["platform"] = json!(platform);
            document.insert("containerimage.config.digest".to_owned(), json!(config));
        }
        document.insert("containerimage.descriptor".to_owned(), descriptor);
        document.insert("containerimage.digest".to_owned(), json!(digest));
        if !image.names.is_empty() {
            document.insert("image.name".to_owned(), json!(image.names.join(",")));
        }
    }
    for told in &built.provenance {
        // buildx's keys: by platform where there are several.
        let key = "buildx.build.provenance";
        let key = match built.provenance.as_slice() {
            [_] => key.to_owned(),
            _ => format!("{key}/{}", told.platform),
        };
        document.insert(key, told.predicate.clone());
    }
    if let Some(traffic) = &built.cache_traffic {
        document.insert("rbuild.cache".to_owned(), json!(traffic));
    }
    let steps = built.steps.iter().map(|step| {
        let mut document = json!(step);
        document["reason"] = json!(step.reason.as_ref().map(why::reason));
        document
    });
    document.insert("rbuild.steps".to_owned(), steps.collect());
    Value::Object(document)
}
