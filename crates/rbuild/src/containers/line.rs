//! Ways to a process that runs, for other threads than the one that waits for it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use rbuild_container::{Connection, ContainerError};
use rbuild_sandbox::Signaller;
use rustix::termios::{Winsize, tcsetwinsize};

/// What a terminal takes as the end of the input: Ctrl-D.
const END: u8 = 4;

/// A line to a process, for orders.
#[derive(Debug)]
pub struct Line(Orders);

#[derive(Debug)]
enum Orders {
    /// To the container's own process.
    Supervisor(Connection),
    /// To one that was started here.
    Process { signals: Signaller, terminal: Option<OwnedFd> },
}

impl Line {
    pub(super) fn to_supervisor(connection: Connection) -> Self {
        Self(Orders::Supervisor(connection))
    }

    pub(super) fn to_process(signals: Signaller, terminal: Option<OwnedFd>) -> Self {
        Self(Orders::Process { signals, terminal })
    }

    /// Sends a signal by number. One that does not exist, or a process that has ended, is no
    /// error.
    pub fn send(&self, signal: i32) {
        match &self.0 {
            Orders::Supervisor(connection) => {
                if let Ok(signal) = u8::try_from(signal) {
                    let _ = connection.signal(signal);
                }
            }
            Orders::Process { signals, .. } => {
                let _ = signals.send(signal);
            }
        }
    }

    /// Tells the process' terminal its size; one that has none is left alone.
    pub fn resize(&self, rows: u16, columns: u16) {
        match &self.0 {
            Orders::Supervisor(connection) => {
                let _ = connection.resize(rows, columns);
            }
            Orders::Process { terminal, .. } => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                let _ = terminal.as_ref().map(|terminal| tcsetwinsize(terminal, size));
            }
        }
    }
}

/// The standard input of a process.
#[derive(Debug)]
pub struct Input(Sink);

#[derive(Debug)]
enum Sink {
    /// Of the container's own process, which the supervisor passes on.
    Supervisor(rbuild_container::Input),
    Pipe(File),
    Terminal(File),
}

impl Input {
    pub(super) fn supervisor(input: rbuild_container::Input) -> Self {
        Self(Sink::Supervisor(input))
    }

    pub(super) fn pipe(pipe: OwnedFd) -> Self {
        Self(Sink::Pipe(pipe.into()))
    }

    pub(super) fn terminal(terminal: OwnedFd) -> Self {
        Self(Sink::Terminal(terminal.into()))
    }

    /// Passes bytes on, as the process reads.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`] when it reads no more.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ContainerError> {
        match &mut self.0 {
            Sink::Supervisor(input) => input.write(bytes),
            Sink::Pipe(file) | Sink::Terminal(file) => Ok(file.write_all(bytes)?),
        }
    }

    /// Says that there is no more.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Io`] when the process has ended.
    pub fn close(self) -> Result<(), ContainerError> {
        match self.0 {
            Sink::Supervisor(input) => input.close(),
            Sink::Pipe(_) => Ok(()),
            Sink::Terminal(mut file) => Ok(file.write_all(&[END])?),
        }
    }
}
