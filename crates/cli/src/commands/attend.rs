//! Staying with a process that runs: what it writes goes out, what is typed goes in, and signals
//! are passed on.
//!
//! Two threads besides the one that waits, one for input and one for signals. They may block for
//! ever and are left behind when the command ends.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::OwnedFd;

use rbuild::{BuildError, CancelToken, Container, Exec, Exit, Input, Line, Stream};

use crate::commands::terminal::{self, DetachKeys};
use crate::failure::Failure;
use crate::{exit_code, interrupt, output};

/// As many interrupts make the command stop a container that does not listen, as in Docker.
const PATIENCE: usize = 3;

/// How a command stays.
#[derive(Debug, Clone, Copy)]
pub struct Attending {
    /// Whether the process has a terminal.
    pub tty: bool,
    /// Whether standard input is passed on.
    pub input: bool,
    /// Whether the container is stopped when nobody is left to listen or to interrupt it: it was
    /// made by this command. Else the command ends alone.
    pub owner: bool,
}

impl Attending {
    /// Refuses to pass on what is typed where nobody can type.
    pub fn check(self) -> Result<(), Failure> {
        match self.tty && self.input && !std::io::stdin().is_terminal() {
            true => Err(Failure::usage_hint(
                "-t with -i needs a terminal at standard input",
                "leave -t out to pass data in",
            )),
            false => Ok(()),
        }
    }

    /// Ends the command because of a signal, or of an end that a signal stands for.
    fn give_up(self, signal: i32, cancel: &CancelToken) {
        if !self.owner {
            terminal::restore();
            std::process::exit(exit_code::SIGNAL_BASE + signal);
        }
        interrupt::interrupted_by(signal);
        cancel.cancel();
    }

    /// Collects the signals that the container is to get. Before it is started, so that none is
    /// lost.
    pub fn signals(self) -> Result<OwnedFd, Failure> {
        interrupt::forward(if self.tty { &[libc::SIGWINCH] } else { &[] })
    }
}

/// Stays with a container that was attached to until it ends; its exit code.
pub fn attend(
    container: &mut Container,
    how: Attending,
    keys: DetachKeys,
    signals: OwnedFd,
    cancel: &CancelToken,
) -> Result<i32, Failure> {
    // It may have ended already.
    let line = container.line().ok();
    let input = how.input.then(|| container.input()).transpose()?;
    let keys = Some(keys).filter(|_| how.tty);
    let wait = |output: &mut Output<'_>| container.wait(cancel, output);
    stay(line, input.zip(Some(keys)), how, signals, cancel, wait)
}

/// Stays with a process in a container until it ends; its exit code. It would not survive without
/// its terminal, so nothing detaches from it.
pub fn attend_exec(
    mut exec: Exec,
    how: Attending,
    signals: OwnedFd,
    cancel: &CancelToken,
) -> Result<i32, Failure> {
    let line = exec.line().ok();
    let input = how.input.then(|| exec.input()).flatten();
    let wait = |output: &mut Output<'_>| exec.wait(cancel, output);
    stay(line, input.zip(Some(None)), how, signals, cancel, wait)
}

/// Takes what a process writes.
type Output<'a> = dyn FnMut(Stream, &[u8]) + 'a;

fn stay(
    line: Option<Line>,
    input: Option<(Input, Option<DetachKeys>)>,
    how: Attending,
    signals: OwnedFd,
    cancel: &CancelToken,
    wait: impl FnOnce(&mut Output<'_>) -> Result<Exit, BuildError>,
) -> Result<i32, Failure> {
    let raw = (how.tty && how.input).then(terminal::Raw::enter).transpose()?;
    if let Some(line) = line {
        if how.tty {
            terminal::tell_size(&line);
        }
        let give_up = cancel.clone();
        std::thread::spawn(move || pass_signals(&line, signals, how, &give_up));
    }
    if let Some((input, keys)) = input {
        std::thread::spawn(move || terminal::pass_input(input, keys));
    }
    let mut output = |stream: Stream, bytes: &[u8]| {
        let written = match stream {
            Stream::Stdout => whole(std::io::stdout().lock(), bytes),
            Stream::Stderr => whole(std::io::stderr().lock(), bytes),
        };
        if written.is_err() {
            // Nobody reads any more.
            how.give_up(libc::SIGPIPE, cancel);
        }
    };
    let waited = wait(&mut output);
    drop(raw);
    match waited {
        Ok(exit) => {
            if let Exit::OutOfMemory(_) = exit {
                output::note("the kernel killed a process: the memory of --memory was used up");
            }
            Ok(exit.code())
        }
        Err(error) if exit_code::is_cancelled(&error) => Ok(interrupt::exit_code()),
        Err(error) => Err(error.into()),
    }
}

fn whole(mut to: impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Passes signals on and tells the terminal's size when that changes.
fn pass_signals(line: &Line, signals: OwnedFd, how: Attending, cancel: &CancelToken) {
    let mut interrupts = 0;
    let (mut signals, mut byte) = (std::fs::File::from(signals), [0]);
    // The end that is written to is never closed, so this ends with the command.
    while signals.read_exact(&mut byte).is_ok() {
        let signal = i32::from(byte[0]);
        match signal {
            libc::SIGWINCH if how.tty => terminal::tell_size(line),
            _ => line.send(signal),
        }
        interrupts += usize::from([libc::SIGINT, libc::SIGTERM].contains(&signal));
        // Whose terminal is gone can neither be seen nor be ended by anyone.
        let alone = signal == libc::SIGHUP && how.tty;
        if alone || interrupts >= PATIENCE {
            how.give_up(signal, cancel);
        }
    }
}

/// An error of a start, with the code that Docker gives it.
pub fn start_failure(error: BuildError) -> Failure {
    let code = exit_code::of_run_error(&error);
    Failure::WithCode(code, Box::new(error.into()))
}
