//! Sends blobs and manifests to a registry.
//!
//! A push goes to the registry itself, never to a mirror. A blob that is there is not sent; one
//! that another repository of the registry has is mounted; else it is uploaded (`upload.rs`),
//! its bytes read on the caller's thread as the network takes them (`feed.rs`). A manifest is
//! refused by registries before all that it names is there, so blobs come first.

use std::io::{self, Read};
use std::time::Instant;

use bytes::Bytes;
use rbuild_types::{Ctx, Digest, Event, Reference};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Body, Method};

use crate::blob::{REPORT_EVERY, transfer_name};
use crate::exchange::{Access, Client, Content, Errand, Outgoing};
use crate::feed::{Ask, Feed, Reading};
use crate::manifest::named_digest;
use crate::place;
use crate::retry::{Attempts, Failure};
use crate::upload::Blob;
use crate::{Registry, RegistryError};

/// A blob to be pushed, and where its bytes are.
pub struct Upload<'a> {
    /// Digest of the bytes. The registry checks it.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
    /// Another repository that may have the blob; of use where it is on the same registry.
    pub mount_from: Option<&'a Reference>,
    /// Opens the bytes from an offset on; called again for each time that they are sent. It is
    /// called, and the reader used, on the caller's thread.
    pub open: &'a dyn Fn(u64) -> io::Result<Box<dyn Read + 'a>>,
}

/// How a blob came to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Registry {
    /// Whether the repository has the blob. Mirrors are not asked.
    ///
    /// # Errors
    /// Any [`RegistryError`]; a registry that cannot be asked so is taken for one that has not.
    pub fn blob_exists(
        &self,
        repository: &Reference,
        digest: Digest,
        ctx: Ctx<'_>,
    ) -> Result<bool, RegistryError> {
        let (client, errand) = (self.inner.client.clone(), self.errand(repository, digest)?);
        self.inner.runtime.run(ctx.cancel, async move {
            let mut attempts = Attempts::new(&client.options, false);
            attempts.repeat(|| client.has_blob(&errand, digest, &Access::Push)).await
        })
    }

    /// Asks the registry to take the blob from another of its repositories, and says whether it
    /// did. `false` also where `from` is on another registry.
    ///
    /// # Errors
    /// Any [`RegistryError`].
    pub fn mount_blob(
        &self,
        repository: &Reference,
        digest: Digest,
        from: &Reference,
        ctx: Ctx<'_>,
    ) -> Result<bool, RegistryError> {
        let (client, errand) = (self.inner.client.clone(), self.errand(repository, digest)?);
        let Some(access) = self.mount(&errand, Some(from))? else { return Ok(false) };
        self.inner.runtime.run(ctx.cancel, async move {
            let mut attempts = Attempts::new(&client.options, false);
            attempts.repeat(|| client.mount(&errand, digest, &access)).await
        })
    }

    /// Makes sure that the repository has the blob: looks, mounts, and uploads if it must.
    ///
    /// A transfer that breaks is tried again, from where the registry says that it is, if it says
    /// so. Reports [`Event::Transferred`] while bytes are sent. May be called from several threads
    /// at once; `RegistryOptions::connections` limits how many uploads to one host run at a time.
    ///
    /// # Errors
    /// Any [`RegistryError`]; [`RegistryError::Source`] when the bytes could not be read or are
    /// too few.
    pub fn push_blob(
        &self,
        repository: &Reference,
        upload: &Upload<'_>,
        ctx: Ctx<'_>,
    ) -> Result<Pushed, RegistryError> {
        let (client, errand) = (self.inner.client.clone(), self.errand(repository, upload.digest)?);
        let subject = errand.subject.clone();
        let access = self.mount(&errand, upload.mount_from)?.unwrap_or(Access::Push);
        let blob = Blob { digest: upload.digest, size: upload.size, access };
        let talk = self.inner.runtime.talk(|sender| async move {
            let feed = Feed::new(sender.clone());
            let result = client.push_blob(&errand, &blob, &feed).await;
            // The caller may be gone; then nobody asks how it went.
            let _ = sender.send(Ask::End(result));
        });
        let name = format!("push {}", transfer_name(repository, upload.digest));
        let report = |bytes, done| {
            let (name, total) = (name.clone(), Some(upload.size));
            ctx.report(Event::Transferred { name, bytes, total, done });
        };
        let failed = |source| RegistryError::Source { subject: subject.clone(), source };
        let mut reading: Option<Reading<'_>> = None;
        let mut reported = Instant::now();
        loop {
            match talk.next(ctx.cancel)? {
                Ask::Open(order) => {
                    reading = Some(Reading::open(order, upload.open).map_err(failed)?);
                }
                Ask::Room(number) => {
                    if let Some(reading) = &mut reading {
                        reading.left(number);
                    }
                }
                Ask::End(result) => {
                    let pushed = result?;
                    if pushed == Pushed::Uploaded {
                        report(upload.size, true);
                    }
                    return Ok(pushed);
                }
            }
            let Some(reading) = &mut reading else { continue };
            while reading.step().map_err(failed)? {
                ctx.cancel.check()?;
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                report(reading.at(), false);
            }
        }
    }

    /// Puts a manifest or an index, under the reference's tag, or under its digest if it has no
    /// tag. All that it names must be there, but for its subject. One that has a subject is in
    /// [`Registry::referrers`] afterwards.
    ///
    /// # Errors
    /// Any [`RegistryError`]; [`RegistryError::Stored`] when the registry, or the reference, names
    /// another digest than the bytes have.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
        ctx: Ctx<'_>,
    ) -> Result<Digest, RegistryError> {
        let place = place::own_place(&self.inner.client.options, reference)?;
        let errand = Errand::manifest(&place, reference);
        let digest = Digest::of(bytes);
        let (subject, host) = (errand.subject.clone(), place.host.clone());
        let stored = |actual| RegistryError::Stored { subject, host, actual };
        if let Some(other) = reference.digest().filter(|other| *other != digest) {
            return Err(stored(other));
        }
        let name = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, _) => digest.to_string(),
        };
        let (client, repository) = (self.inner.client.clone(), reference.clone());
        let (media_type, bytes) = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
        self.inner.runtime.run(ctx.cancel, async move {
            let mut attempts = Attempts::new(&client.options, false);
            let path = format!("manifests/{name}");
            let put = || client.put_manifest(&errand, &path, &media_type, &bytes, None);
            let headers = attempts.repeat(put).await?;
            if let Some(other) = named_digest(&headers).filter(|named| *named != digest) {
                return Err(stored(other));
            }
            client.list_referrer(&errand, &repository, &media_type, &bytes, &headers).await
        })?;
        Ok(digest)
    }

    fn errand(&self, repository: &Reference, digest: Digest) -> Result<Errand, RegistryError> {
        let place = place::own_place(&self.inner.client.options, repository)?;
        Ok(Errand::blob(&place, repository, digest))
    }

    /// The access that a mount needs, where one is possible.
    fn mount(
        &self,
        to: &Errand,
        from: Option<&Reference>,
    ) -> Result<Option<Access>, RegistryError> {
        let Some(from) = from else { return Ok(None) };
        let from = place::own_place(&self.inner.client.options, from)?;
        let possible = from.host == to.place.host && from.repository != to.place.repository;
        Ok(possible.then_some(Access::Mount(from.repository)))
    }
}

impl Client {
    /// Puts a manifest, in the place of `old` if that is said; the head of the answer.
    pub(crate) async fn put_manifest(
        &self,
        errand: &Errand,
        path: &str,
        media_type: &str,
        bytes: &Bytes,
        old: Option<&HeaderValue>,
    ) -> Result<HeaderMap, Failure> {
        let body = || Body::from(bytes.clone());
        let size = bytes.len() as u64;
        let content = Content { media_type, first: None, size, body: &body, pace: None };
        let outgoing = Outgoing {
            content: Some(content),
            if_match: old.cloned(),
            ..Outgoing::new(Method::PUT, path.to_owned(), Access::Push)
        };
        let response = self.exchange(errand, &outgoing).await?;
        Ok(response.headers().clone())
    }
}
