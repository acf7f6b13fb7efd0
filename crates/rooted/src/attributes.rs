//! Owner, mode, times and extended attributes, never through a link.
//!
//! Owner and times have system calls that take a directory, a name and "do not follow". Modes
//! and extended attributes have none that older kernels know, so they go through
//! `/proc/self/fd/N`: the kernel jumps from there straight to the inode of a descriptor that was
//! opened without following. `/proc` is checked to be a procfs before it is first used.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::RootedError;
use crate::metadata::{FileKind, Metadata, Time};
use crate::root::{Parent, Root};

/// `PROC_SUPER_MAGIC` of statfs(2).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// The kernel's limits for one value and for a list of names (xattr(7)): both 64 KiB.
const XATTR_MAX: usize = 64 * 1024;

impl Root {
    /// Changes owner and group. Clears setuid and setgid, as chown(2) does.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (parent, name, flags) = self.parent_or_empty(path)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&parent, name, uid, gid, flags | AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| RootedError::io("change owner of", path, errno))
    }

    /// Changes the permission bits. Links have none of their own and are left alone.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), RootedError> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_or_self(path)? else {
            return change_mode(&self.open_dir(path)?, mode)
                .map_err(|errno| RootedError::io("change mode of", path, errno));
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let error = |errno| RootedError::io("change mode of", path, errno);
        let fd = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(error)?;
        let stat = rustix::fs::fstat(&fd).map_err(error)?;
        if Metadata::from_stat(&stat).kind == FileKind::Symlink {
            return Ok(());
        }
        change_mode(&fd, mode).map_err(error)
    }

    /// Sets access and modification time, of a link itself if it is one.
    pub fn set_times(
        &self,
        path: impl AsRef<Path>,
        accessed: Time,
        modified: Time,
    ) -> Result<(), RootedError> {
        let path = path.as_ref();
        let timespec =
            |time: Time| Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) as _ };
        let times =
            Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        let error = |errno| RootedError::io("set times of", path, errno);
        match self.parent_or_self(path)? {
            Some((parent, name)) => {
                rustix::fs::utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            None => {
                let dir = self.open_inside(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                rustix::fs::futimens(&dir, &times)
            }
        }
        .map_err(error)
    }

    /// One extended attribute, `None` when it is not set or not supported there.
    pub fn get_xattr(
        &self,
        path: impl AsRef<Path>,
        name: &str,
    ) -> Result<Option<Vec<u8>>, RootedError> {
        let path = path.as_ref();
        let (_held, by_fd) = self.proc_path(path)?;
        // Most files have none, and asking for the size first costs no copy.
        let size = match rustix::fs::lgetxattr_query(&by_fd, name) {
            // Overlay's whiteouts are such; no buffer may be empty.
            Ok(0) => return Ok(Some(Vec::new())),
            Ok(size) => size,
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(errno) => return Err(RootedError::io("read attribute of", path, errno)),
        };
        let mut value = Vec::with_capacity(size.min(XATTR_MAX));
        match rustix::fs::lgetxattr(&by_fd, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(RootedError::io("read attribute of", path, errno)),
        }
    }

    /// The names of all extended attributes, sorted; empty when there are none.
    pub fn list_xattrs(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>, RootedError> {
        let path = path.as_ref();
        let (_held, by_fd) = self.proc_path(path)?;
        let error = |errno| RootedError::io("list attributes of", path, errno);
        match rustix::fs::llistxattr_query(&by_fd) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(errno) => return Err(error(errno)),
        }
        let mut list = Vec::with_capacity(XATTR_MAX);
        rustix::fs::llistxattr(&by_fd, rustix::buffer::spare_capacity(&mut list)).map_err(error)?;
        let mut names: Vec<OsString> = list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| OsStr::from_bytes(name).to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Sets one extended attribute, of a link itself if it is one.
    pub fn set_xattr(
        &self,
        path: impl AsRef<Path>,
        name: &str,
        value: &[u8],
    ) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (_held, by_fd) = self.proc_path(path)?;
        rustix::fs::lsetxattr(&by_fd, name, value, XattrFlags::empty())
            .map_err(|errno| RootedError::io("set attribute of", path, errno))
    }

    /// Removes one extended attribute; one that is not set is no error.
    pub fn remove_xattr(&self, path: impl AsRef<Path>, name: &str) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (_held, by_fd) = self.proc_path(path)?;
        match rustix::fs::lremovexattr(&by_fd, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            Err(errno) => Err(RootedError::io("remove attribute of", path, errno)),
        }
    }

    /// Parent and name, or the directory itself with `AT_EMPTY_PATH`.
    fn parent_or_empty<'p>(
        &self,
        path: &'p Path,
    ) -> Result<(Parent<'_>, &'p OsStr, AtFlags), RootedError> {
        match self.parent_or_self(path)? {
            Some((parent, name)) => Ok((parent, name, AtFlags::empty())),
            None => {
                let dir = self.open_inside(path, OFlags::PATH | OFlags::DIRECTORY)?;
                Ok((Parent::Opened(dir), OsStr::new(""), AtFlags::EMPTY_PATH))
            }
        }
    }

    /// `/proc/self/fd/PARENT/NAME`, with what must stay open while it is used. Only calls that
    /// do not follow a last link may take it.
    fn proc_path(&self, path: &Path) -> Result<(Parent<'_>, PathBuf), RootedError> {
        proc_is_procfs()?;
        Ok(match self.parent_or_self(path)? {
            Some((parent, name)) => {
                let mut by_fd = fd_path(&parent);
                by_fd.push(name);
                (parent, by_fd)
            }
            None => {
                let dir = self.open_inside(path, OFlags::PATH | OFlags::DIRECTORY)?;
                let mut by_fd = fd_path(&dir);
                by_fd.push(".");
                (Parent::Opened(dir), by_fd)
            }
        })
    }
}

/// Changes the mode of what an `O_PATH` descriptor holds; it must not be a link.
pub(crate) fn change_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    let fd = fd.as_fd();
    let mode = Mode::from_raw_mode(mode & 0o7777);
    if proc_is_procfs().is_ok() {
        return rustix::fs::chmod(fd_path(fd), mode);
    }
    // Without /proc a directory can still be reopened by its own `.`.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(fd, ".", flags, Mode::empty()).map_err(|_| Errno::OPNOTSUPP)?;
    rustix::fs::fchmod(&dir, mode)
}

fn fd_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Looked at once: after a pivot into an image `/proc` is either a new procfs or missing, and
/// what an image could put there is inside the image.
fn proc_is_procfs() -> Result<(), RootedError> {
    static CHECKED: OnceLock<()> = OnceLock::new();
    if CHECKED.get().is_some() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let is_procfs = rustix::fs::open("/proc", flags, Mode::empty())
        .and_then(|fd| rustix::fs::fstatfs(&fd))
        .is_ok_and(|found| found.f_type as u64 == PROC_SUPER_MAGIC);
    if !is_procfs {
        return Err(RootedError::NoProc);
    }
    let _ = CHECKED.set(());
    Ok(())
}
