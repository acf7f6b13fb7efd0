//! `rbuild exec`.

use rbuild::ExecStreams;

use crate::args::exec::ExecArgs;
use crate::args::step::Subject;
use crate::commands::attend::{Attending, attend_exec};
use crate::commands::run::with_code;
use crate::commands::{Context, shell};
use crate::failure::Failure;
use crate::{exit_code, interrupt};

/// Runs a program in a running container and answers its exit code, or leaves it behind.
pub fn run(args: &ExecArgs, context: &Context<'_>) -> Result<i32, Failure> {
    run_inner(args, context).map_err(with_code)
}

fn run_inner(args: &ExecArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let options = args.options(context.environment)?;
    let how = Attending { tty: args.tty, input: args.interactive, owner: true };
    how.check()?;
    let engine = context.engine()?;
    let container = match Subject::find(&engine, &args.container)? {
        Subject::Container(container) => container,
        Subject::Step(step) => {
            let options = args.step_options(context.environment)?;
            return shell::enter(&engine, &step, &options, how);
        }
    };
    if args.detach {
        container.exec_in_background(&options)?;
        return Ok(exit_code::SUCCESS);
    }
    let streams = match args.tty {
        true => ExecStreams::Terminal,
        false => ExecStreams::Pipes { input: args.interactive },
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    let signals = how.signals()?;
    let exec = container.exec(&options, streams)?;
    attend_exec(exec, how, signals, &cancel)
}
