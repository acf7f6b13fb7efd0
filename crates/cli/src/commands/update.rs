//! `rbuild update`.

use crate::args::container::UpdateArgs;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Changes what containers may use.
pub fn run(args: &UpdateArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let changes = args.changes()?;
    let engine = context.engine()?;
    each(&args.containers, |name| {
        engine.container(name)?.update(&changes)?;
        output::line(name)
    })
}
