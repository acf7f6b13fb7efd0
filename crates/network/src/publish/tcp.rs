//! One TCP connection that is passed on.
//!
//! No byte is held here. What one side sent is looked at (`MSG_PEEK`), given to the other, and as
//! much as that took is then dropped from the receive buffer (`MSG_TRUNC`, which copies nothing).
//! When the other side takes nothing, the receive buffer fills and the sender waits.
//!
//! The sockets are watched edge-triggered: the kernel tells once that a socket became readable or
//! writable, and that is remembered until it says `EAGAIN`.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, recv, sockopt};

/// Rounds of one connection before others have their turn.
const ROUNDS: u32 = 8;

/// Between the questions whether a silent peer is still there, as Go's runtime and so Docker's
/// proxy asks them.
const KEEPALIVE: Duration = Duration::from_secs(15);

pub(super) struct Connection {
    client: Side,
    container: Side,
    /// The connection to the container is not made yet.
    connecting: bool,
    /// From the client to the container, and back.
    up: Flow,
    down: Flow,
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Container,
}

struct Side {
    stream: TcpStream,
    readable: bool,
    writable: bool,
}

/// One direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Its sender said that nothing follows, or its receiver takes no more.
    Done,
}

/// What is left to do after a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing until the kernel tells something new.
    Waits,
    /// There is more, and others come first.
    GoesOn,
    /// Both ends are done with it.
    Over,
}

impl Connection {
    pub(super) fn new(client: TcpStream, container: TcpStream) -> Self {
        for stream in [&client, &container] {
            // A connection works without them, too.
            let _ = stream.set_nodelay(true);
            let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
            let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE);
            let _ = sockopt::set_socket_keepalive(stream, true);
        }
        let side = |stream| Side { stream, readable: false, writable: false };
        Self {
            client: side(client),
            container: side(container),
            connecting: true,
            up: Flow::Open,
            down: Flow::Open,
        }
    }

    pub(super) fn stream(&self, end: End) -> &TcpStream {
        match end {
            End::Client => &self.client.stream,
            End::Container => &self.container.stream,
        }
    }

    /// Remembers what the kernel told of an end.
    pub(super) fn told(&mut self, end: End, readable: bool, writable: bool) {
        let side = match end {
            End::Client => &mut self.client,
            End::Container => &mut self.container,
        };
        side.readable |= readable;
        side.writable |= writable;
    }

    /// Passes on what can be.
    pub(super) fn turn(&mut self, buffer: &mut [u8]) -> Turn {
        if self.connecting {
            if !self.container.writable {
                return Turn::Waits;
            }
            if !matches!(self.container.stream.take_error(), Ok(None)) {
                refuse(&self.client.stream);
                return Turn::Over;
            }
            self.connecting = false;
        }
        for _ in 0..ROUNDS {
            let up = pass(&mut self.up, &mut self.client, &mut self.container, buffer);
            let down = pass(&mut self.down, &mut self.container, &mut self.client, buffer);
            let (Ok(up), Ok(down)) = (up, down) else { return Turn::Over };
            if self.up == Flow::Done && self.down == Flow::Done {
                return Turn::Over;
            }
            if !up && !down {
                return Turn::Waits;
            }
        }
        Turn::GoesOn
    }
}

/// Lets the client see, when it is dropped, that nobody is there, instead of an answer without
/// bytes.
pub(super) fn refuse(client: &TcpStream) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

/// Passes one buffer on, and says whether there was anything to do. The error is for a sender that
/// is gone: nobody is left who would take an answer.
fn pass(flow: &mut Flow, from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> io::Result<bool> {
    if *flow == Flow::Done || !from.readable || !to.writable {
        return Ok(false);
    }
    let count = match from.stream.peek(buffer) {
        Ok(0) => {
            // Fails only when the receiver is gone, which the other direction finds.
            let _ = to.stream.shutdown(Shutdown::Write);
            *flow = Flow::Done;
            return Ok(true);
        }
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            from.readable = false;
            return Ok(false);
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
        Err(error) => return Err(error),
    };
    match to.stream.write(&buffer[..count]) {
        Ok(written) => drop_read(&from.stream, &mut buffer[..written])?,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            to.writable = false;
            return Ok(false);
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        Err(_) => {
            // It takes no more, but what it sent before may still be here.
            let _ = from.stream.shutdown(Shutdown::Read);
            *flow = Flow::Done;
        }
    }
    Ok(true)
}

/// Drops as many bytes as `read` is long from the receive buffer.
fn drop_read(stream: &TcpStream, mut read: &mut [u8]) -> io::Result<()> {
    while !read.is_empty() {
        let (_, count) = recv(stream, &mut *read, RecvFlags::TRUNC)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        read = &mut read[count..];
    }
    Ok(())
}
