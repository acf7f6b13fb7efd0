//! `rbuild tag`.

use crate::args::images::TagArgs;
use crate::commands::Context;
use crate::exit_code;
use crate::failure::Failure;

/// Gives an image another name.
pub fn run(args: &TagArgs, context: &Context<'_>) -> Result<i32, Failure> {
    context.engine()?.tag_image(&args.image, &args.name)?;
    Ok(exit_code::SUCCESS)
}
