//! The writer that compresses on a caller's pool.

use std::io::{self, Write};

use rayon::ThreadPool;

use super::ordered::Ordered;
use super::{Encoding, gzip, zstd_frames};

/// Counts up whenever the same content and level would give other bytes: with block sizes here,
/// and with versions of the compression libraries that change their output.
pub const COMPRESSION_FORMAT: u32 = 2;

/// Compresses what is written to it, in blocks of fixed size on a pool.
///
/// The bytes depend on content and encoding alone, never on the number of threads or on how the
/// content is cut into writes. At most two blocks per thread are in memory, besides the one being
/// filled. Nothing is complete before [`CompressedWriter::finish`].
///
/// Only layers have entries to be read one by one: of [`Encoding::Estargz`] it makes gzip, and
/// [`crate::estargz::EstargzWriter`] the other.
pub struct CompressedWriter<'p, W> {
    sink: W,
    encoding: Encoding,
    ordered: Ordered<'p, Vec<u8>>,
    block: Vec<u8>,
    block_size: usize,
    started: bool,
}

impl<'p, W: Write> CompressedWriter<'p, W> {
    /// Starts a stream into `sink`.
    pub fn new(sink: W, encoding: Encoding, pool: &'p ThreadPool) -> Self {
        let block_size = match encoding {
            Encoding::Uncompressed => 0,
            Encoding::Gzip { .. } | Encoding::Estargz { .. } => gzip::MEMBER,
            Encoding::Zstd { .. } => zstd_frames::FRAME,
        };
        Self {
            sink,
            encoding,
            ordered: Ordered::new(pool),
            block: Vec::new(),
            block_size,
            started: false,
        }
    }

    /// Ends the stream, flushes the sink and gives it back.
    pub fn finish(mut self) -> io::Result<W> {
        // Also for empty content: no stream at all would not be a compressed nothing.
        if !self.block.is_empty() || !self.started {
            self.send()?;
        }
        while let Some(bytes) = self.ordered.next()? {
            self.sink.write_all(&bytes)?;
        }
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let ready = match self.encoding {
            Encoding::Uncompressed => None,
            Encoding::Gzip { level } | Encoding::Estargz { level } => {
                self.ordered.start(move || gzip::member(&block, level))?
            }
            Encoding::Zstd { level } => {
                self.ordered.start(move || zstd_frames::frame(&block, level))?
            }
        };
        self.started = true;
        if let Some(bytes) = ready {
            self.sink.write_all(&bytes)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for CompressedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.encoding == Encoding::Uncompressed {
            return self.sink.write(bytes);
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(self.block_size);
        }
        let count = bytes.len().min(self.block_size - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == self.block_size {
            self.send()?;
        }
        Ok(count)
    }

    /// Does nothing: cutting a block short would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
