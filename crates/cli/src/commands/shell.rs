//! `rbuild shell`, and the part of `rbuild exec` that enters steps.

use std::io::IsTerminal as _;

use rbuild::{BuildError, Engine, EnterOptions, ExecStreams, PastStep};

use crate::args::step::ShellArgs;
use crate::commands::Context;
use crate::commands::attend::{Attending, attend_exec};
use crate::commands::run::with_code;
use crate::failure::Failure;
use crate::output::{say, visible};
use crate::{interrupt, output};

/// Opens a shell, or runs a program, where a step ran; answers its exit code.
pub fn run(args: &ShellArgs, context: &Context<'_>) -> Result<i32, Failure> {
    run_inner(args, context).map_err(with_code)
}

fn run_inner(args: &ShellArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let options = args.options(context.environment)?;
    let engine = context.engine()?;
    let step = match &args.step {
        Some(name) => engine.past_step(name)?,
        None => latest(&engine)?,
    };
    let tty = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if tty && options.argv.is_empty() {
        let what = if step.step.failure.is_some() { "where it failed: " } else { "after " };
        say(&format!("{what}{} {}", step.name(), visible(&step.step.name)));
        say("what is written here goes with this shell, but for what is written into cache mounts");
    }
    enter(&engine, &step, &options, Attending { tty, input: true, owner: true })
}

/// The last step that failed, if the last build failed, else the last step.
fn latest(engine: &Engine) -> Result<PastStep, BuildError> {
    let failed = engine
        .past_builds()?
        .first()
        .is_some_and(|build| build.record.steps.iter().any(|step| step.failure.is_some()));
    engine.past_step(if failed { "@failed" } else { "@last" })
}

/// Runs a program where a step ran, and says what the step had and the program has not.
pub fn enter(
    engine: &Engine,
    step: &PastStep,
    options: &EnterOptions,
    how: Attending,
) -> Result<i32, Failure> {
    how.check()?;
    let streams = match how.tty {
        true => ExecStreams::Terminal,
        false => ExecStreams::Pipes { input: how.input },
    };
    let cancel = interrupt::cancel_on_interrupt()?;
    let signals = how.signals()?;
    let entered = engine.enter_step(step, options, streams, &cancel)?;
    for missing in &entered.missing {
        output::note(&visible(missing));
    }
    attend_exec(entered.exec, how, signals, &cancel)
}
