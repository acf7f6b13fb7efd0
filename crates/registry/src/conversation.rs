//! Two-way connections, for protocols in which both sides take turns: git's own.
//!
//! A call sends or receives some bytes and returns; between calls nothing happens. What
//! `fetch.rs` promises of the other side holds here too: an answer that does not come, or comes
//! too slowly, ends the call, and so does cancellation. Nothing is tried again: what was said
//! cannot be taken back.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rbuild_types::{Ctx, Event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::blob::REPORT_EVERY;
use crate::ssh::Line;
use crate::text::printable;
use crate::{BlobSink, Registry, RegistryError, RegistryOptions, SshCommand, SshLogin, SshPlace};

/// Bytes that one call receives at most.
const CHUNK: usize = 64 << 10;

/// An open connection.
pub struct Conversation {
    registry: Registry,
    stream: Option<Stream>,
    subject: String,
    /// As messages name it.
    host: String,
    pace: Pace,
}

/// What the bytes go through.
enum Stream {
    Tcp(TcpStream),
    Ssh(Box<Line>),
}

/// How fast an answer comes.
#[derive(Default)]
struct Pace {
    /// Whether it has begun.
    begun: bool,
    bytes: u64,
    waited: Duration,
}

impl Registry {
    /// Connects to a port of a host, whose name may be an address in brackets; `subject` is what
    /// errors say is fetched there.
    ///
    /// # Errors
    /// [`RegistryError::Connection`] and [`RegistryError::Cancelled`].
    pub fn connect(
        &self,
        host: &str,
        port: u16,
        subject: &str,
        ctx: Ctx<'_>,
    ) -> Result<Conversation, RegistryError> {
        let stream = Stream::Tcp(self.dial(host, port, subject, ctx)?);
        Ok(self.conversation(stream, host, port, subject))
    }

    /// Starts a program on an SSH server, and talks to it as [`Registry::connect`] would.
    ///
    /// # Errors
    /// [`RegistryError::HostKey`] for a server that is not known, [`RegistryError::Login`] for one
    /// that does not let the user in, and those of [`Registry::connect`].
    pub fn execute(
        &self,
        place: SshPlace,
        login: SshLogin,
        command: SshCommand,
        ctx: Ctx<'_>,
    ) -> Result<Conversation, RegistryError> {
        let SshPlace { host, port, subject } = place.clone();
        let stream = self.dial(&host, port, &subject, ctx)?;
        let options = &self.inner.client.options;
        let (limit, files) = (options.answer_timeout, options.known_hosts.clone());
        let line = self.inner.runtime.run(ctx.cancel, async move {
            let stalled = RegistryError::Stalled {
                subject: place.subject.clone(),
                host: printable(&place.host),
                waited: limit,
            };
            let opened = timeout(limit, Line::open(stream, place, &files, login, command)).await;
            opened.unwrap_or(Err(stalled))
        })?;
        Ok(self.conversation(Stream::Ssh(Box::new(line)), &host, port, &subject))
    }

    fn dial(
        &self,
        host: &str,
        port: u16,
        subject: &str,
        ctx: Ctx<'_>,
    ) -> Result<TcpStream, RegistryError> {
        let place = format!("{}:{port}", printable(host));
        let wrong = {
            let (subject, host) = (subject.to_owned(), place.clone());
            move |reason: String| RegistryError::Connection { subject, host, reason }
        };
        let options = &self.inner.client.options;
        let (limit, known) = (options.connect_timeout, options.resolve.get(host).copied());
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        self.inner.runtime.run(ctx.cancel, async move {
            match timeout(limit, open(name, port, known)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(wrong(printable(&error.to_string()))),
                Err(_) => Err(wrong(format!("no connection within {} s", limit.as_secs()))),
            }
        })
    }

    fn conversation(&self, stream: Stream, host: &str, port: u16, subject: &str) -> Conversation {
        Conversation {
            registry: self.clone(),
            stream: Some(stream),
            subject: subject.to_owned(),
            host: format!("{}:{port}", printable(host)),
            pace: Pace::default(),
        }
    }
}

async fn open(name: String, port: u16, known: Option<SocketAddr>) -> io::Result<TcpStream> {
    if let Some(address) = known {
        return TcpStream::connect(address).await;
    }
    let mut last = io::Error::other("the name has no address");
    for address in lookup_host((name, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

enum Action {
    Send(Vec<u8>),
    Finish,
    Receive,
}

impl Action {
    async fn take(self, stream: &mut Stream) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        match (self, stream) {
            (Self::Send(bytes), Stream::Tcp(stream)) => stream.write_all(&bytes).await?,
            (Self::Send(bytes), Stream::Ssh(line)) => line.send(bytes).await?,
            (Self::Finish, Stream::Tcp(stream)) => stream.shutdown().await?,
            (Self::Finish, Stream::Ssh(line)) => line.finish().await?,
            (Self::Receive, Stream::Tcp(stream)) => {
                received.reserve(CHUNK);
                stream.read_buf(&mut received).await?;
            }
            (Self::Receive, Stream::Ssh(line)) => received = line.receive().await?,
        }
        Ok(received)
    }
}

impl Conversation {
    /// Sends bytes; an answer may follow.
    ///
    /// # Errors
    /// [`RegistryError::Connection`], [`RegistryError::Stalled`], [`RegistryError::Cancelled`].
    pub fn send(&mut self, bytes: Vec<u8>, ctx: Ctx<'_>) -> Result<(), RegistryError> {
        self.pace = Pace::default();
        let limit = self.options().answer_timeout;
        self.step(Action::Send(bytes), limit, ctx).map(drop)
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// As [`Conversation::send`].
    pub fn finish(&mut self, ctx: Ctx<'_>) -> Result<(), RegistryError> {
        let limit = self.options().answer_timeout;
        self.step(Action::Finish, limit, ctx).map(drop)
    }

    /// Receives some bytes; none when the other side has finished.
    ///
    /// # Errors
    /// As [`Conversation::send`].
    pub fn receive(&mut self, ctx: Ctx<'_>) -> Result<Vec<u8>, RegistryError> {
        let options = self.options();
        let (window, rate) = (options.idle_timeout, options.idle_rate);
        let limit = if self.pace.begun { window } else { options.answer_timeout };
        let start = Instant::now();
        let bytes = self.step(Action::Receive, limit, ctx)?;
        self.pace.bytes += bytes.len() as u64;
        if self.pace.begun {
            self.pace.waited += start.elapsed();
        }
        self.pace.begun = true;
        if self.pace.waited >= window {
            if self.pace.bytes < rate.saturating_mul(window.as_secs()) {
                return Err(self.stalled(window));
            }
            self.pace = Pace { begun: true, ..Pace::default() };
        }
        Ok(bytes)
    }

    /// Receives all that is left into `sink`, and reports how much it is.
    ///
    /// # Errors
    /// [`RegistryError::Sink`] when `sink` refused, else as [`Conversation::send`].
    pub fn receive_rest(
        &mut self,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), RegistryError> {
        let (mut total, mut reported) = (0, None::<Instant>);
        loop {
            let bytes = self.receive(ctx)?;
            let done = bytes.is_empty();
            total += bytes.len() as u64;
            if done || reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
                reported = Some(Instant::now());
                let name = self.subject.clone();
                ctx.report(Event::Transferred { name, bytes: total, total: None, done });
            }
            if done {
                return Ok(());
            }
            let refused = |source| RegistryError::Sink { subject: self.subject.clone(), source };
            sink.write(&bytes).map_err(refused)?;
        }
    }

    /// Does one thing with the stream, which is lost when that fails.
    fn step(
        &mut self,
        action: Action,
        limit: Duration,
        ctx: Ctx<'_>,
    ) -> Result<Vec<u8>, RegistryError> {
        let Some(mut stream) = self.stream.take() else {
            return Err(self.broken("the connection was broken off"));
        };
        let (stream, done) = self.registry.inner.runtime.run(ctx.cancel, async move {
            let done = timeout(limit, action.take(&mut stream)).await;
            Ok((stream, done))
        })?;
        match done {
            Ok(Ok(bytes)) => {
                self.stream = Some(stream);
                Ok(bytes)
            }
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(self.stalled(limit)),
        }
    }

    fn options(&self) -> &RegistryOptions {
        &self.registry.inner.client.options
    }

    fn broken(&self, reason: &str) -> RegistryError {
        let (subject, host) = (self.subject.clone(), self.host.clone());
        RegistryError::Connection { subject, host, reason: printable(reason) }
    }

    fn stalled(&self, waited: Duration) -> RegistryError {
        let (subject, host) = (self.subject.clone(), self.host.clone());
        RegistryError::Stalled { subject, host, waited }
    }
}
