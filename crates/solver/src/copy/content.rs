//! Reading, hashing and copying the bytes of files.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild_types::{CancelToken, Digest, Hasher};
use rustix::io::Errno;

use super::error::CopyError;

/// Large enough that a small file is one read, small enough for a core's cache.
const BLOCK: usize = 128 * 1024;
/// Granularity in which holes are kept when bytes pass through memory: a file system block.
const HOLE: usize = 4096;
/// Above this size the kernel copies between files by itself.
const IN_KERNEL: u64 = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BLOCK]);
}

/// Which side failed; the caller knows the names.
#[derive(Debug)]
pub(crate) enum Failure {
    Read(io::Error),
    Write(io::Error),
    Cancelled,
}

impl Failure {
    /// Puts names on it.
    pub(crate) fn named(self, tree: &str, from: &str, to: &str) -> CopyError {
        match self {
            Self::Read(source) => {
                CopyError::Read { tree: tree.to_owned(), path: from.to_owned(), source }
            }
            Self::Write(source) => CopyError::Write { path: to.to_owned(), source },
            Self::Cancelled => CopyError::Cancelled,
        }
    }
}

/// What passed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
}

/// Hashes the rest of a file.
pub(crate) fn hash(file: &File, cancel: &CancelToken) -> Result<Content, Failure> {
    pass(file, cancel, |_| Ok(()))
}

/// Copies a file's bytes to an empty file and hashes them. Blocks of zeros become holes when
/// `sparse`.
pub(crate) fn copy_hashing(
    from: &File,
    to: &File,
    sparse: bool,
    cancel: &CancelToken,
) -> Result<Content, Failure> {
    let mut to = to;
    if !sparse {
        return pass(from, cancel, |bytes| to.write_all(bytes));
    }
    let content = pass(from, cancel, |bytes| {
        for block in bytes.chunks(HOLE) {
            if block.iter().all(|byte| *byte == 0) {
                to.seek_relative(block.len() as i64)?;
            } else {
                to.write_all(block)?;
            }
        }
        Ok(())
    })?;
    to.set_len(content.size).map_err(Failure::Write)?;
    Ok(content)
}

fn pass(
    mut file: &File,
    cancel: &CancelToken,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Content, Failure> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut hasher = Hasher::new();
        let mut size = 0;
        loop {
            let count = match file.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Read(error)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.update(bytes);
            each(bytes).map_err(Failure::Write)?;
            size += count as u64;
            // A regular file gives less than was asked for only at its end.
            if count < BLOCK {
                return Ok(Content { digest: hasher.finish(), size });
            }
            if cancel.is_cancelled() {
                return Err(Failure::Cancelled);
            }
        }
    })
}

/// Copies whole files of a tree that does not change, by the cheapest way the file systems have.
#[derive(Debug, Default)]
pub(crate) struct Copier {
    /// The file systems share no blocks; asking again would cost a call per file.
    no_clone: AtomicBool,
    /// They do not copy in the kernel either.
    no_range: AtomicBool,
}

impl Copier {
    /// Whether nothing has shown yet that the file systems share no blocks.
    pub(crate) fn may_clone(&self) -> bool {
        !self.no_clone.load(Ordering::Relaxed)
    }

    /// Lets an empty file share the blocks of another; whether it does.
    pub(crate) fn clone_all(&self, from: &File, to: &File) -> bool {
        let cloned = rustix::fs::ioctl_ficlone(to, from).is_ok();
        if !cloned {
            // Whatever the reason, there are other ways.
            self.no_clone.store(true, Ordering::Relaxed);
        }
        cloned
    }

    /// Copies `size` bytes; `sparse` says that the source has holes.
    pub(crate) fn copy(
        &self,
        from: &File,
        to: &File,
        size: u64,
        sparse: bool,
        cancel: &CancelToken,
    ) -> Result<(), Failure> {
        if size == 0 {
            return Ok(());
        }
        if self.may_clone() && self.clone_all(from, to) {
            return Ok(());
        }
        if !sparse {
            return self.range(from, to, 0, size, cancel);
        }
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start)).unwrap_or(size);
            self.range(from, to, start, end.min(size), cancel)?;
            at = end.max(start + 1);
        }
        to.set_len(size).map_err(Failure::Write)
    }

    fn range(
        &self,
        from: &File,
        to: &File,
        start: u64,
        end: u64,
        cancel: &CancelToken,
    ) -> Result<(), Failure> {
        let (mut read_at, mut write_at) = (start, start);
        if end - start > IN_KERNEL && !self.no_range.load(Ordering::Relaxed) {
            while read_at < end {
                // Pieces, so that a cancel does not wait for a whole image.
                let length = usize::try_from((end - read_at).min(64 << 20)).unwrap_or(BLOCK);
                match rustix::fs::copy_file_range(
                    from,
                    Some(&mut read_at),
                    to,
                    Some(&mut write_at),
                    length,
                ) {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(Errno::INTR) => {}
                    Err(Errno::NOSPC) => return Err(Failure::Write(Errno::NOSPC.into())),
                    Err(_) => {
                        self.no_range.store(true, Ordering::Relaxed);
                        break;
                    }
                }
                if cancel.is_cancelled() {
                    return Err(Failure::Cancelled);
                }
            }
            if read_at >= end {
                return Ok(());
            }
        }
        let (mut from, mut to) = (from, to);
        from.seek(SeekFrom::Start(read_at)).map_err(Failure::Read)?;
        to.seek(SeekFrom::Start(write_at)).map_err(Failure::Write)?;
        BUFFER.with_borrow_mut(|buffer| {
            let mut left = end - read_at;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
                let Some(space) = buffer.get_mut(..want) else { break };
                let count = match from.read(space) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failure::Read(error)),
                };
                to.write_all(space.get(..count).unwrap_or_default()).map_err(Failure::Write)?;
                left -= count as u64;
                if cancel.is_cancelled() {
                    return Err(Failure::Cancelled);
                }
            }
            Ok(())
        })
    }
}
