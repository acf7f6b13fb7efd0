//! Leases: what a running build uses and nobody may prune.
//!
//! A lease is a file `locks/lease-<random>`, locked as long as its process lives, with one line
//! per protected object (`s <snapshot>`, `b <hex>` or `l <directory of logs>`). The rule:
//!
//! * While a [`Store`](crate::Store) handle has a live lease, **every snapshot and blob that this
//!   handle publishes, or that one of its look-ups returns, is written into the lease** before it
//!   is used. Nobody has to remember to do so.
//! * The line is written under the shared gc lock, and *afterwards* the object is looked at once
//!   more. Prune reads all leases and moves its victims away under the exclusive gc lock. So
//!   either prune sees the line, or the look-up sees that the object is gone; there is no third
//!   order. No clock is involved.
//! * A lease protects a snapshot with all its parents; prune expands that.
//! * A lease file that nobody locks belongs to a dead process and protects nothing.
//!
//! A process that makes blobs without holding a lease may lose them to a prune until an image
//! refers to them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_types::Digest;

use crate::error::{At as _, CacheError};
use crate::snapshots::SnapshotId;
use crate::{file, lock};

/// Something that a lease can protect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    Snapshot(SnapshotId),
    Blob(Digest),
    /// A directory below `logs/`.
    Logs(String),
}

/// Protects what its store handle uses, until it is dropped. See the module's header.
#[derive(Debug)]
pub struct Lease {
    pub(crate) _inner: Arc<LeaseFile>,
}

/// The open, locked file of a lease.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    path: PathBuf,
    file: File,
    seen: Mutex<HashSet<Object>>,
}

impl LeaseFile {
    /// Makes and locks a new lease file in `locks`.
    pub(crate) fn create(locks: &Path) -> Result<Self, CacheError> {
        loop {
            let path = locks.join(format!("{PREFIX}{}", file::random_name(8)?));
            let file = file::create_new(&path)?;
            // A sweep may have taken the file, still unlocked, for one of a dead process.
            if lock::try_lock(&file, &path)? && lock::is_at(&file, &path) {
                return Ok(Self { path, file, seen: Mutex::default() });
            }
        }
    }

    /// Whether `object` is written down already.
    pub(crate) fn has(&self, object: &Object) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(object)
    }

    /// Writes `object` down. The caller holds the shared gc lock.
    pub(crate) fn add(&self, object: &Object) -> Result<(), CacheError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(object) {
            return Ok(());
        }
        let line = match object {
            Object::Snapshot(id) => format!("s {id}\n"),
            Object::Blob(digest) => format!("b {}\n", digest.hex()),
            Object::Logs(directory) => format!("l {directory}\n"),
        };
        (&self.file).write_all(line.as_bytes()).at("write", &self.path)?;
        seen.insert(object.clone());
        Ok(())
    }
}

impl Drop for LeaseFile {
    fn drop(&mut self) {
        // Still locked here. What remains after a failure is an unlocked file for the next sweep.
        let _ = file::unlink(&self.path);
    }
}

/// Start of the name of every lease file.
pub(crate) const PREFIX: &str = "lease-";

/// What the live leases of all processes protect. The caller holds the exclusive gc lock.
#[derive(Debug, Default)]
pub(crate) struct Protected {
    pub(crate) snapshots: HashSet<SnapshotId>,
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) logs: HashSet<String>,
}

impl Protected {
    /// Reads all leases in `locks`.
    pub(crate) fn read(locks: &Path) -> Result<Self, CacheError> {
        let mut protected = Self::default();
        for name in file::names(locks)?.iter().filter(|name| name.starts_with(PREFIX)) {
            let path = locks.join(name);
            let Some(file) = file::open_if_there(&path)? else { continue };
            if lock::try_lock(&file, &path)? {
                continue;
            }
            // Written by this program only; the bound is against a damaged file system.
            let bytes = file::read_capped(file, &path, 256 << 20)?;
            for line in String::from_utf8_lossy(&bytes).lines() {
                match line.split_once(' ') {
                    Some(("s", id)) => protected.snapshots.extend(id.parse::<SnapshotId>()),
                    Some(("b", hex)) => {
                        protected.blobs.extend(format!("sha256:{hex}").parse::<Digest>());
                    }
                    Some(("l", directory)) => drop(protected.logs.insert(directory.to_owned())),
                    _ => {}
                }
            }
        }
        Ok(protected)
    }
}
