//! `rbuild push`.

use rbuild::Engine;

use crate::args::transfer::PushArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Pushes, and says the digest that each name stands for now.
pub fn run(args: &PushArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let options = context.engine_options()?;
    let request = args.request(&options.registry.registries)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = Engine::with_options(options)?;
    let pushed =
        context.shown(args.quiet, |progress| engine.push_image(&request, progress, &cancel));
    for image in pushed? {
        if let Some(file) = &args.digestfile {
            fs_err::write(file, image.digest.to_string())
                .map_err(Failure::io("write the digest"))?;
        }
        if args.quiet {
            output::line(&image.name.to_string())?;
            continue;
        }
        let tag = image.name.tag().unwrap_or_default();
        let separator = if tag.is_empty() { "" } else { ": " };
        let (digest, size) = (image.digest, image.size);
        output::line(&format!("{tag}{separator}digest: {digest} size: {size}"))?;
    }
    Ok(exit_code::SUCCESS)
}
