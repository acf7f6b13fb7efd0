//! `rbuild start`.

use rbuild::Attach;

use crate::args::container::StartArgs;
use crate::commands::attend::{Attending, attend, start_failure};
use crate::commands::ps::is_up;
use crate::commands::terminal::DetachKeys;
use crate::commands::{Context, each};
use crate::failure::Failure;
use crate::{interrupt, output};

/// Starts containers, or one that is attached to.
pub fn run(args: &StartArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let engine = context.engine()?;
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| {
            let mut container = engine.container(name)?;
            // As in Docker, that it runs already is fine.
            if !is_up(&container.state()?) {
                container.start(Attach::No).map_err(start_failure)?;
            }
            output::line(name)
        });
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::usage_hint(
            "only one container can be attached to",
            "leave -a and -i out to start several",
        ));
    };
    let mut container = engine.container(name)?;
    let record = container.record();
    let input = args.interactive && record.open_stdin;
    let how = Attending { tty: record.spec.terminal, input, owner: false };
    how.check()?;
    let keys = DetachKeys::of(args.detach_keys.as_deref())?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let signals = how.signals()?;
    match is_up(&container.state()?) {
        true => container.attach()?,
        false => container.start(Attach::Yes).map_err(start_failure)?,
    }
    attend(&mut container, how, keys, signals, &cancel)
}
