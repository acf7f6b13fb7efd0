//! Bytes from a blocking caller to the network: the bodies of uploads.
//!
//! The network thread makes a body and asks the caller to read from an offset on. The caller reads
//! ahead by [`PIECES`] pieces, then waits until one has left: so memory stays flat however slow the
//! network is, and nobody blocks the network thread. A body that is sent again (another try, a
//! redirect, a 401) is a new one; what the caller still hears of the old one is passed over by its
//! number.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{RegistryError, RegistryOptions};

/// Bytes of one piece.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead of the network.
const PIECES: usize = 8;
/// A registry may read a blob once more, to check or to move it, before it answers: no slower than
/// this, bytes per second.
const COMMIT_RATE: u64 = 4 << 20;

/// What the network asks of the caller.
pub(crate) enum Ask<T> {
    /// Read from an offset on, for the body with this number.
    Open(Order),
    /// A piece of the body with this number has left.
    Room(u64),
    /// Nothing follows.
    End(Result<T, RegistryError>),
}

/// Bytes that a body needs.
pub(crate) struct Order {
    number: u64,
    from: u64,
    size: u64,
    pieces: UnboundedSender<Bytes>,
}

/// The network's end: makes bodies.
pub(crate) struct Feed<T> {
    caller: Sender<Ask<T>>,
    made: AtomicU64,
    pub(crate) pace: Pace,
}

impl<T: Send + 'static> Feed<T> {
    /// Sends its questions to `caller`.
    pub(crate) fn new(caller: Sender<Ask<T>>) -> Self {
        Self { caller, made: AtomicU64::new(0), pace: Pace::default() }
    }

    /// A body of `size` bytes, from the offset `from` on.
    pub(crate) fn body(&self, from: u64, size: u64) -> reqwest::Body {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, pieces) = unbounded_channel();
        self.pace.start(size);
        // The caller may be gone; then this future is about to end.
        let _ = self.caller.send(Ask::Open(Order { number, from, size, pieces: sender }));
        let caller = self.caller.clone();
        let pace = self.pace.0.clone();
        reqwest::Body::wrap(FedBody { number, pieces, caller, left: size, pace })
    }
}

struct FedBody<T> {
    number: u64,
    pieces: UnboundedReceiver<Bytes>,
    caller: Sender<Ask<T>>,
    left: u64,
    pace: Arc<PaceState>,
}

impl<T: Send + 'static> Body for FedBody<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let polled = body.pieces.poll_recv(context);
        body.pace.hungry.store(polled.is_pending(), Ordering::Relaxed);
        polled.map(|piece| match piece {
            Some(bytes) => {
                body.left = body.left.saturating_sub(bytes.len() as u64);
                body.pace.left.store(body.left, Ordering::Relaxed);
                // As above.
                let _ = body.caller.send(Ask::Room(body.number));
                Some(Ok(Frame::data(bytes)))
            }
            // The caller says why.
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How fast the body under way leaves. Only what the network is slow with counts: a caller that
/// still compresses what it sends may take its time.
#[derive(Default)]
pub(crate) struct Pace(Arc<PaceState>);

#[derive(Default)]
struct PaceState {
    size: AtomicU64,
    left: AtomicU64,
    /// What was left when the last window ended.
    left_before: AtomicU64,
    /// Whether the network waits for the caller.
    hungry: AtomicBool,
    /// Whether the window for the answer has begun.
    answering: AtomicBool,
}

impl Pace {
    fn start(&self, size: u64) {
        self.0.size.store(size, Ordering::Relaxed);
        self.0.left.store(size, Ordering::Relaxed);
        self.0.left_before.store(size, Ordering::Relaxed);
        self.0.hungry.store(true, Ordering::Relaxed);
        self.0.answering.store(false, Ordering::Relaxed);
    }

    /// How long to wait before [`Pace::is_enough`] is asked.
    pub(crate) fn window(&self, options: &RegistryOptions) -> Duration {
        if self.0.left.load(Ordering::Relaxed) > 0 {
            return options.idle_timeout;
        }
        self.0.answering.store(true, Ordering::Relaxed);
        let checked = self.0.size.load(Ordering::Relaxed) / COMMIT_RATE;
        options.answer_timeout + Duration::from_secs(checked)
    }

    /// Whether the window that ends now was not wasted.
    pub(crate) fn is_enough(&self, options: &RegistryOptions) -> bool {
        let left = self.0.left.load(Ordering::Relaxed);
        if left == 0 {
            // All has left during this window; the next one is for the answer.
            return !self.0.answering.load(Ordering::Relaxed);
        }
        let moved = self.0.left_before.swap(left, Ordering::Relaxed).saturating_sub(left);
        let window = u64::try_from(options.idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let least = window.saturating_mul(options.idle_rate) / 1000;
        moved >= least.max(1) || self.0.hungry.load(Ordering::Relaxed)
    }
}

/// The caller's end: reads for the body under way.
pub(crate) struct Reading<'a> {
    order: Order,
    reader: Box<dyn Read + 'a>,
    read: u64,
    room: usize,
}

impl<'a> Reading<'a> {
    /// Opens the source for an order.
    pub(crate) fn open(
        order: Order,
        open: &dyn Fn(u64) -> io::Result<Box<dyn Read + 'a>>,
    ) -> io::Result<Self> {
        let reader = open(order.from)?;
        Ok(Self { order, reader, read: 0, room: PIECES })
    }

    /// Notes that a piece of the body `number` has left.
    pub(crate) fn left(&mut self, number: u64) {
        self.room += usize::from(number == self.order.number);
    }

    /// The offset of the next byte to be read.
    pub(crate) fn at(&self) -> u64 {
        self.order.from + self.read
    }

    /// Reads one piece, if there is room and more to read. Says whether there was.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let wanted = self.order.size - self.read;
        if self.room == 0 || wanted == 0 {
            return Ok(false);
        }
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(wanted).unwrap_or(PIECE)));
        let count = (&mut self.reader).take(wanted.min(PIECE as u64)).read_to_end(&mut piece)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends {wanted} bytes too early"),
            ));
        }
        self.read += count as u64;
        self.room -= 1;
        // Nobody takes it where the body was given up; the next order is on its way.
        let _ = self.order.pieces.send(piece.into());
        Ok(true)
    }
}
