//! `rbuild logs`.

use std::io::Write as _;

use rbuild::logs::{Entry, Follow, ReadOptions, read};
use rbuild::{ContainerError, Status, Stream};

use crate::args::container::LogsArgs;
use crate::args::filter;
use crate::args::step::Subject;
use crate::commands::{Context, step_log};
use crate::failure::Failure;
use crate::{exit_code, human};

/// Prints what a container wrote, its output to standard output, its errors to standard error; or
/// what a step of a past build wrote.
pub fn run(args: &LogsArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let now = human::now();
    let nanoseconds = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => filter::time(text, now).map(|time| time.checked_mul(1_000_000)),
    };
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        lines => Some(lines.parse().map_err(|_| {
            Failure::usage_hint(
                format!("--tail {lines}: not a number of lines"),
                "give a number, or `all`",
            )
        })?),
    };
    let options =
        ReadOptions { tail, since: nanoseconds(&args.since)?, until: nanoseconds(&args.until)? };
    let engine = context.engine()?;
    let container = match Subject::find(&engine, &args.container)? {
        Subject::Container(container) => container,
        Subject::Step(step) => return step_log::print(args, &engine, &step),
    };
    if !container.record().log.keep {
        return Err(Failure::usage_hint(
            "the output of this container is not kept",
            "it was made with --log-driver none",
        ));
    }
    let directory = container.directory();
    let mut print = |entry: Entry| print(&entry, args.timestamps);
    let newest = match read(directory, options, &mut print) {
        Err(error) if is_closed(&error) => return Ok(exit_code::SUCCESS),
        read => read?,
    };
    if !args.follow {
        return Ok(exit_code::SUCCESS);
    }
    let mut follow = Follow::new(directory, options, newest);
    loop {
        // In this order: what it wrote before it ended is there once it is known to have ended.
        let runs = match container.state() {
            Ok(state) => matches!(state.status, Status::Running | Status::Restarting),
            // It was removed.
            Err(_) => false,
        };
        let entries = follow.more()?;
        if entries.is_empty() && !runs {
            return Ok(exit_code::SUCCESS);
        }
        for entry in entries {
            if print(entry).is_err() {
                return Ok(exit_code::SUCCESS);
            }
        }
    }
}

fn print(entry: &Entry, timestamps: bool) -> std::io::Result<()> {
    let mut text = match timestamps {
        true => format!("{} {}", entry.written_time(), entry.text),
        false => entry.text.clone(),
    };
    if timestamps && !text.ends_with('\n') {
        text.push('\n');
    }
    match entry.stream {
        Stream::Stdout => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        }
        Stream::Stderr => std::io::stderr().lock().write_all(text.as_bytes()),
    }
}

/// Whether nobody reads any more.
fn is_closed(error: &ContainerError) -> bool {
    matches!(error, ContainerError::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
}
