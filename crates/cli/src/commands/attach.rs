//! `rbuild attach`.

use crate::args::container::AttachArgs;
use crate::commands::Context;
use crate::commands::attend::{Attending, attend};
use crate::commands::terminal::DetachKeys;
use crate::failure::Failure;
use crate::interrupt;

/// Stays with a running container.
pub fn run(args: &AttachArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let mut container = context.engine()?.container(&args.container)?;
    let record = container.record();
    let input = record.open_stdin && !args.no_stdin;
    let how = Attending { tty: record.spec.terminal, input, owner: false };
    how.check()?;
    let keys = DetachKeys::of(args.detach_keys.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let signals = how.signals()?;
    container.attach()?;
    attend(&mut container, how, keys, signals, &cancel)
}
