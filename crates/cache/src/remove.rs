//! Removes and measures trees that programs in a sandbox have written.
//!
//! Everything goes by directory descriptor and never follows a link, so that a tree cannot lead
//! the removal out of itself. Directories without permission (`000`, such as overlayfs's own
//! `work/work`) get it back first. Depth is bounded: what lies deeper than [`MAX_DEPTH`] is moved
//! up and removed in a later round, so that neither descriptors nor stack run out.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{At as _, CacheError};
use crate::file;

/// Levels that are walked with one descriptor each.
const MAX_DEPTH: usize = 48;

/// Whether a removal came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Done,
    /// The deadline passed first; the rest is still there.
    OutOfTime,
}

/// Removes what is at `path`, a directory with everything in it; a missing one is fine.
pub(crate) fn remove_tree(path: &Path, deadline: Option<Instant>) -> Result<Removal, CacheError> {
    let parent_path = path.parent().unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else { return Ok(Removal::Done) };
    let Some(parent) = file::open_if_there(parent_path)? else { return Ok(Removal::Done) };
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL).at("remove", path)?;
    let mut sweep = Sweep { deadline, top: parent.as_fd(), deep: vec![name] };
    while let Some(name) = sweep.deep.pop() {
        match sweep.remove(parent.as_fd(), &name, 0) {
            Ok(Removal::Done) => {}
            Ok(Removal::OutOfTime) => return Ok(Removal::OutOfTime),
            Err(error) => return Err(error).at("remove", path),
        }
    }
    Ok(Removal::Done)
}

struct Sweep<'a> {
    deadline: Option<Instant>,
    /// The directory that holds the tree; too deep directories are moved into it.
    top: BorrowedFd<'a>,
    deep: Vec<CString>,
}

impl Sweep<'_> {
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        depth: usize,
    ) -> rustix::io::Result<Removal> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(Removal::Done),
            // Linux says EISDIR, POSIX would say EPERM; EACCES: the parent was given back before.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        if depth >= MAX_DEPTH {
            let moved = file::random_name(8).map_err(|_| Errno::IO)?;
            let moved = CString::new(format!("deep-{moved}")).map_err(|_| Errno::INVAL)?;
            rustix::fs::renameat(parent, name, self.top, &moved)?;
            self.deep.push(moved);
            return Ok(Removal::Done);
        }
        let directory = open_for_removal(parent, name)?;
        // Names are collected first: removing while reading may skip entries on some systems.
        let names: Vec<CString> = entries(directory.as_fd())?;
        for child in &names {
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Ok(Removal::OutOfTime);
            }
            if self.remove(directory.as_fd(), child, depth + 1)? == Removal::OutOfTime {
                return Ok(Removal::OutOfTime);
            }
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(Removal::Done),
            Err(error) => Err(error),
        }
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

fn entries(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Adds up what trees occupy on disk, counting a file with several names once.
#[derive(Debug, Default)]
pub struct DiskUsage {
    linked: HashSet<(u64, u64)>,
    bytes: u64,
    files: u64,
}

impl DiskUsage {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far: blocks times 512, not file lengths.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files, directories and everything else so far.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Adds the tree at `path`, returning the bytes that it adds. A missing one adds nothing, and
    /// neither does what may not be read or goes away meanwhile: a build may be running.
    pub fn add(&mut self, path: &Path) -> Result<u64, CacheError> {
        let before = self.bytes;
        let Ok(stat) = rustix::fs::lstat(path) else { return Ok(0) };
        self.count(&stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(self.bytes - before);
        }
        // Paths relative to held descriptors would need one each; here a path per directory is
        // kept, and whatever moved or became a link is skipped by NOFOLLOW on the last component.
        let mut pending = vec![path.to_owned()];
        while let Some(path) = pending.pop() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(directory) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
            let Ok(names) = entries(directory.as_fd()) else { continue };
            for name in names {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let Ok(stat) = rustix::fs::statat(&directory, &name, flags) else { continue };
                self.count(&stat);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    pending.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                }
            }
        }
        Ok(self.bytes - before)
    }

    fn count(&mut self, stat: &Stat) {
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.files += 1;
        self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }
}
