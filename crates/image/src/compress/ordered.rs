//! Blocks handed to a pool and taken back in order.
//!
//! The thread that writes sends each block to the pool together with a channel of its own, and
//! waits for the oldest channel once too many are under way: that bounds memory and keeps order.
//! A caller that is itself a thread of the pool does the pool's work while it waits, so a pool of
//! one thread does not wait for itself.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use rayon::{ThreadPool, Yield};

/// Work under way, oldest first; each block becomes a `T`.
pub(crate) struct Ordered<'p, T> {
    pool: &'p ThreadPool,
    under_way: VecDeque<Receiver<io::Result<T>>>,
}

/// Blocks per thread that may be under way: one that is worked on and one that is ready.
const PER_THREAD: usize = 2;
/// How long a pool thread without other work waits before it looks for some again.
const IDLE: Duration = Duration::from_millis(1);

impl<'p, T: Send + 'static> Ordered<'p, T> {
    pub(crate) fn new(pool: &'p ThreadPool) -> Self {
        Self { pool, under_way: VecDeque::new() }
    }

    /// Starts `work`. Gives the oldest result when there is too much under way.
    pub(crate) fn start(
        &mut self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<Option<T>> {
        let (sender, receiver) = sync_channel(1);
        self.pool.spawn(move || {
            // Nobody listens any more when the writer was given up.
            let _ = sender.send(work());
        });
        self.under_way.push_back(receiver);
        if self.under_way.len() > PER_THREAD * self.pool.current_num_threads() {
            return self.next();
        }
        Ok(None)
    }

    /// The oldest result, `None` when nothing is under way.
    pub(crate) fn next(&mut self) -> io::Result<Option<T>> {
        let Some(receiver) = self.under_way.pop_front() else { return Ok(None) };
        let lost = || io::Error::other("a compression thread ended early");
        loop {
            match receiver.try_recv() {
                Ok(outcome) => return outcome.map(Some),
                Err(TryRecvError::Disconnected) => return Err(lost()),
                Err(TryRecvError::Empty) => {}
            }
            match self.pool.yield_now() {
                Some(Yield::Executed) => {}
                Some(Yield::Idle) => match receiver.recv_timeout(IDLE) {
                    Ok(outcome) => return outcome.map(Some),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(lost()),
                },
                None => return receiver.recv().map_err(|_| lost())?.map(Some),
            }
        }
    }
}
