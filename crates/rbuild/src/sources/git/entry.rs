//! Entries of a pack: a header, and what follows it, compressed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use flate2::bufread::ZlibDecoder;

use super::error::GitError;
use super::object::{Kind, ObjectId};

/// Largest object that is made in memory, bytes. Git itself makes no differences of larger ones.
pub(super) const MAX_OBJECT: u64 = 512 << 20;

/// How an entry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Whole(Kind),
    /// Difference to the entry at an offset.
    After(u64),
    /// Difference to an object of the same pack.
    Of(ObjectId),
}

/// A place in a pack.
pub(super) struct Reading<'a> {
    source: BufReader<At<'a>>,
    pub(super) offset: u64,
}

/// Reads a file from a position of its own.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a File, offset: u64) -> Self {
        Self { source: BufReader::with_capacity(1 << 15, At { file, offset }), offset }
    }

    fn byte(&mut self) -> Result<u8, GitError> {
        let mut byte = [0];
        self.source.read_exact(&mut byte)?;
        self.offset += 1;
        Ok(byte[0])
    }

    pub(super) fn number(&mut self) -> Result<u32, GitError> {
        let mut bytes = [0; 4];
        self.source.read_exact(&mut bytes)?;
        self.offset += 4;
        Ok(u32::from_be_bytes(bytes))
    }

    /// The header of the entry that begins at `start`, and the size of what follows.
    pub(super) fn header(&mut self, start: u64) -> Result<(Header, u64), GitError> {
        let mut byte = self.byte()?;
        let kind = byte >> 4 & 7;
        let mut size = u64::from(byte & 15);
        let mut shift = 4;
        while byte & 128 != 0 {
            byte = self.byte()?;
            if shift > 57 {
                return Err(bad("a size is too large"));
            }
            size |= u64::from(byte & 127) << shift;
            shift += 7;
        }
        let header = match kind {
            1 => Header::Whole(Kind::Commit),
            2 => Header::Whole(Kind::Tree),
            3 => Header::Whole(Kind::Blob),
            4 => Header::Whole(Kind::Tag),
            6 => {
                let mut byte = self.byte()?;
                let mut distance = u64::from(byte & 127);
                while byte & 128 != 0 {
                    byte = self.byte()?;
                    distance = distance
                        .checked_add(1)
                        .and_then(|distance| distance.checked_mul(128))
                        .ok_or_else(|| bad("a base is too far away"))?
                        | u64::from(byte & 127);
                }
                let base = start.checked_sub(distance).filter(|_| distance > 0);
                Header::After(base.ok_or_else(|| bad("a base lies outside"))?)
            }
            7 => {
                let mut id = [0; 20];
                self.source.read_exact(&mut id)?;
                self.offset += 20;
                Header::Of(ObjectId(id))
            }
            _ => return Err(bad("an object is of no known kind")),
        };
        Ok((header, size))
    }

    /// Hands on exactly `size` bytes of the compressed stream here, at most `limit`.
    pub(super) fn inflate(
        &mut self,
        size: u64,
        limit: u64,
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), GitError> {
        if size > limit {
            return Err(bad("an object is too large"));
        }
        let mut decoder = ZlibDecoder::new(&mut self.source);
        let mut buffer = [0; 1 << 14];
        let mut found = 0;
        loop {
            let count = decoder.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            found += count as u64;
            if found > size {
                return Err(bad("an object is larger than it says"));
            }
            each(buffer.get(..count).unwrap_or_default())?;
        }
        self.offset += decoder.total_in();
        if found == size { Ok(()) } else { Err(bad("an object is smaller than it says")) }
    }

    pub(super) fn whole(&mut self, size: u64) -> Result<Vec<u8>, GitError> {
        let mut bytes = Vec::new();
        self.inflate(size, MAX_OBJECT, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }
}

/// What is wrong with a pack.
pub(super) fn bad(problem: &str) -> GitError {
    GitError::Pack(problem.to_owned())
}
