//! Tar archives: entries as values, their encoding, and a reader that trusts nothing.
//!
//! Framing is ours rather than the `tar` crate's, because which of two sizes wins decides what an
//! archive contains (CVE-2025-62518, RUSTSEC-2026-0068); field layout and checksums are that
//! crate's.

mod encode;
mod number;
mod pax;
mod reader;
mod sparse;

pub use encode::{END_OF_ARCHIVE, encode, padding};
pub use reader::Reader;
pub(crate) use reader::{HeaderBlock, header_block};
pub use sparse::Segment;

use rbuild_rooted::Time;

/// Tar's unit: headers are one block, contents are padded to whole blocks.
pub const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with its content.
    File,
    /// Another name of a file that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Extended attributes: names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One entry, all overrides applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it stands in the archive; no NUL in it, otherwise anything.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: EntryKind,
    /// Target of a link of either kind, otherwise empty.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file once it is written out; 0 for everything but files.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes (`SCHILY.xattr.` records), sorted by name.
    pub xattrs: Xattrs,
    /// Where the content's bytes go when the file has holes. The segments' lengths add up to what
    /// the reader gives.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// An entry without content, owned by root, from 1970.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
