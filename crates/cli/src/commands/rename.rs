//! `rbuild rename`.

use crate::args::container::RenameArgs;
use crate::commands::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Gives a container another name.
pub fn run(args: &RenameArgs, context: &Context<'_>) -> Result<i32, Failure> {
    context.engine()?.rename_container(&args.container, &args.name)?;
    Ok(exit_code::SUCCESS)
}
