//! What can go wrong below a held directory.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::metadata::FileKind;

/// Why an operation below a [`crate::Root`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootedError {
    /// A system call failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `make directory`.
        action: &'static str,
        /// The path as the caller gave it, from the root.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path holds a NUL byte, which no file name can.
    #[error("path {path:?} holds a NUL byte")]
    NulInPath {
        /// The refused path.
        path: PathBuf,
    },
    /// The path is the root itself or ends in `..`, so it names nothing that could be made or
    /// removed.
    #[error("path {path:?} has no final name")]
    NoName {
        /// The refused path.
        path: PathBuf,
    },
    /// Something else was expected at this path.
    #[error("{} is a {found}, not a {expected}", path.display())]
    WrongKind {
        /// The path as the caller gave it.
        path: PathBuf,
        /// What is there.
        found: FileKind,
        /// What was asked for.
        expected: FileKind,
    },
    /// The file is larger than its reader allows.
    #[error("{} is larger than {cap} bytes", path.display())]
    TooLarge {
        /// The path as the caller gave it.
        path: PathBuf,
        /// The limit, in bytes.
        cap: u64,
    },
    /// More symbolic links in one path than the kernel would follow.
    #[error("too many symbolic links in {}", path.display())]
    TooManyLinks {
        /// The path as the caller gave it.
        path: PathBuf,
    },
    /// The tree was changed by somebody else while it was being removed.
    #[error("{} was moved while it was being removed", path.display())]
    Moved {
        /// The path as the caller gave it.
        path: PathBuf,
    },
    /// It is a mount point of a mount namespace, maybe another one: removing it would unmount there.
    #[error("something is mounted at {}: it cannot be replaced or removed", path.display())]
    Mounted {
        /// The path as the caller gave it.
        path: PathBuf,
    },
    /// The kernel is older than 5.6 or a filter hides `openat2`; nothing else resolves a
    /// stranger's path safely, so there is no fallback.
    #[error("this kernel does not offer openat2 (Linux 5.6), which safe path resolution needs")]
    NoOpenat2,
    /// `/proc` is not a procfs, so attributes of special files cannot be set by descriptor.
    #[error("/proc is not a proc filesystem")]
    NoProc,
}

impl RootedError {
    pub(crate) fn io(action: &'static str, path: &Path, errno: Errno) -> Self {
        Self::Io { action, path: path.to_owned(), source: errno.into() }
    }

    /// The kernel's error number, if a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    /// Whether the path, or a directory of it, does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NOTDIR))
    }
}
