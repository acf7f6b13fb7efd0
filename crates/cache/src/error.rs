//! What can go wrong with a store.

use std::io;
use std::path::{Path, PathBuf};

use rbuild_types::{Cancelled, Digest};

/// Why a call on a [`Store`](crate::Store) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The system refused an operation on a file of the store.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried: `open`, `rename`, …
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system of the store is full.
    #[error("{action} {}: no space left, {free} bytes free", path.display())]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// The file that did not fit.
        path: PathBuf,
        /// Bytes that the file system still has for this user.
        free: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The store was written by a newer version of this program; nothing was changed.
    #[error(
        "store {} has format {found}, this version reads up to {known}: use the newer version",
        path.display()
    )]
    NewerFormat {
        /// The index file.
        path: PathBuf,
        /// Format number found.
        found: i64,
        /// Highest format number known here.
        known: i64,
    },
    /// The store can be read but not written (read-only file system or permissions).
    #[error("store {} is read-only", path.display())]
    ReadOnly {
        /// The store's root.
        path: PathBuf,
    },
    /// The index refused a statement for another reason than damage.
    #[error("index {}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The directory for a new store is somebody else's.
    #[error(
        "{} is no store, and not empty (it holds {found}): name an empty or a new directory",
        path.display()
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One name in it.
        found: String,
    },
    /// The bytes are not the ones that their name promises.
    #[error("{} is damaged: expected {expected}, found {found}", path.display())]
    Mismatch {
        /// The file that was read or written.
        path: PathBuf,
        /// The promised digest or size.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The blob is larger than the caller is willing to read.
    #[error("blob {digest} has {size} bytes, more than the {cap} allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The caller's limit in bytes.
        cap: usize,
    },
    /// A name with a digest is the name of that image alone.
    #[error("{reference} cannot name {manifest}: its digest is another")]
    OtherDigest {
        /// The name.
        reference: String,
        /// The manifest that was to get it.
        manifest: Digest,
    },
    /// No blob of this digest is in the store.
    #[error("blob {digest} is not in the store")]
    NoBlob {
        /// The blob.
        digest: Digest,
    },
    /// No snapshot of this id is in the store.
    #[error("snapshot {id} is not in the store")]
    NoSnapshot {
        /// The snapshot.
        id: String,
    },
    /// A blob that should be an image manifest or config is not one.
    #[error("blob {digest} is not an image manifest or config")]
    NotAnImage {
        /// The blob.
        digest: Digest,
        /// Where the JSON differs.
        source: serde_json::Error,
    },
    /// The snapshot has children or is in use, so that it cannot be removed.
    #[error("snapshot {id} is in use")]
    InUse {
        /// The snapshot.
        id: String,
    },
    /// The volume cannot be removed while it is used.
    #[error("volume {name} is in use: wait for the step or container that uses it")]
    VolumeInUse {
        /// The volume.
        name: String,
    },
    /// Several cache mounts have this id: they differ in mode, owner or seed.
    #[error("{count} cache mounts have the id {id:?}: use a name, such as {name}")]
    AmbiguousCache {
        /// The id.
        id: String,
        /// How many there are.
        count: usize,
        /// The name of one.
        name: String,
    },
    /// The caller cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Names the path of a failed system call.
pub(crate) trait At<T> {
    /// Turns the system's error into a [`CacheError`] about `path`.
    fn at(self, action: &'static str, path: &Path) -> Result<T, CacheError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, CacheError> {
        self.map_err(|error| CacheError::io(action, path, error.into()))
    }
}

impl CacheError {
    /// An I/O error that names its path, and the free space when that is what lacks.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let nearest = path.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
                let free = nearest.map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
                Self::NoSpace { action, path, free, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether the cause is a file that is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
