//! `rbuild rmi`.

use rbuild::BuildError;

use crate::args::images::RmiArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, output, report};

/// Removes each of the images; what fails does not keep the others.
pub fn run(args: &RmiArgs, context: &Context<'_>) -> Result<i32, Failure> {
    args.other.settle()?;
    let engine = context.engine()?;
    let mut code = exit_code::SUCCESS;
    for name in &args.images {
        match engine.remove_image(name, args.force) {
            Ok(removed) => {
                for name in &removed.untagged {
                    output::line(&format!("Untagged: {name}"))?;
                }
                for id in &removed.deleted {
                    output::line(&format!("Deleted: {id}"))?;
                }
            }
            Err(BuildError::NoSuchImage { .. }) if args.force => {}
            Err(error) => code = report::failure(&error.into()),
        }
    }
    Ok(code)
}
