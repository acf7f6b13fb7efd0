//! `rbuild rm`.

use rbuild::BuildError;

use crate::args::container::RmArgs;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Removes containers.
pub fn run(args: &RmArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        match engine.container(name) {
            Ok(mut container) => container.remove(args.force)?,
            Err(BuildError::NoSuchContainer { .. }) if args.force => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        output::line(name)
    })
}
