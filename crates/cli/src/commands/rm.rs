//! `rbuild rm`.

use rbuild::BuildError;

use crate::args::container::RmArgs;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Removes containers.
pub fn run(args: &RmArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| match engine.remove_container(name, args.force) {
        Ok(()) => output::line(name),
        Err(BuildError::NoSuchContainer { .. }) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    })
}
