//! Answers that are held in memory.

use std::io;

use rbuild_registry::BlobSink;

/// Largest list of references, bytes: a million of them.
const MAX_LIST: usize = 128 << 20;

/// An answer in memory, with a limit.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
}

impl BlobSink for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes.len() + bytes.len() > MAX_LIST {
            return Err(io::Error::other("the answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}
