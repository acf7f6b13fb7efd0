//! `rbuild version`.

use rbuild::Platform;
use serde_json::json;

use crate::args::images::FormatArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::template::Template;
use crate::{exit_code, output};

/// Prints the version. Opens nothing.
pub fn run(args: &FormatArgs, _: &Context<'_>) -> Result<i32, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match &args.format {
        None => output::line(&format!("rbuild {version}"))?,
        Some(format) => {
            let platform = Platform::host();
            let document = json!({
                "Version": version,
                "Os": platform.os,
                "Arch": platform.architecture,
            });
            output::line(&Template::parse(format)?.render(&document)?)?;
        }
    }
    Ok(exit_code::SUCCESS)
}
