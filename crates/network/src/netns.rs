//! Network namespaces, held as descriptors: no name in the file system, so there is none to be
//! left behind. One lives until its last descriptor is closed and its last process has ended.
//!
//! A namespace belongs to a thread, so whoever makes or enters one does it on a thread that ends
//! afterwards; the caller's own stays where it is. Sockets stay in the namespace they were made in,
//! whoever holds them.

mod sys;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::link::{LinkError, Links};

/// The stack of a thread in a namespace. Only what is touched becomes memory.
const STACK: usize = 256 * 1024;

/// The namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a network namespace cannot be made or entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// The kernel refused.
    #[error("cannot {action}: {source}{}", crate::hint(.source))]
    Kernel {
        /// What was to be done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The loopback device could not be brought up.
    #[error(transparent)]
    Loopback(Box<LinkError>),
}

fn cannot(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> NetnsError {
    move |source| NetnsError::Kernel { action, source: source.into() }
}

/// Makes a network namespace in which there is nothing but the loopback device, which is up.
pub fn create() -> Result<OwnedFd, NetnsError> {
    on_a_thread(|| {
        sys::unshare_network().map_err(cannot("make a network namespace"))?;
        let failed = |error| NetnsError::Loopback(Box::new(error));
        Links::open().and_then(|mut links| links.loopback_up()).map_err(failed)?;
        current()
    })?
}

/// Opens the network namespace of the calling thread.
pub fn current() -> Result<OwnedFd, NetnsError> {
    open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(cannot("open /proc/thread-self/ns/net"))
}

/// Runs `work` on a thread of its own that has entered `netns`, and waits for it. A panic in it
/// goes on in the caller.
pub fn within<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NetnsError> {
    on_a_thread(|| {
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(cannot("enter a network namespace"))?;
        Ok(work())
    })?
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
        let started = thread.spawn_scoped(scope, work);
        let started =
            started.map_err(|source| NetnsError::Kernel { action: "start a thread", source })?;
        Ok(started.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
