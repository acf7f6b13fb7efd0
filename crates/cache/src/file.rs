//! The few file operations that a store needs, with errors that name the path.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::error::{At as _, CacheError};

/// Opens an existing file or directory for reading; never follows a link in the last component.
pub(crate) fn open(path: &Path) -> Result<File, CacheError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(path)
        .at("open", path)
}

/// [`open`], with a missing file as `None`.
pub(crate) fn open_if_there(path: &Path) -> Result<Option<File>, CacheError> {
    match open(path) {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// Creates a file that must not exist yet.
pub(crate) fn create_new(path: &Path) -> Result<File, CacheError> {
    OpenOptions::new().write(true).read(true).create_new(true).open(path).at("create", path)
}

/// Reads a whole file of at most `cap` bytes; a longer one is cut off after `cap + 1` bytes.
pub(crate) fn read_capped(file: File, path: &Path, cap: usize) -> Result<Vec<u8>, CacheError> {
    let mut bytes = Vec::new();
    file.take(cap as u64 + 1).read_to_end(&mut bytes).at("read", path)?;
    Ok(bytes)
}

/// Makes a directory; one that is there already is fine.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), CacheError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).at("create directory", path),
    }
}

/// Moves `from` to `to`, replacing a file there.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), CacheError> {
    rustix::fs::rename(from, to).at("rename", from)
}

/// Removes a file; a missing one is fine. Says whether it was there.
pub(crate) fn unlink(path: &Path) -> Result<bool, CacheError> {
    match rustix::fs::unlink(path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("remove", path),
    }
}

/// Makes the names in a directory survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> Result<(), CacheError> {
    open(path)?.sync_all().at("sync", path)
}

/// Writes `bytes` to `temporary`, syncs them, and moves the file to `path` in one step.
pub(crate) fn replace(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let mut file = create_new(temporary)?;
    file.write_all(bytes).at("write", temporary)?;
    file.sync_data().at("sync", temporary)?;
    rename(temporary, path)?;
    sync_dir(path.parent().unwrap_or(path))
}

/// The names in a directory that are UTF-8; the store makes no others.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, CacheError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).at("list", path)? {
        if let Ok(name) = entry.at("list", path)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether anything is at `path`; a link counts without being followed.
pub(crate) fn exists(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok()
}

/// A fresh random name: `bytes` bytes as hex digits.
pub(crate) fn random_name(bytes: usize) -> Result<String, CacheError> {
    let mut buffer = [0; 16];
    let part = &mut buffer[..bytes.min(16)];
    getrandom::fill(part)
        .map_err(|error| std::io::Error::other(error.to_string()))
        .at("read", Path::new("the system's random numbers"))?;
    Ok(hex::encode(part))
}

/// Milliseconds since 1970 on the system's clock.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// When a file's content was changed, in milliseconds since 1970.
pub(crate) fn changed_ms(stat: &rustix::fs::Stat) -> i64 {
    let fraction = i64::try_from(stat.st_mtime_nsec / 1_000_000).unwrap_or(0);
    stat.st_mtime.saturating_mul(1000).saturating_add(fraction)
}
