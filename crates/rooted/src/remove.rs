//! Removing files and whole trees.

use std::ffi::OsString;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
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
    /// Directories without permissions are opened up first. Mount points are not crossed into:
    /// the kernel refuses to remove them.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(RootedError::io("remove", path, errno)),
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
        rustix::fs::unlinkat(&parent, name, flags)
            .map_err(|errno| RootedError::io("remove", path, errno))
    }
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
            match rustix::fs::unlinkat(&here, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(error(errno)),
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
    let error = |errno| RootedError::io("remove", shown, errno);
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
        match rustix::fs::unlinkat(dir, &entry.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => subdirectories.push(entry.name),
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(Level { identity: (metadata.dev, metadata.ino), subdirectories })
}

/// A failure shows in the next call, with a better message.
fn open_up(dir: &Root, metadata: &Metadata) {
    let _ = crate::attributes::change_mode(dir, metadata.mode | 0o700);
}
