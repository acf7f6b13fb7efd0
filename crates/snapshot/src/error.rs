//! What can go wrong with mounts.

use std::io;
use std::path::PathBuf;

/// Why a root filesystem cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The kernel refused a step of the mount.
    #[error("cannot mount {what}: {action}: {source}{}", hint(.source))]
    Mount {
        /// What was to be mounted.
        what: String,
        /// The system call that failed.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More layers than the kernel stacks.
    #[error("{count} layers are more than the {MAX} that the kernel can stack", MAX = crate::MAX_LAYERS)]
    TooManyLayers {
        /// How many there were.
        count: usize,
    },
    /// A directory could not be made, read or removed.
    #[error("cannot prepare {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PERM) => {
            " (mounting needs root; without it run inside a user namespace, for example with `unshare -rm`)"
        }
        Some(rustix::io::Errno::NOSYS | rustix::io::Errno::NODEV) => {
            " (needs Linux 6.7 or newer with overlayfs)"
        }
        _ => "",
    }
}
