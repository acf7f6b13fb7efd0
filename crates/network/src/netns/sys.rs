//! The one call that rustix leaves to its caller to justify.

#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and no other, into a network namespace of its own.
pub(super) fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: what makes the call unsafe is that it can take the table of descriptors apart
    // (CLONE_FILES); with this flag alone it does not.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
}
