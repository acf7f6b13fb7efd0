//! `rbuild cp`.

use std::io::{IsTerminal as _, Write as _};

use rbuild::{CopyOptions, CopyPlace, Engine};

use crate::args::cp::{CpArgs, End, end};
use crate::args::step::{Subject, is_number};
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt};

/// Copies files into or out of a container, or out of a step of a past build.
pub fn run(args: &CpArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let (from, to) = (end(&args.from)?, end(&args.to)?);
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = context.engine()?;
    match (settled(from, &engine)?, to) {
        (End::Place(from), End::Place(to)) => {
            let options = CopyOptions { archive: args.archive, follow: args.follow_link };
            engine.copy_files(&from, &to, options, &cancel)?;
        }
        (
            End::Place(from @ (CopyPlace::Container { .. } | CopyPlace::Step { .. })),
            End::Standard,
        ) => {
            let mut stdout = std::io::stdout().lock();
            if stdout.is_terminal() {
                return Err(Failure::usage_hint(
                    "cp: a tar is not written to a terminal",
                    "redirect it, or name a file with `rbuild cp CONTAINER:PATH DEST`",
                ));
            }
            engine.copy_to_tar(&from, args.follow_link, &mut stdout, &cancel)?;
            stdout.flush().map_err(Failure::io("write to standard output"))?;
        }
        (End::Standard, End::Place(CopyPlace::Container { container, path })) => {
            engine.copy_from_tar(&container, &path, &mut std::io::stdin().lock(), &cancel)?;
        }
        _ => {
            return Err(Failure::usage_hint(
                "cp: `-` is the other end of a container's path",
                "the form is `rbuild cp CONTAINER:PATH -` or `rbuild cp - CONTAINER:PATH`",
            ));
        }
    }
    Ok(exit_code::SUCCESS)
}

/// A number is a step, unless a container has it for its name.
fn settled(end: End, engine: &Engine) -> Result<End, Failure> {
    match end {
        End::Place(CopyPlace::Container { container, path })
            if is_number(&container)
                && matches!(Subject::find(engine, &container)?, Subject::Step(_)) =>
        {
            Ok(End::Place(CopyPlace::Step { step: container, path }))
        }
        other => Ok(other),
    }
}
