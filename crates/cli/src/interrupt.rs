//! Ctrl-C and `kill`.
//!
//! [`cancel_on_interrupt`] serves builds: the first SIGINT or SIGTERM cancels the token, and the
//! command ends by itself once everything is cleaned up; the second ends the process at once
//! (steps die with it, they asked the kernel for that). [`forward`] serves `run`: signals are
//! written as bytes into a pipe, from which a thread passes them to the container.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use rbuild::CancelToken;

use crate::exit_code::SIGNAL_BASE;
use crate::failure::Failure;
use crate::sys::signals;

/// The signal that arrived first; 0 before that.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// What the first signal cancels. Set before the handler is, and never again.
static TOKEN: OnceLock<CancelToken> = OnceLock::new();
/// Where forwarded signals are written; -1 before that. The descriptor is never closed.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Forwarded to a container in the foreground.
const FORWARDED: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// A token that the first SIGINT or SIGTERM cancels.
pub fn cancel_on_interrupt() -> Result<CancelToken, Failure> {
    let token = TOKEN.get_or_init(CancelToken::default).clone();
    signals::handle(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP], on_interrupt)
        .map_err(Failure::io("install a signal handler"))?;
    Ok(token)
}

/// The shell's number for the signal that interrupted the command.
pub fn exit_code() -> i32 {
    match FIRST.load(Ordering::SeqCst) {
        0 => SIGNAL_BASE + libc::SIGINT,
        signal => SIGNAL_BASE + signal,
    }
}

/// Whether a signal asked the command to stop.
pub fn happened() -> bool {
    FIRST.load(Ordering::SeqCst) != 0
}

extern "C" fn on_interrupt(signal: i32) {
    if FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        signals::exit_now(SIGNAL_BASE + signal);
    }
    // A load and a write to an eventfd: both allowed here.
    if let Some(token) = TOKEN.get() {
        token.cancel();
    }
}

/// Collects the signals that a container in the foreground is to get, and `extra` ones. The
/// answer is the end to read from: one byte a signal.
pub fn forward(extra: &[i32]) -> Result<OwnedFd, Failure> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::io("make a pipe")(error.into()))?;
    // A full pipe must not block a handler.
    rustix::io::ioctl_fionbio(&writer, true)
        .map_err(|error| Failure::io("make a pipe")(error.into()))?;
    PIPE.store(writer.as_raw_fd(), Ordering::SeqCst);
    // The handler writes to it as long as the process lives.
    std::mem::forget(writer);
    for list in [&FORWARDED[..], extra] {
        signals::handle(list, on_forwarded).map_err(Failure::io("install a signal handler"))?;
    }
    Ok(reader)
}

/// Remembers the signal that made `run` give up, for the exit code.
pub fn interrupted_by(signal: i32) {
    let _ = FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
}

extern "C" fn on_forwarded(signal: i32) {
    signals::write_byte(PIPE.load(Ordering::SeqCst), u8::try_from(signal).unwrap_or(0));
}
