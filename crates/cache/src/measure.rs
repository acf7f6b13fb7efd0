//! What trees occupy on disk: blocks, as `du` counts them, not lengths of files.
//!
//! Snapshots may share files by hard links. Such a file is counted once, with the first object that
//! is measured, and belongs to nobody as long as names of it are elsewhere: what goes with an
//! object is [`Measure::own`].

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::remove::entries;

/// Bytes of a block in `st_blocks`, whatever the file system's own blocks are.
const BLOCK: u64 = 512;

/// Adds up objects, each of one or more trees.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    bytes: u64,
    /// By object: bytes of what has one name.
    own: Vec<u64>,
    linked: HashMap<(u64, u64), Linked>,
}

/// A file with several names.
#[derive(Debug)]
struct Linked {
    bytes: u64,
    /// All its names, wherever they are; wide, because systems differ in it.
    names: u128,
    seen: u128,
    /// The object that it was first seen in.
    object: usize,
    /// Whether it was seen in others too.
    shared: bool,
}

impl Measure {
    /// Bytes of all objects so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds an object that is these trees; the bytes that it adds to what was measured before. A
    /// missing one adds nothing, and neither does what may not be read or goes away meanwhile: a
    /// build may be running.
    pub(crate) fn add<P: AsRef<Path>>(&mut self, trees: impl IntoIterator<Item = P>) -> u64 {
        let before = self.bytes;
        self.own.push(0);
        trees.into_iter().for_each(|tree| self.tree(tree.as_ref()));
        self.bytes - before
    }

    /// Adds an object that is this alone, without what is in it.
    pub(crate) fn add_alone(&mut self, path: &Path) -> u64 {
        self.own.push(0);
        let before = self.bytes;
        if let Ok(stat) = rustix::fs::lstat(path) {
            self.count(&stat);
        }
        self.bytes - before
    }

    /// For each object, in the order in which they were added, the bytes that go when it goes alone.
    pub(crate) fn own(&self) -> Vec<u64> {
        let mut own = self.own.clone();
        for file in self.linked.values().filter(|file| !file.shared && file.seen == file.names) {
            own[file.object] += file.bytes;
        }
        own
    }

    fn tree(&mut self, path: &Path) {
        let Ok(stat) = rustix::fs::lstat(path) else { return };
        self.count(&stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return;
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
    }

    fn count(&mut self, stat: &Stat) {
        let (bytes, object) = (blocks(stat), self.own.len() - 1);
        if !has_other_names(stat) {
            self.own[object] += bytes;
            self.bytes += bytes;
            return;
        }
        let names = u128::from(stat.st_nlink);
        let file = self.linked.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| {
            self.bytes += bytes;
            Linked { bytes, names, seen: 0, object, shared: false }
        });
        file.seen += 1;
        file.shared |= file.object != object;
    }
}

/// Bytes on disk of one file, or of a directory without what is in it.
pub(crate) fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK
}

/// [`blocks`] of what is at `path`; a missing one has none.
pub(crate) fn blocks_at(path: &Path) -> u64 {
    rustix::fs::lstat(path).map_or(0, |stat| blocks(&stat))
}

/// Whether the file stays when one of its names goes.
pub(crate) fn has_other_names(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) != FileType::Directory && stat.st_nlink > 1
}
