//! Streams blobs into a sink, verified on the way.
//!
//! The network thread fetches, retries and resumes; the caller's thread hashes, writes and
//! reports. Between them is a window of fixed size (`runtime.rs`), so memory stays flat however
//! slow the sink is. After a broken body the next request asks for the rest by `Range`. A server
//! that sends everything again makes the sink start again.

use std::io;
use std::time::{Duration, Instant};

use rbuild_types::{Ctx, Digest, Event, Hasher, Reference};
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Method, StatusCode};

use crate::body::{Body, Limits};
use crate::exchange::{Access, Client, Direction, Errand, Outgoing};
use crate::place::{Asked, Place};
use crate::retry::{Attempts, Failure, Retry};
use crate::runtime::{Message, Pipe};
use crate::{MAX_DOCUMENT, Registry, RegistryError};

/// Least time between two progress events of one blob.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Takes a blob's bytes in order.
pub trait BlobSink {
    /// Takes the next bytes, all of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Forgets all bytes: the next write is byte 0 again. Called when a server ignores `Range`,
    /// and when another mirror is tried.
    fn restart(&mut self) -> io::Result<()>;
}

impl BlobSink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Registry {
    /// Streams the blob `digest` of `repository` into `sink`.
    ///
    /// The digest, and `size` (bytes) if given, are verified; on `Ok` the sink has exactly the
    /// named bytes, on an error it may have any. Without a size the sink must know itself how
    /// much is too much. Reports [`Event::Transferred`]. May be called from several threads at
    /// once; `RegistryOptions::connections` limits how many blobs of one host move at a time.
    ///
    /// # Errors
    /// Any [`RegistryError`]; [`RegistryError::Sink`] when `sink` refused.
    pub fn blob(
        &self,
        repository: &Reference,
        digest: Digest,
        size: Option<u64>,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), RegistryError> {
        let mut transfer = Transfer {
            name: transfer_name(repository, digest),
            subject: format!("blob {digest} of {}", repository.repository()),
            digest,
            size,
            sink,
            hasher: Hasher::new(),
            written: 0,
            reported: None,
        };
        self.at_each_place(repository, Asked::Blob, ctx.cancel, |place| {
            if transfer.written > 0 {
                // Bytes of a place that failed may be wrong: the next must not be blamed for them.
                transfer.restart()?;
            }
            self.blob_from(place, repository, &mut transfer, ctx)
        })
    }

    /// Fetches a small blob, such as an image's config, into memory; at most [`MAX_DOCUMENT`].
    ///
    /// # Errors
    /// As [`Registry::blob`]; [`RegistryError::TooLarge`] above the limit.
    pub fn document(
        &self,
        repository: &Reference,
        digest: Digest,
        size: Option<u64>,
        ctx: Ctx<'_>,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge {
            subject: format!("blob {digest} of {}", repository.repository()),
            host: repository.host().to_owned(),
            limit: MAX_DOCUMENT,
        };
        if size.is_some_and(|size| size > MAX_DOCUMENT) {
            return Err(too_large());
        }
        let mut sink = Capped { bytes: Vec::new(), exceeded: false };
        match self.blob(repository, digest, size, &mut sink, ctx) {
            Err(RegistryError::Sink { .. }) if sink.exceeded => Err(too_large()),
            result => result.map(|()| sink.bytes),
        }
    }

    fn blob_from(
        &self,
        place: &Place,
        repository: &Reference,
        transfer: &mut Transfer<'_>,
        ctx: Ctx<'_>,
    ) -> Result<(), RegistryError> {
        let client = self.inner.client.clone();
        let errand = Errand::blob(place, repository, transfer.digest);
        let (digest, size) = (transfer.digest, transfer.size);
        let stream = self
            .inner
            .runtime
            .stream(|pipe| async move { client.send_blob(&errand, digest, size, &pipe).await });
        loop {
            match stream.next(ctx.cancel)? {
                Message::Chunk(bytes) => transfer.write(&bytes, ctx)?,
                Message::Restart => transfer.restart()?,
                Message::End(result) => {
                    result?;
                    return transfer.finish(&place.host, ctx);
                }
            }
        }
    }
}

/// A sink in memory with a limit.
struct Capped {
    bytes: Vec<u8>,
    exceeded: bool,
}

impl BlobSink for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if (self.bytes.len() + bytes.len()) as u64 > MAX_DOCUMENT {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}

/// The caller's side of one blob.
struct Transfer<'a> {
    /// What progress events call it.
    name: String,
    /// What errors call it.
    subject: String,
    digest: Digest,
    size: Option<u64>,
    sink: &'a mut dyn BlobSink,
    hasher: Hasher,
    written: u64,
    reported: Option<Instant>,
}

impl Transfer<'_> {
    fn write(&mut self, bytes: &[u8], ctx: Ctx<'_>) -> Result<(), RegistryError> {
        self.hasher.update(bytes);
        let written = self.sink.write(bytes);
        written.map_err(|source| RegistryError::Sink { subject: self.subject.clone(), source })?;
        self.written += bytes.len() as u64;
        if self.reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            self.report(false, ctx);
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), RegistryError> {
        self.hasher = Hasher::new();
        self.written = 0;
        let restarted = self.sink.restart();
        restarted.map_err(|source| RegistryError::Sink { subject: self.subject.clone(), source })
    }

    fn finish(&mut self, host: &str, ctx: Ctx<'_>) -> Result<(), RegistryError> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual != self.digest {
            return Err(RegistryError::DigestMismatch {
                subject: self.subject.clone(),
                host: host.to_owned(),
                expected: self.digest,
                actual,
            });
        }
        self.report(true, ctx);
        Ok(())
    }

    fn report(&self, done: bool, ctx: Ctx<'_>) {
        let (name, bytes, total) = (self.name.clone(), self.written, self.size);
        ctx.report(Event::Transferred { name, bytes, total, done });
    }
}

pub(crate) fn transfer_name(repository: &Reference, digest: Digest) -> String {
    let name = repository.familiar_name();
    match repository.tag() {
        Some(tag) => format!("{name}:{tag} sha256:{}", digest.short()),
        None => format!("{name} sha256:{}", digest.short()),
    }
}

impl Client {
    /// The network's side of one blob at one place: sends bytes until they are complete.
    async fn send_blob(
        &self,
        errand: &Errand,
        digest: Digest,
        size: Option<u64>,
        pipe: &Pipe,
    ) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(&self.options, errand.place.has_successor);
        let mut sent = 0;
        loop {
            match self.send_blob_once(errand, digest, size, &mut sent, pipe).await {
                Ok(()) => return Ok(()),
                // Only the end mark was lost; the caller checks the digest.
                Err(failure) if size == Some(sent) && failure.retry != Retry::Never => {
                    return Ok(());
                }
                Err(failure) => {
                    attempts.progress(sent);
                    attempts.wait_after(failure).await?;
                }
            }
        }
    }

    async fn send_blob_once(
        &self,
        errand: &Errand,
        digest: Digest,
        size: Option<u64>,
        sent: &mut u64,
        pipe: &Pipe,
    ) -> Result<(), Failure> {
        let Errand { subject, place } = errand;
        let _permit = self.blob_permit(place, Direction::Down).await;
        let path = format!("blobs/{digest}");
        let outgoing = Outgoing { from: *sent, ..Outgoing::new(Method::GET, path, Access::Pull) };
        let response = self.exchange(errand, &outgoing).await?;
        let wrong_size = |expected, actual| {
            let (subject, host) = (subject.clone(), place.host.clone());
            Failure::from(RegistryError::SizeMismatch { subject, host, expected, actual })
        };
        let continued = response.status() == StatusCode::PARTIAL_CONTENT
            && range_start(response.headers()) == Some(*sent);
        if !continued {
            if *sent > 0 {
                *sent = 0;
                pipe.restart()?;
            }
            if response.status() != StatusCode::OK {
                return Err(Failure::later(RegistryError::Connection {
                    subject: subject.clone(),
                    host: place.host.clone(),
                    reason: format!("it does not send the part asked for ({})", response.status()),
                }));
            }
        }
        if let (Some(size), Some(rest)) = (size, response.content_length())
            && sent.saturating_add(rest) != size
        {
            return Err(wrong_size(size, sent.saturating_add(rest)));
        }
        let limits = Limits::new(&self.options, subject, &place.host);
        let mut body = Body::new(response, &limits);
        while let Some(bytes) = body.next().await? {
            let received = *sent + bytes.len() as u64;
            if let Some(size) = size.filter(|size| received > *size) {
                return Err(wrong_size(size, received));
            }
            pipe.send(bytes).await?;
            *sent = received;
        }
        match size {
            // Without Content-Length a cut connection looks like an end.
            Some(size) if *sent < size => {
                let mut failure = wrong_size(size, *sent);
                failure.retry = Retry::Later;
                Err(failure)
            }
            _ => Ok(()),
        }
    }
}

/// First byte of a `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}
