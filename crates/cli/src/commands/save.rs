//! `rbuild save`.

use std::io::IsTerminal as _;

use rbuild::{Destination, Output};

use crate::args::transfer::SaveArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt};

/// Writes the archive.
pub fn run(args: &SaveArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let request = args.request()?;
    let to_stdout = matches!(
        request.output,
        Output::DockerArchive(Destination::Stdout) | Output::OciArchive(Destination::Stdout)
    );
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage_hint(
            "an archive is nothing for a terminal",
            "name a file with -o FILE, or send standard output somewhere",
        ));
    }
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    let saved =
        context.shown(args.quiet, |progress| engine.save_images(&request, progress, &cancel));
    saved?;
    Ok(exit_code::SUCCESS)
}
