//! What a copy reads from: file trees, and the values that describe what is in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rbuild_cache::FileStamp;
use rbuild_parser::ignore_file::Patterns;
use rbuild_rooted::{FileKind, Metadata, Root, Time};
use rbuild_types::Digest;

/// A tree that a copy takes files from.
#[derive(Clone)]
pub struct SourceTree<'a> {
    /// Its root directory.
    pub root: &'a Root,
    /// The rules that hide a part of it: a local context's ignore file.
    pub ignore: Option<&'a Patterns>,
    /// The name of the file that the rules are from.
    pub ignore_file: &'a str,
    /// Its name in messages: `context`, `stage build`, an image.
    pub name: String,
    /// Whose the copied files become, and what becomes of their modes.
    pub owner: OwnerRule,
    /// Content digests known from earlier.
    pub stamps: Option<&'a dyn DigestCache>,
}

/// Whose copied files become when `--chown` is not given, what becomes of their modes, and which
/// tree it is by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerRule {
    /// A build context: everything becomes 0:0, whoever owns it on the host; no extended
    /// attribute is kept; what is copied is hashed again while it is copied.
    Context,
    /// A build context in a git work tree: as [`OwnerRule::Context`], and with the modes that git
    /// keeps, so that every checkout is the same, whatever umask it was made with.
    WorkTree,
    /// A stage or an image: owners are kept, and so is `security.capability`. Such a tree is
    /// taken not to change.
    Keep,
}

impl OwnerRule {
    /// Whether it is a build context, whose bytes may change while they are copied.
    pub(crate) fn is_context(self) -> bool {
        self != Self::Keep
    }

    fn owner(self, metadata: &Metadata) -> (u32, u32) {
        if self.is_context() { (0, 0) } else { (metadata.uid, metadata.gid) }
    }

    fn mode(self, kind: FileKind, metadata: &Metadata) -> u32 {
        match (kind, self) {
            (FileKind::Symlink, _) => 0o777,
            (_, Self::Context | Self::Keep) => metadata.mode,
            (FileKind::Directory, Self::WorkTree) => 0o755,
            // Git looks at the owner's bit alone.
            (_, Self::WorkTree) if metadata.mode & 0o100 != 0 => 0o755,
            (_, Self::WorkTree) => 0o644,
        }
    }
}

/// The stamp of a file's attributes.
pub(super) fn stamp_of(metadata: &Metadata) -> FileStamp {
    FileStamp {
        dev: metadata.dev,
        ino: metadata.ino,
        size: metadata.size,
        mtime_ns: metadata.mtime.as_nanos(),
        ctime_ns: metadata.ctime.as_nanos(),
    }
}

/// Remembers content digests by stamp. Which stamps are too young to be trusted is its business.
pub trait DigestCache: Sync {
    /// The digest of the file that had this stamp.
    fn get(&self, stamp: &FileStamp) -> Option<Digest>;
    /// Remembers a digest; the file had the stamp before and after it was read.
    fn insert(&self, stamp: FileStamp, digest: Digest);
}

/// One selected name in a directory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    /// What it becomes: a socket has become an empty regular file already.
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of a regular file, else 0.
    pub(crate) size: u64,
    /// Device number, else 0.
    pub(crate) rdev: u64,
    pub(crate) mtime: Time,
    /// Device and inode when other names may share them.
    pub(crate) links: Option<(u64, u64)>,
    /// Of a regular file's bytes.
    pub(crate) digest: Option<Digest>,
    /// Of a symbolic link.
    pub(crate) target: Option<OsString>,
    /// The value of `security.capability`.
    pub(crate) capability: Option<Vec<u8>>,
    /// Whether there is nothing to read: a socket became this.
    pub(crate) made_up: bool,
    /// With `--parents`: a directory above what was matched.
    pub(crate) only_above: bool,
}

impl Entry {
    /// Without what only reading the file tells.
    pub(crate) fn from_metadata(name: OsString, metadata: &Metadata, owner: OwnerRule) -> Self {
        let made_up = metadata.kind == FileKind::Socket;
        let kind = if made_up { FileKind::Regular } else { metadata.kind };
        let device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
        let (uid, gid) = owner.owner(metadata);
        let regular = kind == FileKind::Regular && !made_up;
        Self {
            name,
            kind,
            mode: owner.mode(kind, metadata),
            uid,
            gid,
            size: if regular { metadata.size } else { 0 },
            rdev: if device { metadata.rdev } else { 0 },
            mtime: metadata.mtime,
            links: (regular && metadata.nlink > 1).then_some((metadata.dev, metadata.ino)),
            digest: made_up.then(|| Digest::of(b"")),
            target: None,
            capability: None,
            made_up,
            only_above: false,
        }
    }
}

/// The selected names of one directory.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    /// Where it goes, from the item's destination; empty for the first.
    pub(crate) path: PathBuf,
    /// Where it is, absolute from the tree's root; no name in it is a link.
    pub(crate) source: PathBuf,
    /// Sorted by name. Directories among them have a [`Dir`] of their own.
    pub(crate) entries: Vec<Entry>,
}

impl Dir {
    /// The first directory of an item, still empty.
    pub(crate) fn first(source: &Path) -> Self {
        Self { path: PathBuf::new(), source: source.to_owned(), entries: Vec::new() }
    }
}

/// A path as messages show it.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
