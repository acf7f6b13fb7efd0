//! `rbuild kill`.

use crate::args::container::KillArgs;
use crate::commands::{Context, each, stop};
use crate::failure::Failure;
use crate::output;

/// Sends a signal to containers.
pub fn run(args: &KillArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let signal = stop::number(&args.signal)?;
    let engine = context.engine()?;
    each(&args.containers, |name| {
        engine.container(name)?.signal(signal)?;
        output::line(name)
    })
}
