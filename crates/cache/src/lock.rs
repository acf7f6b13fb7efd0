//! Kernel locks (`flock`). They die with the process that holds them, so there is no pid file to
//! be wrong. A lock belongs to the *open file*: two threads of one process exclude each other too,
//! and a child that was forked without `exec` holds the locks of its parent until it ends.
//!
//! Lock files that come and go (`step-…`, `lease-…`) are removed by the holder while it still
//! holds the lock. Whoever locked a file therefore checks that the name still leads to the file
//! that it locked, and starts again when it does not.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild_types::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{At as _, CacheError};
use crate::file;

/// Longest pause between two tries to get a lock that somebody else holds.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Held while a process computes one step; others that need the same step wait.
///
/// The lock file is removed and the lock freed on drop.
#[derive(Debug)]
pub struct StepLock {
    path: PathBuf,
    _file: File,
}

impl StepLock {
    /// Waits for the lock file `path`. Returns early with an error once `cancel` is cancelled.
    pub(crate) fn wait(path: PathBuf, cancel: &CancelToken) -> Result<Self, CacheError> {
        let file = wait(cancel, || Self::try_once(&path))?;
        Ok(Self { path, _file: file })
    }

    /// One try; `None` when somebody else holds the lock.
    pub(crate) fn attempt(path: PathBuf) -> Result<Option<Self>, CacheError> {
        loop {
            match Self::try_once(&path)? {
                Try::Held(file) => return Ok(Some(Self { path, _file: file })),
                Try::Replaced => continue,
                Try::Busy => return Ok(None),
            }
        }
    }

    fn try_once(path: &Path) -> Result<Try, CacheError> {
        let file = open_or_create(path)?;
        Ok(match try_lock(&file, path)? {
            false => Try::Busy,
            true if is_at(&file, path) => Try::Held(file),
            true => Try::Replaced,
        })
    }
}

/// What came of one try to get a lock.
pub(crate) enum Try {
    Held(File),
    Busy,
    /// The former holder removed the file between our open and our lock.
    Replaced,
}

/// Tries until the lock is held, or `cancel` is cancelled.
pub(crate) fn wait(
    cancel: &CancelToken,
    mut attempt: impl FnMut() -> Result<Try, CacheError>,
) -> Result<File, CacheError> {
    let mut pause = Duration::from_millis(1);
    loop {
        cancel.check()?;
        match attempt()? {
            Try::Held(file) => return Ok(file),
            Try::Replaced => continue,
            Try::Busy => {
                sleep(pause, cancel);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // The lock is still held here, so nobody else can hold this very file. A failure leaves an
        // unlocked file, which the next holder or the next sweep takes away.
        let _ = file::unlink(&self.path);
    }
}

/// Opens a lock file, making it when it is not there.
pub(crate) fn open_or_create(path: &Path) -> Result<File, CacheError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .at("open", path)
}

/// Tries to lock `file` for this holder alone.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool, CacheError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).at("lock", path),
    }
}

/// Tries to lock `file` beside others that do the same.
pub(crate) fn try_lock_shared(file: &File, path: &Path) -> Result<bool, CacheError> {
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).at("lock", path),
    }
}

/// Whether the name `path` still leads to the open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::lstat(path)) {
        (Ok(ours), Ok(theirs)) => (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

/// Sleeps, but not longer than until the cancellation.
fn sleep(pause: Duration, cancel: &CancelToken) {
    let Some(fd) = cancel.fd() else { return std::thread::sleep(pause) };
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
    // Woken, timed out or interrupted: the caller tries again in any case.
    let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout));
}

/// The store-wide lock between those who use objects (shared, for microseconds) and those who
/// remove them (alone, for milliseconds). Never held while trees are deleted.
#[derive(Debug)]
pub(crate) struct GcLock {
    _file: File,
}

impl GcLock {
    /// For saying "I use this" and for publishing.
    pub(crate) fn shared(path: &Path) -> Result<Self, CacheError> {
        let file = open_or_create(path)?;
        file.lock_shared().at("lock", path)?;
        Ok(Self { _file: file })
    }

    /// For deciding what nobody uses.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, CacheError> {
        let file = open_or_create(path)?;
        file.lock().at("lock", path)?;
        Ok(Self { _file: file })
    }
}
