//! The side of whoever wants something of a running container.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rbuild_sandbox::{Exit, StartFailure};
use rbuild_types::Stream;
use serde::de::DeserializeOwned;

use crate::frame::{self, Kind};
use crate::network::Joining;
use crate::orders::StopOrder;
use crate::{Allowance, ContainerError, Stop};

/// The name of the socket in a container's directory.
pub(crate) const SOCKET: &str = "socket";
/// How much of the input goes into one frame.
const BLOCK: usize = 64 << 10;

/// A line to the supervisor of a running container.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
}

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The process runs: its number on the host.
    Started(u32),
    /// It could not be started.
    Failed(StartFailure),
    /// It wrote something.
    Output(Stream, Vec<u8>),
    /// The container ended.
    Ended(Exit),
    /// An order was carried out.
    Done,
    /// An order could not be carried out, and why.
    Refused(String),
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Connects to the supervisor of the container in `directory`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NotRunning`] when there is none.
    pub fn open(directory: &Path) -> Result<Self, ContainerError> {
        let connect = || {
            // The path of a socket may have 107 bytes, which a store's path uses up soon.
            let held = fs_err::File::open(directory)?;
            UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", held.file().as_raw_fd()))
        };
        match connect() {
            Ok(stream) => Ok(Self { stream }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ContainerError::NotRunning)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks for what the process writes from now on.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`].
    pub fn attach(&self) -> Result<(), ContainerError> {
        Ok(frame::write(&self.stream, Kind::Attach, &[])?)
    }

    /// Another end for another thread, which passes input on. Only one may be used at a time.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`].
    pub fn input(&self) -> Result<Input, ContainerError> {
        Ok(Input { stream: self.stream.try_clone()? })
    }

    /// The next thing that the supervisor says; `None` when it hung up.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`].
    pub fn next_message(&self) -> Result<Option<Message>, ContainerError> {
        let Some((kind, content)) = frame::read(&self.stream)? else { return Ok(None) };
        let message = match kind {
            Kind::Started => Message::Started(json(&content)?),
            Kind::Failed => Message::Failed(json(&content)?),
            Kind::Output => Message::Output(Stream::Stdout, content),
            Kind::Error => Message::Output(Stream::Stderr, content),
            Kind::Ended => Message::Ended(json(&content)?),
            Kind::Done => Message::Done,
            Kind::Refused => Message::Refused(String::from_utf8_lossy(&content).into_owned()),
            _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        };
        Ok(Some(message))
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Start`] when it does not come to that.
    pub fn started(&self) -> Result<u32, ContainerError> {
        match self.next_message()? {
            Some(Message::Started(pid)) => Ok(pid),
            Some(Message::Failed(failure)) => Err(ContainerError::Start(failure)),
            _ => Err(ContainerError::NoAnswer),
        }
    }

    /// Waits until the container has ended, giving what it writes to `output` (once attached).
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoAnswer`] when its supervisor was killed.
    pub fn ended(&self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<Exit, ContainerError> {
        loop {
            if let Some(exit) = self.end(output)? {
                return Ok(exit);
            }
        }
    }

    /// The next message, if that is the end; what else it is goes to `output`, or is passed over.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoAnswer`] when its supervisor was killed.
    pub fn end(
        &self,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Option<Exit>, ContainerError> {
        match self.next_message()? {
            Some(Message::Output(stream, bytes)) => output(stream, &bytes),
            Some(Message::Ended(exit)) => return Ok(Some(exit)),
            Some(Message::Failed(failure)) => return Err(ContainerError::Start(failure)),
            Some(Message::Refused(why)) => return Err(ContainerError::Refused(why)),
            // It is started again.
            Some(Message::Started(_) | Message::Done) => {}
            None => return Err(ContainerError::NoAnswer),
        }
        Ok(None)
    }

    /// Sends a signal, by number, to the process.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when there is no such signal.
    pub fn signal(&self, signal: u8) -> Result<(), ContainerError> {
        self.order(Kind::Signal, &[signal])
    }

    /// Tells the terminal its size.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when the container has none.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), ContainerError> {
        let ([a, b], [c, d]) = (rows.to_le_bytes(), columns.to_le_bytes());
        self.order(Kind::Resize, &[a, b, c, d])
    }

    /// Lets the container join a network.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when it is in that already, or cannot be.
    pub fn join(&self, joining: &Joining) -> Result<(), ContainerError> {
        self.order(Kind::Join, &serde_json::to_vec(joining).map_err(io::Error::from)?)
    }

    /// Lets the container leave the network of this name, if it is in that.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when the kernel does not let it.
    pub fn leave(&self, network: &str) -> Result<(), ContainerError> {
        self.order(Kind::Leave, network.as_bytes())
    }

    /// Lets the container use more or less, now and when it is started again by its restart policy.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when that cannot be.
    pub fn allow(&self, allowance: &Allowance) -> Result<(), ContainerError> {
        self.order(Kind::Allow, &serde_json::to_vec(allowance).map_err(io::Error::from)?)
    }

    /// Holds all processes of the container.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when they are held already, or the kernel refuses.
    pub fn pause(&self) -> Result<(), ContainerError> {
        self.order(Kind::Pause, &[])
    }

    /// Holds them until that is dropped, or this process ends.
    ///
    /// # Errors
    ///
    /// As [`Connection::pause`].
    pub fn hold(self) -> Result<Held, ContainerError> {
        self.order(Kind::Hold, &[])?;
        Ok(Held { connection: self })
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] when they are not held.
    pub fn unpause(&self) -> Result<(), ContainerError> {
        self.order(Kind::Unpause, &[])
    }

    /// Stops the container and waits until it has ended. With `keep` it stays although it goes when
    /// it ends, to be started again.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoAnswer`] when its supervisor was killed.
    pub fn stop(&self, stop: Stop, keep: bool) -> Result<Exit, ContainerError> {
        let stop = serde_json::to_vec(&StopOrder { stop, keep }).map_err(io::Error::from)?;
        // It may just have ended; then that is the next message.
        let _ = frame::write(&self.stream, Kind::Stop, &stop);
        self.ended(&mut |_, _| {})
    }

    fn order(&self, kind: Kind, content: &[u8]) -> Result<(), ContainerError> {
        frame::write(&self.stream, kind, content)?;
        loop {
            match self.next_message()? {
                Some(Message::Done) => return Ok(()),
                Some(Message::Refused(why)) => return Err(ContainerError::Refused(why)),
                Some(Message::Ended(_) | Message::Failed(_)) => {
                    return Err(ContainerError::NotRunning);
                }
                Some(Message::Started(_) | Message::Output(..)) => {}
                None => return Err(ContainerError::NoAnswer),
            }
        }
    }
}

/// A container that is held. Dropped, it goes on.
#[derive(Debug)]
pub struct Held {
    connection: Connection,
}

impl Drop for Held {
    fn drop(&mut self) {
        // The supervisor hangs up too, once it has let the container go on.
        let _ = self.connection.stream.shutdown(Shutdown::Write);
        while let Ok(Some(_)) = self.connection.next_message() {}
    }
}

/// Passes input on to a container.
#[derive(Debug)]
pub struct Input {
    stream: UnixStream,
}

impl Input {
    /// Passes bytes on; returns when the supervisor has taken them, which it does as the process
    /// reads.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`] when the container has ended.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        for block in bytes.chunks(BLOCK) {
            frame::write(&self.stream, Kind::Input, block)?;
        }
        Ok(())
    }

    /// Says that there is no more.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`] when the container has ended.
    pub fn close(self) -> Result<(), ContainerError> {
        Ok(frame::write(&self.stream, Kind::EndOfInput, &[])?)
    }
}

fn json<T: DeserializeOwned>(content: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(content)?)
}

impl AsFd for Connection {
    /// Readable when there is a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
