//! `rbuild pause` and `unpause`.

use crate::args::container::PauseArgs;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Holds containers.
pub fn pause(args: &PauseArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        engine.container(name)?.pause()?;
        output::line(name)
    })
}

/// Lets them go on.
pub fn unpause(args: &PauseArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        engine.container(name)?.unpause()?;
        output::line(name)
    })
}
