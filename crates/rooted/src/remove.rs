//! Removing files and whole trees.
//!
//! The kernel refuses to remove a mount point only in its own mount namespace. One of another, as in
//! a container that runs, it unmounts there and removes. So each name is looked at before.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::error::RootedError;
use crate::metadata::{FileKind, Metadata};
use crate::root::{Root, list};

impl Root {
    /// Removes one name that is not a directory. A link is removed, not its target.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), RootedError> {
        self.unlink(path.as_ref(), AtFlags::empty())
    }

    /// Removes one empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<(), RootedError> {
        self.unlink(path.as_ref(), AtFlags::REMOVEDIR)
    }

    /// Removes whatever `path` names, with everything below it; nothing there is no error.
    ///
    /// Directories without permissions are opened up first. Mount points are an error, and nothing
    /// that is mounted is touched.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        match take_away(&parent, name, AtFlags::empty(), path) {
            Ok(()) => return Ok(()),
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
            Err(error) if error.errno() == Some(Errno::ISDIR) => {}
            Err(error) => return Err(error),
        }
        let dir = match self.enter(path) {
            Ok(dir) => dir,
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        empty(dir, path)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(RootedError::io("remove", path, errno)),
        }
    }

    /// Removes everything below the root, but not the root itself.
    pub fn remove_contents(&self) -> Result<(), RootedError> {
        empty(self.try_clone()?, Path::new("/"))
    }

    fn unlink(&self, path: &Path, flags: AtFlags) -> Result<(), RootedError> {
        let (parent, name) = self.parent(path)?;
        take_away(&parent, name, flags, path)
    }
}

/// What is mounted on a name, if anything is.
pub(crate) fn mounted(parent: impl AsFd, name: &OsStr) -> Option<FileType> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    // Where it cannot be told (before Linux 5.8), the kernel's own refusal is all there is.
    let found = rustix::fs::statx(parent, name, flags, StatxFlags::TYPE).ok()?;
    let is_mount = found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    is_mount.then(|| FileType::from_raw_mode(found.stx_mode.into()))
}

/// Removes one name, unless something is mounted on it.
pub(crate) fn take_away(
    parent: impl AsFd,
    name: &OsStr,
    flags: AtFlags,
    shown: &Path,
) -> Result<(), RootedError> {
    if mounted(&parent, name).is_some() {
        return Err(RootedError::Mounted { path: shown.to_owned() });
    }
    rustix::fs::unlinkat(parent, name, flags)
        .map_err(|errno| RootedError::io("remove", shown, errno))
}

/// A directory on the way down: the subdirectories it still has, and which inode it is.
struct Level {
    identity: (u64, u64),
    subdirectories: Vec<OsString>,
}

/// Removes all that is in `dir`.
///
/// One directory is held at a time, whatever the depth: going up is `..`, checked against the
/// inode that was left, so a directory moved elsewhere meanwhile stops the removal.
fn empty(dir: Root, shown: &Path) -> Result<(), RootedError> {
    let error = |errno| RootedError::io("remove", shown, errno);
    let mut here = dir;
    let mut levels = vec![clear(&here, shown)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.subdirectories.pop() {
            match take_away(&here, &name, AtFlags::REMOVEDIR, shown) {
                Ok(()) => continue,
                Err(failure) => match failure.errno() {
                    Some(Errno::NOENT) => continue,
                    Some(Errno::NOTEMPTY | Errno::EXIST) => {}
                    _ => return Err(failure),
                },
            }
            let below = here.enter(Path::new(&name))?;
            level.subdirectories.push(name);
            levels.push(clear(&below, shown)?);
            here = below;
            continue;
        }
        levels.pop();
        let Some(above) = levels.last_mut() else { break };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let up = rustix::fs::openat(&here, "..", flags, Mode::empty()).map_err(error)?;
        here = Root::from_fd(up);
        let metadata = here.metadata()?;
        if (metadata.dev, metadata.ino) != above.identity {
            return Err(RootedError::Moved { path: shown.to_owned() });
        }
        if let Some(name) = above.subdirectories.pop() {
            rustix::fs::unlinkat(&here, &name, AtFlags::REMOVEDIR).map_err(error)?;
        }
    }
    Ok(())
}

/// Removes the files of one directory and lists its subdirectories.
fn clear(dir: &Root, shown: &Path) -> Result<Level, RootedError> {
    let metadata = dir.metadata()?;
    if metadata.mode & 0o700 != 0o700 {
        open_up(dir, &metadata);
    }
    let fd = dir.open_inside(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut subdirectories = Vec::new();
    for entry in list(fd, shown)? {
        if entry.kind == FileKind::Directory {
            subdirectories.push(entry.name);
            continue;
        }
        match take_away(dir, &entry.name, AtFlags::empty(), shown) {
            Ok(()) => {}
            Err(failure) => match failure.errno() {
                Some(Errno::NOENT) => {}
                Some(Errno::ISDIR) => subdirectories.push(entry.name),
                _ => return Err(failure),
            },
        }
    }
    Ok(Level { identity: (metadata.dev, metadata.ino), subdirectories })
}

/// A failure shows in the next call, with a better message.
fn open_up(dir: &Root, metadata: &Metadata) {
    let _ = crate::attributes::change_mode(dir, metadata.mode | 0o700);
}
