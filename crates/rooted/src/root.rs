//! The held directory and how paths below it are opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::RootedError;
use crate::metadata::{DirEntry, FileKind, Metadata};

/// What to do when the last name of a path is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Follow it, inside the root.
    Yes,
    /// Take the link itself.
    No,
}

/// `openat2` answers EAGAIN when a rename or a mount anywhere on the machine raced a `..`; the walk is
/// then repeated.
const RACE_RETRIES: usize = 256;

/// `openat2` for who holds a descriptor and no [`Root`]: as the kernel has it, but that a walk which
/// something raced is made again.
///
/// # Errors
///
/// The kernel's.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut retries = RACE_RETRIES;
    loop {
        match rustix::fs::openat2(dir, path.as_ref(), flags, mode, resolve) {
            Err(Errno::AGAIN) if retries > 0 => retries -= 1,
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// A held directory below which untrusted paths are opened. See the crate's documentation for
/// what each method does with `..` and links.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// The directory that holds a path's last name: the root itself when the path has one name.
pub(crate) enum Parent<'a> {
    Held(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> Self {
        root.fd
    }
}

impl Root {
    /// Opens a directory by a trusted path: one that the user or rbuild itself chose.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RootedError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| RootedError::io("open", path, errno))?;
        Ok(Self { fd })
    }

    /// Takes a descriptor of a directory, `O_PATH` or readable.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same directory.
    pub fn try_clone(&self) -> Result<Self, RootedError> {
        let fd = self.fd.try_clone().map_err(|source| RootedError::Io {
            action: "duplicate",
            path: PathBuf::from("/"),
            source,
        })?;
        Ok(Self { fd })
    }

    /// Opens a directory as a new root, following links inside this one.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self, RootedError> {
        let path = path.as_ref();
        let fd = self.open_inside(path, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Self { fd })
    }

    /// Opens a directory as a new root; its last name must not be a link.
    pub fn enter(&self, path: impl AsRef<Path>) -> Result<Self, RootedError> {
        let path = path.as_ref();
        let Some((parent, name)) = self.parent_or_self(path)? else {
            return self.open_dir(path);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::empty())
            .map_err(|errno| RootedError::io("open", path, errno))?;
        Ok(Self { fd })
    }

    /// Opens a directory by a path in which no name at all may be a link: one that
    /// [`Root::resolve`] or a walk of real directories gave.
    pub fn open_real_dir(&self, path: impl AsRef<Path>) -> Result<Self, RootedError> {
        let path = path.as_ref();
        check(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = self.openat2_with(path, path, flags, ResolveFlags::NO_SYMLINKS)?;
        Ok(Self { fd })
    }

    /// Opens the directory that holds the last name of `path`, and gives that name.
    ///
    /// The name is safe for `*at` calls on the returned descriptor as long as they do not follow
    /// links.
    pub fn open_parent(&self, path: impl AsRef<Path>) -> Result<(Self, OsString), RootedError> {
        let (parent, name) = self.parent(path.as_ref())?;
        let root = match parent {
            Parent::Held(_) => self.try_clone()?,
            Parent::Opened(fd) => Self { fd },
        };
        Ok((root, name.to_owned()))
    }

    /// Opens a regular file for reading.
    ///
    /// Anything else is refused before it is opened: opening a named pipe can wait for ever, and
    /// opening a device can do things.
    pub fn open_file(&self, path: impl AsRef<Path>, follow: Follow) -> Result<File, RootedError> {
        let path = path.as_ref();
        let regular = |found: Option<Metadata>| match found {
            Some(metadata) if metadata.is_file() => Ok(()),
            Some(metadata) => Err(RootedError::WrongKind {
                path: path.to_owned(),
                found: metadata.kind,
                expected: FileKind::Regular,
            }),
            None => Err(RootedError::io("open", path, Errno::NOENT)),
        };
        regular(self.stat(path, follow)?)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match follow {
            Follow::Yes => self.open_inside(path, flags)?,
            Follow::No => {
                let (parent, name) = self.parent(path)?;
                rustix::fs::openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(|errno| RootedError::io("open", path, errno))?
            }
        };
        // Once more on the descriptor: the name may have been swapped since.
        let stat = rustix::fs::fstat(&fd).map_err(|errno| RootedError::io("stat", path, errno))?;
        regular(Some(Metadata::from_stat(&stat)))?;
        Ok(File::from(fd))
    }

    /// Opens for reading what was just seen to be a regular file, with its attributes; its last
    /// name is not followed. One system call less than [`Root::open_file`].
    pub fn open_seen_file(&self, path: impl AsRef<Path>) -> Result<(File, Metadata), RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::empty())
            .map_err(|errno| RootedError::io("open", path, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| RootedError::io("stat", path, errno))?;
        let metadata = Metadata::from_stat(&stat);
        if !metadata.is_file() {
            return Err(RootedError::WrongKind {
                path: path.to_owned(),
                found: metadata.kind,
                expected: FileKind::Regular,
            });
        }
        Ok((File::from(fd), metadata))
    }

    /// Reads a whole regular file of at most `cap` bytes, following links inside the root.
    pub fn read_small(&self, path: impl AsRef<Path>, cap: u64) -> Result<Vec<u8>, RootedError> {
        let path = path.as_ref();
        let file = self.open_file(path, Follow::Yes)?;
        let mut bytes = Vec::new();
        file.take(cap.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| RootedError::Io { action: "read", path: path.to_owned(), source })?;
        if bytes.len() as u64 > cap {
            return Err(RootedError::TooLarge { path: path.to_owned(), cap });
        }
        Ok(bytes)
    }

    /// The attributes of what `path` names, `None` when nothing is there.
    ///
    /// A regular file among the directories of the path counts as nothing there.
    pub fn stat(
        &self,
        path: impl AsRef<Path>,
        follow: Follow,
    ) -> Result<Option<Metadata>, RootedError> {
        let path = path.as_ref();
        let stat = match follow {
            Follow::No => match self.parent_or_self(path) {
                Ok(Some((parent, name))) => {
                    rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|errno| RootedError::io("stat", path, errno))
                }
                Ok(None) => self.stat_inside(path),
                Err(error) => Err(error),
            },
            Follow::Yes => self.stat_inside(path),
        };
        match stat {
            Ok(stat) => Ok(Some(Metadata::from_stat(&stat))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The attributes of the held directory itself.
    pub fn metadata(&self) -> Result<Metadata, RootedError> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|errno| RootedError::io("stat", Path::new("/"), errno))?;
        Ok(Metadata::from_stat(&stat))
    }

    /// The target of a symbolic link, as it is written.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString, RootedError> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new())
            .map_err(|errno| RootedError::io("read link", path, errno))?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// The names in a directory with their kinds, without `.` and `..`, in byte order. Links in
    /// `path` are followed inside the root; an empty path is the root itself.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, RootedError> {
        let path = path.as_ref();
        let fd = self.open_inside(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = list(fd, path)?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Splits `path`, opening the directory part. `None` when the path has no last name.
    pub(crate) fn parent_or_self<'p>(
        &self,
        path: &'p Path,
    ) -> Result<Option<(Parent<'_>, &'p OsStr)>, RootedError> {
        let (directory, name) = split(path)?;
        let Some(name) = name else { return Ok(None) };
        if is_root(directory) {
            return Ok(Some((Parent::Held(self.fd.as_fd()), name)));
        }
        let directory = Path::new(OsStr::from_bytes(directory));
        let fd = self.openat2(directory, path, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Some((Parent::Opened(fd), name)))
    }

    /// As [`Root::parent_or_self`], for callers that need a last name.
    pub(crate) fn parent<'p>(
        &self,
        path: &'p Path,
    ) -> Result<(Parent<'_>, &'p OsStr), RootedError> {
        self.parent_or_self(path)?.ok_or_else(|| RootedError::NoName { path: path.to_owned() })
    }

    /// Opens a path inside the root, links followed.
    pub(crate) fn open_inside(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, RootedError> {
        check(path)?;
        self.openat2(path, path, flags)
    }

    fn stat_inside(&self, path: &Path) -> Result<rustix::fs::Stat, RootedError> {
        let fd = self.open_inside(path, OFlags::PATH)?;
        rustix::fs::fstat(&fd).map_err(|errno| RootedError::io("stat", path, errno))
    }

    fn openat2(&self, path: &Path, shown: &Path, flags: OFlags) -> Result<OwnedFd, RootedError> {
        self.openat2_with(path, shown, flags, ResolveFlags::empty())
    }

    /// The one place where a path of more than one name reaches the kernel.
    pub(crate) fn openat2_with(
        &self,
        path: &Path,
        shown: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, RootedError> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC;
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(self.fd.as_fd(), path, flags, Mode::empty(), resolve).map_err(|errno| match errno {
            Errno::NOSYS => RootedError::NoOpenat2,
            errno => RootedError::io("open", shown, errno),
        })
    }
}

/// The entries behind a readable directory descriptor, unsorted.
pub(crate) fn list(fd: OwnedFd, shown: &Path) -> Result<Vec<DirEntry>, RootedError> {
    let error = |errno| RootedError::io("read directory", shown, errno);
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut reader = rustix::fs::RawDir::new(&fd, buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry.map_err(error)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let kind = match FileKind::from_type(entry.file_type()) {
            Some(kind) => kind,
            // Some file systems do not tell the kind in the listing.
            None => match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Metadata::from_stat(&stat).kind,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(error(errno)),
            },
        };
        entries.push(DirEntry { name: name.to_owned(), kind });
    }
    Ok(entries)
}

/// Refuses NUL, which would cut the path short in the kernel's eyes.
pub(crate) fn check(path: &Path) -> Result<(), RootedError> {
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(RootedError::NulInPath { path: path.to_owned() });
    }
    Ok(())
}

fn is_root(directory: &[u8]) -> bool {
    directory.iter().all(|byte| *byte == b'/')
}

/// Splits into the directory part and the last name. Trailing slashes and `/.` are dropped, so
/// that `link/` names the link; a path that is empty, `/`, or ends in `..` has no last name.
pub(crate) fn split(path: &Path) -> Result<(&[u8], Option<&OsStr>), RootedError> {
    check(path)?;
    let mut bytes = path.as_os_str().as_bytes();
    loop {
        if let Some(rest) = bytes.strip_suffix(b"/") {
            bytes = rest;
        } else if bytes == b"." {
            bytes = b"";
        } else if let Some(rest) = bytes.strip_suffix(b"/.") {
            bytes = rest;
        } else {
            break;
        }
    }
    let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = bytes.split_at(start);
    let name = (!name.is_empty() && name != b"..").then(|| OsStr::from_bytes(name));
    Ok((directory, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_at_its_last_name() {
        let parts = |path: &str| {
            let (directory, name) = split(Path::new(path)).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            (text(directory), name.map(|name| text(name.as_bytes())))
        };
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(parts("a"), (String::new(), name("a")));
        assert_eq!(parts("/a/b"), ("/a/".into(), name("b")));
        assert_eq!(parts("a//./"), (String::new(), name("a")));
        assert_eq!(parts("a/.b"), ("a/".into(), name(".b")));
        for none in ["", "/", ".", "./", "//.//", "..", "a/.."] {
            assert_eq!(parts(none).1, None, "{none}");
        }
        assert!(split(Path::new("a\0b")).is_err());
    }
}
