//! `rbuild export`.

use std::io::IsTerminal as _;

use rbuild::Destination;

use crate::args::container::ExportArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt};

/// Writes the tar.
pub fn run(args: &ExportArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let path = args.output.clone().filter(|path| path.as_os_str() != "-");
    if path.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage_hint(
            "an archive is nothing for a terminal",
            "name a file with -o FILE, or send standard output somewhere",
        ));
    }
    let destination = path.map_or(Destination::Stdout, Destination::File);
    let cancel = interrupt::cancel_on_interrupt()?;
    context.engine()?.export_container(&args.container, &destination, &cancel)?;
    Ok(exit_code::SUCCESS)
}
