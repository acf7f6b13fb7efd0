//! The bridge between blocking callers and the async client.
//!
//! One thread, named `rbuild-registry`, drives a current-thread tokio runtime. Callers hand it a
//! future and wait on a std channel, never in `block_on`: that panics inside an async host. They
//! wake every [`TICK`] to look at their cancellation token, and dropping the [`Task`] aborts the
//! future, so a cancelled call leaves nothing running.
//!
//! A stream of bytes goes through an unbounded std channel whose fill is bounded by a semaphore:
//! the async side waits for room of [`WINDOW`] bytes, the blocking side gives room back after it
//! has taken a chunk. (tokio's own bounded channel cannot be received from by a thread that is
//! inside a runtime.) Bytes the other way, for uploads, are in `feed.rs`.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rbuild_types::{CancelToken, Cancelled};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::RegistryError;

/// How often a waiting caller looks at its cancellation token.
const TICK: Duration = Duration::from_millis(50);
/// Bytes of one blob that may wait for the caller.
const WINDOW: usize = 4 << 20;

/// Owns the network thread; the thread ends when this is dropped.
pub(crate) struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn start() -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::Runtime { source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("rbuild-registry".to_owned())
            .spawn(move || {
                // Ends by a message or by the sender's drop: both mean the same.
                let _ = runtime.block_on(stopped);
                // Does not wait for a name lookup that hangs in the C library.
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs `future` to its end, or until `cancel`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        cancel: &CancelToken,
        future: impl Future<Output = Result<T, RegistryError>> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let talk = self.talk(|sender| async move {
            // The caller may be gone; then nobody wants the value.
            let _ = sender.send(future.await);
        });
        talk.next(cancel)?
    }

    /// Starts a future that sends messages to the caller.
    pub(crate) fn talk<M, F>(&self, speaker: impl FnOnce(Sender<M>) -> F) -> Talk<M>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = channel();
        Talk { task: self.spawn(speaker(sender)), receiver }
    }

    /// Starts a producer of bytes.
    pub(crate) fn stream<F>(&self, producer: impl FnOnce(Pipe) -> F) -> Stream
    where
        F: Future<Output = Result<(), RegistryError>> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(WINDOW));
        let talk = self.talk(|sender| {
            let future = producer(Pipe { sender: sender.clone(), room: room.clone() });
            async move {
                // As above.
                let _ = sender.send(Message::End(future.await));
            }
        });
        Stream { talk, room }
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(self.handle.spawn(future).abort_handle())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported to the callers already.
            let _ = thread.join();
        }
    }
}

/// The caller's end of a running future that sends messages.
pub(crate) struct Talk<M> {
    #[expect(dead_code, reason = "its drop ends the future")]
    task: Task,
    receiver: Receiver<M>,
}

impl<M> Talk<M> {
    /// The next message.
    pub(crate) fn next(&self, cancel: &CancelToken) -> Result<M, RegistryError> {
        loop {
            cancel.check()?;
            match self.receiver.recv_timeout(TICK) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let source = std::io::Error::other("the network thread dropped the request");
                    return Err(RegistryError::Runtime { source });
                }
            }
        }
    }
}

/// A running future that is aborted on drop.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a producer of bytes says.
pub(crate) enum Message {
    /// The next bytes.
    Chunk(Bytes),
    /// Forget all bytes so far: the next chunk is byte 0 again.
    Restart,
    /// Nothing follows.
    End(Result<(), RegistryError>),
}

/// The async end of a [`Stream`].
pub(crate) struct Pipe {
    sender: Sender<Message>,
    room: Arc<Semaphore>,
}

impl Pipe {
    /// Hands `bytes` over, after waiting for room.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), RegistryError> {
        let permits = charge(&bytes);
        // Neither end closes the semaphore; were it closed, the caller would be gone.
        self.room.acquire_many(permits).await.map_err(|_| Cancelled)?.forget();
        self.sender.send(Message::Chunk(bytes)).map_err(|_| Cancelled.into())
    }

    /// Tells the caller to forget all bytes so far.
    pub(crate) fn restart(&self) -> Result<(), RegistryError> {
        self.sender.send(Message::Restart).map_err(|_| Cancelled.into())
    }
}

/// The blocking end of a producer.
pub(crate) struct Stream {
    talk: Talk<Message>,
    room: Arc<Semaphore>,
}

impl Stream {
    /// The next message; a chunk's room is free again at once.
    pub(crate) fn next(&self, cancel: &CancelToken) -> Result<Message, RegistryError> {
        let message = self.talk.next(cancel)?;
        if let Message::Chunk(bytes) = &message {
            self.room.add_permits(charge(bytes) as usize);
        }
        Ok(message)
    }
}

/// What a chunk takes of the window: a chunk larger than the window would wait for ever.
fn charge(bytes: &Bytes) -> u32 {
    bytes.len().min(WINDOW) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_producer_waits_for_room_and_cancel_ends_the_wait() {
        let runtime = Runtime::start().unwrap();
        let cancel = CancelToken::default();
        let stream = runtime.stream(|pipe| async move {
            for _ in 0..8 {
                pipe.send(Bytes::from(vec![0; WINDOW / 2])).await?;
            }
            std::future::pending().await
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(stream.room.available_permits(), 0);
        for _ in 0..8 {
            assert!(matches!(stream.next(&cancel), Ok(Message::Chunk(_))));
        }
        let other = cancel.clone();
        std::thread::spawn(move || other.cancel());
        let start = Instant::now();
        assert!(matches!(stream.next(&cancel), Err(RegistryError::Cancelled(_))));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_panic_on_the_network_thread_is_an_error_for_the_caller() {
        let runtime = Runtime::start().unwrap();
        let result: Result<(), _> =
            runtime.run(&CancelToken::default(), async { panic!("as tested") });
        assert!(matches!(result, Err(RegistryError::Runtime { .. })));
    }
}
