//! Cancellation that can wake a thread which waits in the kernel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::EventfdFlags;

/// Asks a long call to stop. Clones share one state.
///
/// Besides the flag there is an eventfd, because a flag alone cannot wake a `poll` on a child
/// process: callers that wait in the kernel add [`CancelToken::fd`] to what they poll.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<State>);

#[derive(Debug)]
struct State {
    cancelled: AtomicBool,
    /// Missing only when the process had no descriptor left; the flag still works then.
    eventfd: Option<OwnedFd>,
}

/// The call stopped because its [`CancelToken`] was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Default for CancelToken {
    fn default() -> Self {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(0, flags).ok();
        Self(Arc::new(State { cancelled: AtomicBool::new(false), eventfd }))
    }
}

impl CancelToken {
    /// Asks for the stop. May be called from a signal handler: it only stores a flag and writes
    /// eight bytes.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some(fd) = &self.0.eventfd {
            // A full counter is readable already, which is all that a waiter needs.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    /// Whether the stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// `Err` once the stop was asked for.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// Becomes readable when the stop is asked for, and stays so.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.eventfd.as_ref().map(|fd| fd.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_flag_and_the_descriptor_becomes_readable() {
        let token = CancelToken::default();
        let other = token.clone();
        assert!(other.check().is_ok());
        token.cancel();
        assert!(other.is_cancelled());
        let mut buffer = [0; 8];
        assert_eq!(rustix::io::read(other.fd().unwrap(), &mut buffer).unwrap(), 8);
    }
}
