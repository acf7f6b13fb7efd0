//! Files of which only parts are read.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes at any offset.
pub trait BytesAt {
    /// How many there are.
    fn size(&self) -> u64;

    /// Exactly `count` bytes from `offset`; `None` when they are not all there.
    fn bytes(&self, offset: u64, count: usize) -> Option<Vec<u8>>;
}

impl BytesAt for File {
    fn size(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn bytes(&self, offset: u64, count: usize) -> Option<Vec<u8>> {
        // Not more is allocated than the file has.
        if offset.checked_add(count as u64)? > self.size() {
            return None;
        }
        let mut bytes = vec![0; count];
        self.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

impl BytesAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&self, offset: u64, count: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        Some(self.get(start..start.checked_add(count)?)?.to_vec())
    }
}

/// Whose first byte is the one that counts most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Big,
    Little,
}

impl Order {
    /// The number that `count` bytes at `offset` are, eight at most.
    pub(crate) fn number(self, bytes: &[u8], offset: usize, count: usize) -> Option<u64> {
        let bytes = bytes.get(offset..offset.checked_add(count)?)?;
        let add = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Some(match self {
            Self::Big => bytes.iter().fold(0, add),
            Self::Little => bytes.iter().rev().fold(0, add),
        })
    }

    /// A number of two bytes.
    pub(crate) fn u16(self, bytes: &[u8], offset: usize) -> Option<usize> {
        self.number(bytes, offset, 2).and_then(|number| usize::try_from(number).ok())
    }

    /// A number of four bytes.
    pub(crate) fn u32(self, bytes: &[u8], offset: usize) -> Option<usize> {
        self.number(bytes, offset, 4).and_then(|number| usize::try_from(number).ok())
    }
}
