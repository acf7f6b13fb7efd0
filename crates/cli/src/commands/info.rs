//! `rbuild info`.

use rbuild::Platform;
use serde_json::{Value, json};

use crate::args::images::FormatArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::template::Template;
use crate::{exit_code, output};

/// Shows where things are and what is in the store.
pub fn run(args: &FormatArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let root = context.global.store(context.environment)?;
    let images = context.engine()?.images()?.len();
    let kernel = rustix::system::uname();
    let document = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Root": root.display().to_string(),
        "Images": images,
        "Platform": Platform::host().to_string(),
        "Kernel": kernel.release().to_string_lossy(),
        "Processors": std::thread::available_parallelism().map_or(1, usize::from),
        "User": rustix::process::geteuid().as_raw(),
    });
    match template {
        Some(template) => output::line(&template.render(&document)?)?,
        None => {
            let fields = document.as_object().into_iter().flatten();
            for (name, value) in fields {
                let value = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                output::line(&format!("{name}: {value}"))?;
            }
        }
    }
    Ok(exit_code::SUCCESS)
}
