//! Hashing on a thread of its own, behind the thread that reads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use rbuild_types::{Digest, Hasher};

/// Buffers that are hashed or wait for it.
const UNDER_WAY: usize = 3;

/// The other thread. It ends when this is dropped.
pub(super) struct Behind<'scope> {
    full: Sender<(Vec<u8>, usize)>,
    /// Gives buffers back.
    empty: Receiver<Vec<u8>>,
    thread: ScopedJoinHandle<'scope, Hasher>,
    under_way: usize,
}

impl<'scope> Behind<'scope> {
    pub(super) fn start(scope: &'scope Scope<'scope, '_>) -> Self {
        let (full, full_receiver) = channel::<(Vec<u8>, usize)>();
        let (empty_sender, empty) = channel();
        let thread = scope.spawn(move || {
            let mut hasher = Hasher::new();
            for (buffer, filled) in full_receiver {
                hasher.update(&buffer[..filled]);
                // Nobody wants the last ones back.
                let _ = empty_sender.send(buffer);
            }
            hasher
        });
        Self { full, empty, thread, under_way: 0 }
    }

    /// Takes a buffer, of which so many bytes count, and gives another of the same size.
    pub(super) fn hash(&mut self, buffer: Vec<u8>, filled: usize) -> Vec<u8> {
        let size = buffer.len();
        // A thread that is gone has panicked, which `finish` passes on.
        let _ = self.full.send((buffer, filled));
        if self.under_way < UNDER_WAY {
            self.under_way += 1;
            return vec![0; size];
        }
        self.empty.recv().unwrap_or_else(|_| vec![0; size])
    }

    /// The digest of all with what comes last.
    pub(super) fn finish(self, last: &[u8]) -> Digest {
        drop(self.full);
        match self.thread.join() {
            Ok(mut hasher) => {
                hasher.update(last);
                hasher.finish()
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
