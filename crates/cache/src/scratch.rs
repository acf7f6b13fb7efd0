//! Work in progress: `tmp/<owner>/…`.
//!
//! Each process makes one directory of its own when it first needs one, and holds a kernel lock on
//! the *directory*. When the lock is free the process is dead, and everybody may remove it.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::CacheError;
use crate::store::Store;
use crate::{file, lock, remove};

/// This process's directory below `tmp/`, locked.
#[derive(Debug)]
pub(crate) struct Owner {
    path: PathBuf,
    _file: File,
}

impl Owner {
    /// Makes and locks a directory in `tmp`.
    pub(crate) fn create(tmp: &Path) -> Result<Self, CacheError> {
        loop {
            let path = tmp.join(file::random_name(6)?);
            file::make_dir(&path, 0o700)?;
            // A sweep may have found it between the two calls, still unlocked, and removed it.
            let Some(file) = file::open_if_there(&path)? else { continue };
            if lock::try_lock(&file, &path)? && lock::is_at(&file, &path) {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// A name in it that is not taken.
    pub(crate) fn fresh(&self, prefix: &str) -> Result<PathBuf, CacheError> {
        Ok(self.path.join(format!("{prefix}-{}", file::random_name(6)?)))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Unlocked right after, so whatever cannot be removed here is left to the next sweep.
        let _ = remove::remove_tree(&self.path, None);
    }
}

/// A directory for work in progress on the store's file system, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Keeps the owner's lock.
    _store: Store,
}

impl Scratch {
    /// Makes an empty directory whose name starts with `prefix`.
    pub(crate) fn create(store: &Store, prefix: &str) -> Result<Self, CacheError> {
        let path = store.temporary(prefix)?;
        file::make_dir(&path, 0o755)?;
        Ok(Self { path, _store: store.clone() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = remove::remove_tree(&self.path, None);
    }
}
