//! A connection of TCP: questions one after the other, each with its length before it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketType;

use super::message::{Question, Request, id, is_failure, random, set_id};
use super::{PATIENCE, Shared, local};
use crate::socket;

/// How long a client may be silent: what Docker's server (miekg/dns) allows.
const IDLE: Duration = Duration::from_secs(8);

/// Answers until the client is gone or silent, or the resolver ends.
pub(super) fn serve(client: TcpStream, shared: &Shared) {
    // Whatever ends it, nobody is left who would want to know.
    let _ = try_serve(client, shared);
}

fn try_serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let mut stream = Stream { stream: client, stop: &shared.stop, until: Instant::now() };
    loop {
        stream.until = Instant::now() + IDLE;
        let message = read(&mut stream)?;
        let reply = match Question::read(&message) {
            Request::Ignored => return Ok(()),
            Request::Refused(reply) => reply,
            Request::Query(question) => {
                let Shared { options, names, .. } = shared;
                match local::answer(&question, names.as_ref(), options, u16::MAX) {
                    Some(reply) => reply,
                    None => forward(&question, message, shared)?,
                }
            }
        };
        stream.until = Instant::now() + PATIENCE;
        write(&mut stream, &reply)?;
    }
}

/// Asks one server after the other.
fn forward(question: &Question, mut message: Vec<u8>, shared: &Shared) -> io::Result<Vec<u8>> {
    for server in &shared.options.servers {
        match exchange(*server, question, &mut message, &shared.stop) {
            Ok(answer) => return Ok(answer),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Err(error),
            // Whatever it was, the next may do better.
            Err(_) => {}
        }
    }
    Ok(question.failure(ResponseCode::ServFail))
}

fn exchange(
    server: SocketAddr,
    question: &Question,
    message: &mut [u8],
    stop: &OwnedFd,
) -> io::Result<Vec<u8>> {
    let socket = socket::open(&server, SocketType::STREAM)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut stream = Stream { stream: socket.into(), stop, until: Instant::now() + PATIENCE };
    stream.wait(PollFlags::OUT)?;
    if let Some(error) = stream.stream.take_error()? {
        return Err(error);
    }
    let number = random()?;
    set_id(message, number);
    write(&mut stream, message)?;
    let mut answer = read(&mut stream)?;
    match question.code_of(&answer) {
        Some(code) if id(&answer) == Some(number) && !is_failure(code) => {
            set_id(&mut answer, question.id);
            Ok(answer)
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn read(stream: &mut Stream<'_>) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = u16::from_be_bytes(length);
    let mut message = Vec::new();
    // Room is made as the bytes come.
    stream.take(length.into()).read_to_end(&mut message)?;
    match message.len() == usize::from(length) {
        true => Ok(message),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn write(stream: &mut Stream<'_>, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // At once, for those who read it at once.
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// A stream that does not block for longer than it may, and not once the resolver is to end.
struct Stream<'a> {
    stream: TcpStream,
    stop: &'a OwnedFd,
    until: Instant,
}

impl Stream<'_> {
    /// `ConnectionAborted` says that the resolver is to end.
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let stream = PollFd::from_borrowed_fd(self.stream.as_fd(), flags);
            let mut polled = [stream, PollFd::new(self.stop, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) if !polled[1].revents().is_empty() => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::IN)?,
                other => return other,
            }
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
