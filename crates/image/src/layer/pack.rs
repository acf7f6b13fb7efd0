//! Trees to layer tars: a pure function of the tree, versioned by [`LAYER_FORMAT`].
//!
//! Order: a directory, then what it holds, siblings in byte order of their names. The tree's root
//! is no entry. A directory's opaque marker comes right after it. Header form: see
//! [`crate::tarball::encode`].
//!
//! * Hard links inside the tree: the first name in order is the file, the others are link entries.
//!   Names outside the tree do not count.
//! * Sockets are left out, as GNU tar and BuildKit do: nothing can be at their other end.
//! * Of the extended attributes only `security.capability` is kept, as in BuildKit; labels and
//!   overlay's own attributes belong to the machine, not to the image.
//! * Whiteouts and opaque markers are empty files of mode 0, owned by root, from 1970.
//!
//! Memory: one list of names per directory level, a few buffers, small files that were read ahead
//! (`peek.rs`), and one map entry per file that has several names, until all of them were met.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread::Scope;

use rbuild_rooted::{
    DirEntry, FileKind, Follow, Metadata, Root, RootedError, Time, begin_write_back,
};
use rbuild_types::{CancelToken, Digest};
use rustix::fs::{Mode, OFlags};

use super::behind::Behind;
use super::peek::{CAPABILITY, Content, Failure, Files, Found, Peekers};
use super::whiteout::{self, Opacity};
use crate::error::ImageError;
use crate::tarball::{self, END_OF_ARCHIVE, Entry, EntryKind};

/// Counts up whenever the same tree would give other bytes; part of what a cached digest is
/// remembered under.
pub const LAYER_FORMAT: u32 = 1;

/// How the tree writes deletions down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TreeForm {
    /// An overlay upper directory: whiteouts and opaque directories have a meaning.
    #[default]
    Overlay,
    /// A whole root filesystem: every file is what it is.
    Plain,
}

/// How [`pack`] writes.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// What the tree is.
    pub form: TreeForm,
    /// The modification times that are written.
    pub times: FileTimes,
    /// Lets large files go to the disk meanwhile, for a caller who will sync the tree.
    pub write_back: bool,
    /// Of the tree's root only what has this name.
    pub only: Option<OsString>,
}

/// Modification times of what is written somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileTimes {
    /// As they are.
    #[default]
    Kept,
    /// Later ones become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH` with
    /// `rewrite-timestamp`).
    AtMost(i64),
    /// All become this one: `SOURCE_DATE_EPOCH` where files leave without an image around them.
    All(i64),
}

impl FileTimes {
    /// What is written for a file of this time.
    pub fn of(self, time: Time) -> Time {
        match self {
            Self::AtMost(sec) if time.sec >= sec => Time { sec, nsec: 0 },
            Self::All(sec) => Time { sec, nsec: 0 },
            Self::Kept | Self::AtMost(_) => time,
        }
    }
}

/// A tree, and where it goes in a tar of several.
#[derive(Debug)]
pub struct Part<'t> {
    /// The directory of the tar that it goes into; empty for the root.
    pub directory: &'t str,
    /// The tree.
    pub tree: &'t Root,
    /// How it is written.
    pub options: PackOptions,
}

/// What [`pack`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the tar: the layer's diff id.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub size: u64,
    /// Entries, markers included.
    pub entries: u64,
}

/// Writes `tree` as a tar into `sink`.
///
/// With [`std::io::sink`] this is the way to a diff id. Fails when a file changes while it is read,
/// when a name starts with `.wh.` in an overlay tree, on I/O errors and when cancelled.
pub fn pack(
    tree: &Root,
    options: &PackOptions,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<Packed, ImageError> {
    pack_parts(&[Part { directory: "", tree, options: options.clone() }], sink, cancel)
}

/// [`pack`] for several trees, one behind the other. The directories that they go into come with
/// mode 0755 and from 1970.
pub fn pack_parts(
    parts: &[Part<'_>],
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<Packed, ImageError> {
    // What is read is hashed on a thread of its own: both take about as long.
    std::thread::scope(|scope| {
        let mut packer = Packer {
            options: PackOptions::default(),
            stream: Stream::new(sink, cancel, scope),
            peekers: Peekers::new(scope),
            links: HashMap::new(),
            path: Vec::new(),
            only: None,
            entries: 0,
        };
        packer.parts(parts)?;
        let entries = packer.entries;
        let (diff_id, size) = packer.stream.finish()?;
        Ok(Packed { diff_id, size, entries })
    })
}

struct Packer<'a, 'scope, 'env> {
    options: PackOptions,
    stream: Stream<'a, 'scope, 'env>,
    peekers: Peekers<'scope, 'env>,
    /// First name of files with several, and how many names are still to come.
    links: HashMap<(u64, u64), (Vec<u8>, u64)>,
    /// Path of the current entry, without a slash in front or behind.
    path: Vec<u8>,
    /// The only name that counts in the next directory, which is the root.
    only: Option<OsString>,
    entries: u64,
}

/// A directory on the way down.
struct Level {
    /// Closed while the walk is far below it; `..` of its child leads back.
    dir: Option<Root>,
    rest: std::vec::IntoIter<DirEntry>,
    /// Those of them that are regular files.
    files: Files,
    /// Length of the directory's own path.
    path_length: usize,
    opacity: Opacity,
}

/// Directories that are held open at once; deeper trees close the upper ones meanwhile.
const HELD_LEVELS: usize = 64;

impl Packer<'_, '_, '_> {
    fn parts(&mut self, parts: &[Part<'_>]) -> Result<(), ImageError> {
        for part in parts {
            self.options = part.options.clone();
            self.only = part.options.only.clone();
            self.path = part.directory.as_bytes().to_vec();
            // Nothing is shared between trees, whatever numbers their files have.
            self.links.clear();
            if !self.path.is_empty() {
                let mut entry = Entry::new(self.path.clone(), EntryKind::Directory, 0o755);
                entry.mtime = part.options.times.of(entry.mtime);
                self.write_header(&entry)?;
            }
            self.walk(part.tree)?;
        }
        self.stream.push(&END_OF_ARCHIVE)
    }

    fn walk(&mut self, tree: &Root) -> Result<(), ImageError> {
        let mut levels = vec![self.open_level(tree.try_clone()?)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path_length);
            let Some(entry) = level.rest.next() else {
                let left = levels.pop().and_then(|level| level.dir);
                if let (Some(left), Some(above)) = (left, levels.last_mut())
                    && above.dir.is_none()
                {
                    above.dir = Some(go_up(&left, &self.path)?);
                }
                continue;
            };
            let Some(dir) = &level.dir else { continue };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(entry.name.as_bytes());
            if entry.kind == FileKind::Directory {
                let below = dir.enter(&entry.name).map_err(|error| self.named(error))?;
                let metadata = below.metadata()?;
                self.write_plain(EntryKind::Directory, &metadata, Vec::new())?;
                let below = self.open_level(below)?;
                levels.push(below);
                if let Some(far) = levels.len().checked_sub(HELD_LEVELS)
                    && far > 0
                {
                    levels[far].dir = None;
                }
            } else {
                let (files, opacity) = (&mut level.files, level.opacity);
                self.write_leaf(dir, &entry, files, opacity)?;
            }
        }
        Ok(())
    }

    fn open_level(&mut self, dir: Root) -> Result<Level, ImageError> {
        let opacity = match self.options.form {
            TreeForm::Overlay => whiteout::opacity(&dir).map_err(|error| self.named(error))?,
            TreeForm::Plain => Opacity::Merged,
        };
        let mut names = dir.read_dir("").map_err(|error| self.named(error))?;
        if let Some(only) = self.only.take() {
            names.retain(|entry| entry.name == only);
        }
        let path_length = self.path.len();
        if opacity == Opacity::Opaque {
            self.write_marker(whiteout::OPAQUE)?;
        }
        let regular = names.iter().filter(|entry| entry.kind == FileKind::Regular);
        let files = Files::new(regular.map(|entry| entry.name.clone()));
        Ok(Level { dir: Some(dir), rest: names.into_iter(), files, path_length, opacity })
    }

    fn write_leaf(
        &mut self,
        dir: &Root,
        entry: &DirEntry,
        files: &mut Files,
        opacity: Opacity,
    ) -> Result<(), ImageError> {
        let overlay = self.options.form == TreeForm::Overlay;
        let name = entry.name.as_os_str();
        let is_reserved = overlay && name.as_bytes().starts_with(whiteout::PREFIX);
        if entry.kind == FileKind::Socket {
            return Ok(());
        }
        if entry.kind == FileKind::Regular {
            let found = self.peekers.next(dir, files).map_err(|failure| match failure {
                Failure::Open(error) => self.named(error),
                Failure::Read(error) => self.read(error),
                Failure::Changed => self.changed(),
            })?;
            let metadata = &found.metadata;
            if opacity == Opacity::HasXattrWhiteouts
                && metadata.size == 0
                && whiteout::is_xattr_whiteout(dir, name)?
            {
                return self.write_whiteout(name);
            }
            if is_reserved {
                return Err(self.reserved());
            }
            return self.write_file(found);
        }
        let metadata = dir.stat(name, Follow::No).map_err(|error| self.named(error))?;
        let metadata = metadata.ok_or_else(|| self.changed())?;
        if overlay && metadata.kind == FileKind::CharDevice && metadata.rdev == 0 {
            return self.write_whiteout(name);
        }
        if is_reserved {
            return Err(self.reserved());
        }
        match metadata.kind {
            FileKind::Symlink => {
                let target = dir.read_link(name).map_err(|error| self.named(error))?;
                self.write_plain(EntryKind::Symlink, &metadata, target.as_bytes().to_vec())
            }
            FileKind::CharDevice => self.write_plain(EntryKind::CharDevice, &metadata, Vec::new()),
            FileKind::BlockDevice => {
                self.write_plain(EntryKind::BlockDevice, &metadata, Vec::new())
            }
            FileKind::Fifo => self.write_plain(EntryKind::Fifo, &metadata, Vec::new()),
            FileKind::Regular | FileKind::Directory | FileKind::Socket => Err(self.changed()),
        }
    }

    fn write_file(&mut self, found: Found) -> Result<(), ImageError> {
        let metadata = &found.metadata;
        if metadata.nlink > 1 {
            let identity = (metadata.dev, metadata.ino);
            if let Some((first, names_left)) = self.links.get_mut(&identity) {
                *names_left -= 1;
                let target = match names_left {
                    0 => std::mem::take(first),
                    _ => first.clone(),
                };
                if *names_left == 0 {
                    self.links.remove(&identity);
                }
                return self.write_plain(EntryKind::HardLink, metadata, target);
            }
            self.links.insert(identity, (self.path.clone(), metadata.nlink - 1));
        }
        let mut entry = self.entry(EntryKind::File, metadata);
        entry.size = metadata.size;
        if let Some(value) = found.capability {
            entry.xattrs.push((CAPABILITY.as_bytes().to_vec(), value));
        }
        self.write_header(&entry)?;
        match found.content {
            Content::Bytes(bytes) => self.stream.push(&bytes)?,
            Content::Open(mut file) => {
                let copied = self.stream.copy(&mut file, metadata.size)?;
                if self.options.write_back {
                    begin_write_back(&file);
                }
                match copied {
                    Copied::Whole => {}
                    Copied::Short => return Err(self.changed()),
                    Copied::Failed(error) => return Err(self.read(error)),
                }
            }
        }
        self.stream.zeros(tarball::padding(metadata.size))
    }

    fn write_plain(
        &mut self,
        kind: EntryKind,
        metadata: &Metadata,
        link: Vec<u8>,
    ) -> Result<(), ImageError> {
        let mut entry = self.entry(kind, metadata);
        entry.link = link;
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.device = (rustix::fs::major(metadata.rdev), rustix::fs::minor(metadata.rdev));
        }
        self.write_header(&entry)
    }

    fn write_whiteout(&mut self, name: &OsStr) -> Result<(), ImageError> {
        let parent = self.path.len() - name.len();
        self.path.truncate(parent.saturating_sub(1));
        self.write_marker(&[whiteout::PREFIX, name.as_bytes()].concat())
    }

    /// An empty file in the directory that `self.path` names.
    fn write_marker(&mut self, name: &[u8]) -> Result<(), ImageError> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.write_header(&Entry::new(path, EntryKind::File, 0))
    }

    fn write_header(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let mut header = Vec::with_capacity(tarball::BLOCK);
        tarball::encode(entry, &mut header)?;
        self.entries += 1;
        self.stream.push(&header)
    }

    fn entry(&self, kind: EntryKind, metadata: &Metadata) -> Entry {
        let sec = self.options.times.of(metadata.mtime).sec;
        Entry {
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: Time { sec, nsec: 0 },
            // Linux gives every link 0777; other systems' habits do not matter here.
            ..Entry::new(self.path.clone(), kind, metadata.mode)
        }
    }

    fn shown(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&[b"/", &self.path[..]].concat()))
    }

    fn changed(&self) -> ImageError {
        ImageError::Changed { path: self.shown() }
    }

    fn reserved(&self) -> ImageError {
        ImageError::ReservedName { path: self.shown() }
    }

    fn read(&self, error: std::io::Error) -> ImageError {
        ImageError::read(self.shown().display().to_string())(error)
    }

    /// Errors of a single name are told with the whole path.
    fn named(&self, error: RootedError) -> ImageError {
        match error {
            RootedError::Io { action, source, .. } => {
                ImageError::Rooted(RootedError::Io { action, path: self.shown(), source })
            }
            other => other.into(),
        }
    }
}

fn go_up(dir: &Root, path: &[u8]) -> Result<Root, ImageError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::openat(dir, "..", flags, Mode::empty())
        .map_err(|errno| ImageError::read(String::from_utf8_lossy(path))(errno.into()))?;
    Ok(Root::from_fd(fd))
}

/// How the copy of a file's content ended.
enum Copied {
    Whole,
    Short,
    Failed(std::io::Error),
}

/// Bytes to hash and to write, gathered in one buffer into which files are read directly: each
/// byte is copied once and written in large pieces.
struct Stream<'a, 'scope, 'env> {
    sink: &'a mut dyn Write,
    cancel: &'a CancelToken,
    scope: &'scope Scope<'scope, 'env>,
    /// Started with the first buffer that is full: most layers are smaller.
    behind: Option<Behind<'scope>>,
    buffer: Vec<u8>,
    filled: usize,
    written: u64,
}

/// Fits into the second-level cache of the machines this runs on.
const BUFFER: usize = 256 << 10;

impl<'a, 'scope, 'env> Stream<'a, 'scope, 'env> {
    fn new(
        sink: &'a mut dyn Write,
        cancel: &'a CancelToken,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let buffer = vec![0; BUFFER];
        Self { sink, cancel, scope, behind: None, buffer, filled: 0, written: 0 }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn zeros(&mut self, count: usize) -> Result<(), ImageError> {
        self.push(&[0; tarball::BLOCK][..count])
    }

    fn copy(&mut self, file: &mut std::fs::File, size: u64) -> Result<Copied, ImageError> {
        let mut left = size;
        while left > 0 {
            let space = self.space()?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
            match file.read(&mut space[..wanted]) {
                Ok(0) => return Ok(Copied::Short),
                Ok(count) => {
                    self.filled += count;
                    left -= count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Ok(Copied::Failed(error)),
            }
        }
        Ok(Copied::Whole)
    }

    /// The free part of the buffer, at least one byte.
    fn space(&mut self) -> Result<&mut [u8], ImageError> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn flush(&mut self) -> Result<(), ImageError> {
        self.write()?;
        let scope = self.scope;
        let behind = self.behind.get_or_insert_with(|| Behind::start(scope));
        let full = std::mem::take(&mut self.buffer);
        self.buffer = behind.hash(full, self.filled);
        self.filled = 0;
        Ok(())
    }

    fn write(&mut self) -> Result<(), ImageError> {
        self.cancel.check()?;
        let bytes = &self.buffer[..self.filled];
        self.sink.write_all(bytes).map_err(ImageError::write("layer"))?;
        self.written += self.filled as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<(Digest, u64), ImageError> {
        self.write()?;
        let last = &self.buffer[..self.filled];
        let digest = match self.behind {
            None => Digest::of(last),
            Some(behind) => behind.finish(last),
        };
        Ok((digest, self.written))
    }
}
