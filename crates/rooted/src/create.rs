//! Making files, directories, links and devices.

use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::RootedError;
use crate::metadata::{FileKind, Metadata};
use crate::remove::{mounted, take_away};
use crate::resolve::NewDirs;
use crate::root::{Follow, Root};

impl Root {
    /// Makes one directory; an error when the name is taken.
    pub fn create_dir(&self, path: impl AsRef<Path>, new: NewDirs) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        // Private until it is dressed, so that nobody can put something in it in between.
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))
            .map_err(|errno| RootedError::io("make directory", path, errno))?;
        self.enter(path)?.dress(new)
    }

    /// Makes a directory that only its owner can use yet, or leaves what has the name: whether it
    /// was made. The cheapest way to make many; set mode and owner when they are filled.
    pub fn create_private_dir(&self, path: impl AsRef<Path>) -> Result<bool, RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(RootedError::io("make directory", path, errno)),
        }
    }

    /// Makes an empty regular file, open for writing and reading, in place of whatever
    /// non-directory had the name. One that is mounted there cannot be replaced, and is emptied.
    /// The mode is given exactly.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let error = |errno| RootedError::io("make file", path, errno);
        let fd = match rustix::fs::openat(&parent, name, flags, mode) {
            Err(Errno::EXIST) if mounted(&parent, name) == Some(FileType::RegularFile) => {
                let flags = OFlags::RDWR | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // It may be something else by now, which must not hold us up.
                let flags = flags | OFlags::NONBLOCK;
                rustix::fs::openat(&parent, name, flags, mode).map_err(error)?
            }
            Err(Errno::EXIST) => {
                take_away(&parent, name, AtFlags::empty(), path)?;
                rustix::fs::openat(&parent, name, flags, mode).map_err(error)?
            }
            other => other.map_err(error)?,
        };
        rustix::fs::fchmod(&fd, mode).map_err(error)?;
        Ok(File::from(fd))
    }

    /// Makes a symbolic link; `target` is stored as it is and never followed here. Replaces
    /// whatever non-directory had the name.
    pub fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), RootedError> {
        let (target, path) = (target.as_ref(), path.as_ref());
        crate::root::check(target)?;
        let (parent, name) = self.parent(path)?;
        replacing(
            path,
            "make link",
            || rustix::fs::symlinkat(target, &parent, name),
            || take_away(&parent, name, AtFlags::empty(), path),
        )
    }

    /// Gives the regular file `from` a second name `to`, in place of whatever non-directory had
    /// it. Links are not followed as last names.
    pub fn hard_link(
        &self,
        from: impl AsRef<Path>,
        to: impl AsRef<Path>,
    ) -> Result<(), RootedError> {
        self.hard_link_between(from, self, to)
    }

    /// As [`Root::hard_link`], with the new name below another root on the same file system.
    pub fn hard_link_between(
        &self,
        from: impl AsRef<Path>,
        to_root: &Root,
        to: impl AsRef<Path>,
    ) -> Result<(), RootedError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let metadata = self
            .stat(from, Follow::No)?
            .ok_or_else(|| RootedError::io("link", from, Errno::NOENT))?;
        if !metadata.is_file() {
            return Err(RootedError::WrongKind {
                path: from.to_owned(),
                found: metadata.kind,
                expected: FileKind::Regular,
            });
        }
        let (from_parent, from_name) = self.parent(from)?;
        let (parent, name) = to_root.parent(to)?;
        let link = || rustix::fs::linkat(&from_parent, from_name, &parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
                let there = there.map(|stat| Metadata::from_stat(&stat));
                if there.is_ok_and(|it| (it.dev, it.ino) == (metadata.dev, metadata.ino)) {
                    // Already two names of one file; removing one first could lose the file.
                    return Ok(());
                }
                take_away(&parent, name, AtFlags::empty(), to)?;
                link()
            }
            other => other,
        }
        .map_err(|errno| RootedError::io("link", to, errno))
    }

    /// Makes a named pipe, socket or device node in place of whatever non-directory had the
    /// name. `rdev` is in the kernel's encoding and only read for devices.
    pub fn mknod(
        &self,
        path: impl AsRef<Path>,
        kind: FileKind,
        mode: u32,
        rdev: u64,
    ) -> Result<(), RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        let rdev =
            if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) { rdev } else { 0 };
        let bits = Mode::from_raw_mode(mode & 0o7777);
        replacing(
            path,
            "make node",
            || rustix::fs::mknodat(&parent, name, kind.file_type(), bits, rdev),
            || take_away(&parent, name, AtFlags::empty(), path),
        )?;
        self.set_mode(path, mode)
    }

    /// Moves `from` to `to`, replacing what is there as rename(2) does.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), RootedError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)
            .map_err(|errno| RootedError::io("rename", from, errno))
    }
}

/// Runs `make`; when the name is taken, runs `unlink` (which refuses directories) and `make` again.
fn replacing(
    path: &Path,
    action: &'static str,
    make: impl Fn() -> Result<(), Errno>,
    unlink: impl Fn() -> Result<(), RootedError>,
) -> Result<(), RootedError> {
    match make() {
        Err(Errno::EXIST) => {
            unlink()?;
            make()
        }
        other => other,
    }
    .map_err(|errno| RootedError::io(action, path, errno))
}
