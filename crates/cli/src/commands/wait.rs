//! `rbuild wait`.

use rbuild::CancelToken;

use crate::args::container::WaitArgs;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Waits for containers and prints their exit codes.
pub fn run(args: &WaitArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    // An interrupt ends the command, and never the container.
    let never = CancelToken::default();
    each(&args.containers, |name| {
        let exit = engine.container(name)?.wait(&never, &mut |_, _| {})?;
        output::line(&exit.code().to_string())
    })
}
