//! `rbuild stop` and `restart`.

use std::time::Duration;

use rbuild::{Container, Stop, signal_number};

use crate::args::container::StopArgs;
use crate::commands::attend::start_failure;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::output;

/// Stops containers.
pub fn run(args: &StopArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        let container = engine.container(name)?;
        container.stop(Some(stop(args, &container)?))?;
        output::line(name)
    })
}

/// Stops containers and starts them again.
pub fn restart(args: &StopArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    each(&args.containers, |name| {
        let mut container = engine.container(name)?;
        let stop = stop(args, &container)?;
        container.restart(Some(stop)).map_err(start_failure)?;
        output::line(name)
    })
}

/// The container's own way to stop, but for what the line says.
fn stop(args: &StopArgs, container: &Container) -> Result<Stop, Failure> {
    let mut stop = container.record().stop;
    if let Some(seconds) = args.timeout {
        stop.patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    }
    if let Some(signal) = &args.signal {
        stop.signal = number(signal)?;
    }
    Ok(stop)
}

/// The number of a signal.
pub fn number(signal: &str) -> Result<i32, Failure> {
    signal_number(signal).ok_or_else(|| {
        Failure::usage_hint(
            format!("--signal {signal}: there is no such signal"),
            "for example TERM, SIGTERM or 15",
        )
    })
}
