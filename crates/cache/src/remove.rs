//! Removes trees that programs in a sandbox have written, and says what that freed.
//!
//! Everything goes by directory descriptor and never follows a link, so that a tree cannot lead
//! the removal out of itself. Directories without permission (`000`, such as overlayfs's own
//! `work/work`) get it back first. Depth is bounded: what lies deeper than [`MAX_DEPTH`] is moved
//! up and removed in a later round, so that neither descriptors nor stack run out.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{At as _, CacheError};
use crate::file;
use crate::measure::{blocks, has_other_names};

/// Levels that are walked with one descriptor each.
const MAX_DEPTH: usize = 48;

/// How far a removal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Whether nothing is left; else the deadline passed first.
    pub(crate) done: bool,
    /// Bytes that the file system got back: files that have names elsewhere gave none.
    pub(crate) freed: u64,
}

/// Removes what is at `path`, a directory with everything in it; a missing one is fine.
pub(crate) fn remove_tree(path: &Path, deadline: Option<Instant>) -> Result<Removal, CacheError> {
    let nothing = Removal { done: true, freed: 0 };
    let parent_path = path.parent().unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else { return Ok(nothing) };
    let Some(parent) = file::open_if_there(parent_path)? else { return Ok(nothing) };
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL).at("remove", path)?;
    let mut sweep = Sweep { deadline, top: parent.as_fd(), deep: vec![name], freed: 0 };
    while let Some(name) = sweep.deep.pop() {
        if !sweep.remove(parent.as_fd(), &name, 0).at("remove", path)? {
            return Ok(Removal { done: false, freed: sweep.freed });
        }
    }
    Ok(Removal { done: true, freed: sweep.freed })
}

struct Sweep<'a> {
    deadline: Option<Instant>,
    /// The directory that holds the tree; too deep directories are moved into it.
    top: BorrowedFd<'a>,
    deep: Vec<CString>,
    freed: u64,
}

impl Sweep<'_> {
    /// Whether there was time for all of it.
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> rustix::io::Result<bool> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(true),
            Err(error) => return Err(error),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.unlink(parent, name, AtFlags::empty(), &stat);
        }
        if depth >= MAX_DEPTH {
            let moved = file::random_name(8).map_err(|_| Errno::IO)?;
            let moved = CString::new(format!("deep-{moved}")).map_err(|_| Errno::INVAL)?;
            rustix::fs::renameat(parent, name, self.top, &moved)?;
            self.deep.push(moved);
            return Ok(true);
        }
        let directory = open_for_removal(parent, name)?;
        // Names are collected first: removing while reading may skip entries on some systems.
        let names: Vec<CString> = entries(directory.as_fd())?;
        for child in &names {
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline)
                || !self.remove(directory.as_fd(), child, depth + 1)?
            {
                return Ok(false);
            }
        }
        self.unlink(parent, name, AtFlags::REMOVEDIR, &stat)
    }

    fn unlink(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        flags: AtFlags,
        stat: &Stat,
    ) -> rustix::io::Result<bool> {
        match rustix::fs::unlinkat(parent, name, flags) {
            Ok(()) if !has_other_names(stat) => self.freed += blocks(stat),
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Opens a directory that is about to go, giving its owner the permissions back when they lack.
fn open_for_removal(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(directory) = rustix::fs::openat(parent, name, flags, Mode::empty()) {
        let mode = rustix::fs::fstat(&directory)?.st_mode;
        if mode & 0o700 != 0o700 {
            rustix::fs::fchmod(&directory, Mode::RWXU)?;
        }
        return Ok(directory);
    }
    // A descriptor without read access can be had; its entry in /proc leads to this very
    // directory, so that the change of mode cannot be led elsewhere by a link.
    let handle = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, handle, Mode::empty())?;
    let entry = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
    rustix::fs::chmod(entry, Mode::RWXU)?;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The names in a directory.
pub(crate) fn entries(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
