//! `rbuild pull`.

use rbuild::Engine;

use crate::args::transfer::PullArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Pulls one name after the other.
pub fn run(args: &PullArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let options = context.engine_options()?;
    let requests = args.requests(&options.registry.registries)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = Engine::with_options(options)?;
    for request in requests {
        let pulled =
            context.shown(args.quiet, |progress| engine.pull_image(&request, progress, &cancel));
        for image in pulled? {
            if !args.quiet {
                output::line(&format!("Digest: {}", image.digest))?;
                let status = match image.is_new {
                    true => "Downloaded newer image for",
                    false => "Image is up to date for",
                };
                output::line(&format!("Status: {status} {}", image.name.familiar()))?;
            }
            output::line(&image.name.to_string())?;
        }
    }
    Ok(exit_code::SUCCESS)
}
