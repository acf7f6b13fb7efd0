//! `rbuild prune`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rbuild::{Class, PruneOptions, Silent};

use crate::args::prune::PruneArgs;
use crate::commands::{Context, rows};
use crate::failure::Failure;
use crate::{exit_code, human, interrupt, output};

/// Removes build cache, and with `--all` also cache mounts and images without a name, unless some
/// cache was chosen.
pub fn run(args: &PruneArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let now = human::now();
    // What the environment says is about building; to prune means to prune.
    let options = args.options(context.global.limits(None)?, now)?;
    if !args.force && std::io::stdin().is_terminal() && !is_meant(what(&options))? {
        return Ok(exit_code::FAILURE);
    }
    let cancel = interrupt::cancel_on_interrupt()?;
    let pruned = context.engine()?.prune(&options, &Silent, &cancel)?;
    let (images, removed): (Vec<_>, Vec<_>) =
        pruned.removed.into_iter().partition(|row| row.class == Class::Image);
    for image in images {
        output::line(&format!("Deleted: {}", image.id))?;
    }
    if args.verbose {
        output::data(rows::blocks(&removed, now))?;
    } else if !removed.is_empty() {
        output::data(rows::table(&removed, now))?;
    }
    output::line(&format!("Total reclaimed space: {}", human::bytes(pruned.bytes)))?;
    Ok(exit_code::SUCCESS)
}

fn what(options: &PruneOptions) -> &'static str {
    match (options.all, options.filter.is_empty()) {
        (_, false) => "the chosen build cache",
        (true, true) => {
            "all build cache that no image needs, cache mounts, and images without a name"
        }
        (false, true) => "build cache that no image uses",
    }
}

/// Asks. Scripts, which have no terminal, are not asked.
pub(super) fn is_meant(what: &str) -> Result<bool, Failure> {
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
