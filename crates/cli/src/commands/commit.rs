//! `rbuild commit`.

use rbuild::{CommitRequest, ImageWords};

use crate::args::container::CommitArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// Makes an image of a container.
pub fn run(args: &CommitArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let words = ImageWords {
        name: args.name.clone(),
        author: args.author.clone(),
        message: args.words.message.clone(),
        changes: args.words.change.clone(),
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    let request = CommitRequest { words, pause: args.pause && !args.no_pause };
    let id = context.engine()?.commit(&args.container, &request, &cancel)?;
    output::line(&id.to_string())?;
    Ok(exit_code::SUCCESS)
}
