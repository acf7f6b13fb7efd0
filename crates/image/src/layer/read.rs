//! A layer's tar to be read, where [`pack`] wants to write.
//!
//! A thread of its own packs, [`PIECES`] pieces ahead of who reads. It ends with the last piece, at
//! the first error, and soon after the reader is dropped.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rbuild_rooted::Root;
use rbuild_types::CancelToken;

use super::pack::{PackOptions, Packed, pack};

/// Pieces that wait to be read.
const PIECES: usize = 4;
/// Bytes of one piece.
const PIECE: usize = 512 << 10;

/// Bytes of a tree's tar.
pub struct LayerReader {
    /// A piece; an empty one is the end. Gone once somebody stops reading.
    pieces: Option<Receiver<io::Result<Vec<u8>>>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
    thread: Option<JoinHandle<()>>,
}

impl LayerReader {
    /// Starts to pack. `check` sees what was packed before the end is read, and may make an error
    /// of it.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub fn start(
        tree: Root,
        options: PackOptions,
        check: impl FnOnce(Packed) -> io::Result<()> + Send + 'static,
        cancel: &CancelToken,
    ) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(PIECES);
        let cancel = cancel.clone();
        let work = move || {
            let mut sink = Pieces { sender: &sender, piece: Vec::with_capacity(PIECE) };
            let packed = pack(&tree, &options, &mut sink, &cancel).map_err(io::Error::from);
            let ended = packed.and_then(|packed| {
                sink.flush()?;
                check(packed)
            });
            // Nobody may read any more; then nobody asks how it ended.
            let _ = sender.send(ended.map(|()| Vec::new()));
        };
        let thread = std::thread::Builder::new().name("rbuild-pack".to_owned()).spawn(work)?;
        let (piece, thread) = (Vec::new(), Some(thread));
        Ok(Self { pieces: Some(pieces), piece, at: 0, ended: false, thread })
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            let lost = || io::Error::other("the thread that packs a layer ended early");
            let next = self.pieces.as_ref().ok_or_else(lost)?.recv().map_err(|_| lost())?;
            self.ended = next.as_ref().map_or(true, Vec::is_empty);
            self.piece = next?;
            self.at = 0;
        }
        let left = &self.piece[self.at..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

impl Drop for LayerReader {
    fn drop(&mut self) {
        // The thread fails at its next piece.
        drop(self.pieces.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Collects what is written into pieces.
struct Pieces<'s> {
    sender: &'s SyncSender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
