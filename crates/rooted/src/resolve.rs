//! Walking a path name by name, for paths of which a part does not exist yet.
//!
//! `openat2` answers only for paths that exist. Where COPY makes directories behind a dangling
//! link, or wants the real place of a destination, each name is looked up in a held directory
//! and links are expanded here; `..` goes up in the list of real names, never in the kernel, so
//! nothing can lead above the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::RootedError;
use crate::metadata::{FileKind, Metadata};
use crate::root::{Follow, Root, check};

/// Links in one path; the kernel stops at 40 too (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Where a path leads inside a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The real path, absolute from the root, free of links as far as it exists.
    pub path: PathBuf,
    /// What is there, `None` when it does not exist.
    pub found: Option<Metadata>,
}

/// What [`Root::create_dir_all`] did.
#[derive(Debug)]
pub struct CreatedDirs {
    /// The last directory.
    pub dir: Root,
    /// Its real path, absolute from the root.
    pub path: PathBuf,
    /// The directories that were made, real paths, parents first.
    pub created: Vec<PathBuf>,
}

/// How directories are made by [`Root::create_dir_all`].
#[derive(Debug, Clone, Copy)]
pub struct NewDirs {
    /// Permission bits, given exactly: the process' umask does not matter.
    pub mode: u32,
    /// Owner and group; `None` leaves what the kernel gives.
    pub owner: Option<(u32, u32)>,
}

impl Root {
    /// Follows `path` inside the root as far as it exists; the names after that are kept.
    ///
    /// With [`Follow::No`] a link as the last name is not followed.
    pub fn resolve(&self, path: impl AsRef<Path>, follow: Follow) -> Result<Resolved, RootedError> {
        let path = path.as_ref();
        let mut walk = Walk::new(self, path)?;
        while let Some(name) = walk.next_name() {
            let last = walk.pending.is_empty();
            match walk.look_up(&name)? {
                None => {
                    walk.go_missing(name);
                }
                Some(metadata) if metadata.is_symlink() && (!last || follow == Follow::Yes) => {
                    walk.expand(&name)?;
                }
                Some(metadata) if metadata.is_dir() => walk.descend(name, metadata)?,
                Some(metadata) if last => {
                    walk.real.push(name);
                    walk.found = Some(metadata);
                }
                Some(_) => return Err(RootedError::io("resolve", path, Errno::NOTDIR)),
            }
        }
        Ok(Resolved { found: walk.found, path: walk.real_path() })
    }

    /// Makes `path` and every directory above it that is missing.
    ///
    /// Existing directories are kept as they are. Links are followed inside the root; where one
    /// points at nothing, its target is made. Anything that is neither is an error.
    pub fn create_dir_all(
        &self,
        path: impl AsRef<Path>,
        new: NewDirs,
    ) -> Result<CreatedDirs, RootedError> {
        let path = path.as_ref();
        let mut walk = Walk::new(self, path)?;
        let mut created = Vec::new();
        while let Some(name) = walk.next_name() {
            match walk.look_up(&name)? {
                None => {
                    let metadata = walk.make(&name, new)?;
                    walk.descend(name, metadata)?;
                    created.push(walk.real_path());
                }
                Some(metadata) if metadata.is_symlink() => walk.expand(&name)?,
                Some(metadata) if metadata.is_dir() => walk.descend(name, metadata)?,
                Some(metadata) => {
                    walk.real.push(name);
                    return Err(RootedError::WrongKind {
                        path: walk.real_path(),
                        found: metadata.kind,
                        expected: FileKind::Directory,
                    });
                }
            }
        }
        let path = walk.real_path();
        let dir = match walk.here {
            Some(dir) => dir,
            None => self.try_clone()?,
        };
        Ok(CreatedDirs { dir, path, created })
    }
}

/// A walk in progress. Only the current directory is held, so that a path of thousands of names
/// does not use up descriptors.
struct Walk<'r> {
    root: &'r Root,
    shown: &'r Path,
    /// Real names from the root down to the current directory, then those that do not exist.
    real: Vec<OsString>,
    /// How many of `real` exist.
    existing: usize,
    /// The current directory; `None` is the root.
    here: Option<Root>,
    found: Option<Metadata>,
    pending: VecDeque<OsString>,
    links: usize,
}

impl<'r> Walk<'r> {
    fn new(root: &'r Root, path: &'r Path) -> Result<Self, RootedError> {
        check(path)?;
        Ok(Self {
            root,
            shown: path,
            real: Vec::new(),
            existing: 0,
            here: None,
            found: Some(root.metadata()?),
            pending: names(path.as_os_str()).collect(),
            links: 0,
        })
    }

    fn dir(&self) -> &Root {
        self.here.as_ref().unwrap_or(self.root)
    }

    fn real_path(&self) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(&self.real);
        path
    }

    /// The next name that is not `..`, after going up for those that are.
    fn next_name(&mut self) -> Option<OsString> {
        while let Some(name) = self.pending.pop_front() {
            if name != ".." {
                return Some(name);
            }
            // A failure to reopen shows as a missing directory, which is what it then is.
            self.go_up();
        }
        None
    }

    fn go_up(&mut self) {
        self.real.pop();
        if self.real.len() >= self.existing {
            return;
        }
        self.existing = self.real.len();
        if self.real.is_empty() {
            self.here = None;
            self.found = self.root.metadata().ok();
            return;
        }
        let mut path = PathBuf::new();
        path.extend(&self.real);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = self.root.openat2_with(&path, self.shown, flags, ResolveFlags::NO_SYMLINKS);
        match fd.map(Root::from_fd) {
            Ok(dir) => {
                self.found = dir.metadata().ok();
                self.here = Some(dir);
            }
            Err(_) => {
                self.existing = 0;
                self.found = None;
            }
        }
    }

    /// What `name` is in the current directory; `None` also when that directory is missing.
    fn look_up(&self, name: &OsStr) -> Result<Option<Metadata>, RootedError> {
        if self.existing < self.real.len() {
            return Ok(None);
        }
        match rustix::fs::statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Metadata::from_stat(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(RootedError::io("stat", self.shown, errno)),
        }
    }

    fn go_missing(&mut self, name: OsString) {
        self.real.push(name);
        self.found = None;
    }

    fn descend(&mut self, name: OsString, metadata: Metadata) -> Result<(), RootedError> {
        let dir = self.dir().enter(Path::new(&name)).map_err(|error| self.name_path(error))?;
        self.here = Some(dir);
        self.real.push(name);
        self.existing = self.real.len();
        self.found = Some(metadata);
        Ok(())
    }

    /// Puts the names of a link's target in front of what is left of the path.
    fn expand(&mut self, name: &OsStr) -> Result<(), RootedError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(RootedError::TooManyLinks { path: self.shown.to_owned() });
        }
        let target =
            self.dir().read_link(Path::new(name)).map_err(|error| self.name_path(error))?;
        if target.as_bytes().starts_with(b"/") {
            self.real.clear();
            self.existing = 0;
            self.here = None;
            self.found = self.root.metadata().ok();
        }
        let rest = std::mem::take(&mut self.pending);
        self.pending = names(&target).chain(rest).collect();
        Ok(())
    }

    fn make(&self, name: &OsStr, new: NewDirs) -> Result<Metadata, RootedError> {
        if self.existing < self.real.len() {
            // Somebody removed what was just walked through.
            return Err(RootedError::io("make directory", self.shown, Errno::NOENT));
        }
        let dir = self.dir();
        match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => dir
                .enter(Path::new(name))
                .and_then(|made| made.dress(new).and_then(|()| made.metadata()))
                .map_err(|error| self.name_path(error)),
            Err(errno) => Err(RootedError::io("make directory", self.shown, errno)),
        }
    }

    /// Errors of a single name are told with the whole path.
    fn name_path(&self, error: RootedError) -> RootedError {
        match error {
            RootedError::Io { action, source, .. } => {
                RootedError::Io { action, path: self.shown.to_owned(), source }
            }
            other => other,
        }
    }
}

impl Root {
    /// Gives a directory that was just made its owner, then its mode.
    pub(crate) fn dress(&self, new: NewDirs) -> Result<(), RootedError> {
        let fd: OwnedFd = self.open_inside(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let error = |action, errno| RootedError::io(action, Path::new("/"), errno);
        if let Some((uid, gid)) = new.owner {
            rustix::fs::fchown(
                &fd,
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
            )
            .map_err(|errno| error("change owner of", errno))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(new.mode & 0o7777))
            .map_err(|errno| error("change mode of", errno))
    }
}

/// The names of a path without empty ones and `.`.
fn names(path: &OsStr) -> impl Iterator<Item = OsString> + '_ {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
}
