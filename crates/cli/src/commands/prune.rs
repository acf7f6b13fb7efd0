//! `rbuild prune`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rbuild::Silent;

use crate::args::prune::PruneArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, human, interrupt, output};

/// Removes build cache, and with `--all` also images without a name, unless some cache was chosen.
pub fn run(args: &PruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let options = args.options(human::now())?;
    if !args.force && std::io::stdin().is_terminal() && !is_meant(args)? {
        return Ok(exit_code::FAILURE);
    }
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    if args.all && !args.chooses() {
        for image in engine.prune_images()? {
            output::line(&format!("Deleted: {}", image.image_id))?;
        }
    }
    let pruned = engine.prune(&options, &Silent, &cancel)?;
    output::line(&format!("Total reclaimed space: {}", human::bytes(pruned.bytes)))?;
    Ok(exit_code::SUCCESS)
}

/// Asks. Scripts, which have no terminal, are not asked.
fn is_meant(args: &PruneArgs) -> Result<bool, Failure> {
    let what = match (args.all, args.chooses()) {
        (_, true) => "the chosen build cache",
        (true, false) => "all build cache that no image needs, and images without a name",
        (false, false) => "build cache that no image uses",
    };
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "This removes {what}. Continue? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Failure::io("read the answer on standard input"))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
