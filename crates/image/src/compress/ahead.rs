//! Decoding on a thread of its own, ahead of the thread that uses what comes out.
//!
//! The helper thread reads into pieces and sends them; the caller's thread hands the empty ones
//! back. Both wait for each other through two channels, so at most [`PIECES`] pieces exist. When
//! the caller stops early its ends of the channels are dropped and the helper ends at its next
//! piece; a source that blocks for ever must be ended by whoever holds its other end.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::ImageError;

/// Pieces in memory.
const PIECES: usize = 4;
/// Bytes of one piece.
const PIECE: usize = 512 << 10;

/// Runs `consume` on this thread over the bytes that `open`'s reader gives on another one.
///
/// For pulls: inflating a layer takes about as long as hashing and writing it. An error of the
/// reader reaches `consume` as the error of its `read`.
pub fn ahead<'s, T>(
    open: impl FnOnce() -> Result<Box<dyn Read + 's>, ImageError> + Send,
    consume: impl FnOnce(&mut dyn Read) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (full_sender, full) = channel();
        let (empty, empty_receiver) = channel();
        for _ in 0..PIECES {
            // The receiver is held right here.
            let _ = empty.send(Vec::new());
        }
        scope.spawn(move || match open() {
            Ok(reader) => fill(reader, &full_sender, &empty_receiver),
            // The consumer may have gone already; then nobody asks why.
            Err(error) => drop(full_sender.send(Err(error.into()))),
        });
        let mut reader = Ahead { full, empty, piece: Vec::new(), at: 0, ended: false };
        consume(&mut reader)
    })
}

/// A piece; an empty one is the end.
type Piece = io::Result<Vec<u8>>;

fn fill(mut reader: Box<dyn Read + '_>, full: &Sender<Piece>, empty: &Receiver<Vec<u8>>) {
    while let Ok(mut piece) = empty.recv() {
        piece.clear();
        let read = reader.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let ended = piece.is_empty();
        // What was read before an error comes out before the error does.
        if !ended && full.send(Ok(piece)).is_err() {
            return;
        }
        match read {
            Err(error) => return drop(full.send(Err(error))),
            Ok(_) if ended => return drop(full.send(Ok(Vec::new()))),
            Ok(_) => {}
        }
    }
}

struct Ahead {
    full: Receiver<Piece>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            let next = self.full.recv().map_err(|_| io::Error::other("a decoder ended early"))?;
            let next = match next {
                Ok(next) => next,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            };
            self.ended = next.is_empty();
            let used = std::mem::replace(&mut self.piece, next);
            self.at = 0;
            // The helper has ended when nobody takes it.
            let _ = self.empty.send(used);
        }
        let left = &self.piece[self.at..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}
