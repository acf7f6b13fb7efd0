//! The network's side of one blob's upload.
//!
//! `POST` begins a session, whose place is in `Location`; one `PUT` brings all bytes. After a
//! broken body the session is asked how far it is, and the rest is sent from there. Not every
//! registry can say (Docker's own forgets a session whose body broke): then a new one begins. A
//! server that refuses so large a request (413) gets the blob in parts.

use std::ops::Range;

use rbuild_types::Digest;
use reqwest::header::{LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode};

use crate::RegistryError;
use crate::exchange::{
    Access, Answered, Client, Content, Direction, Errand, Outgoing, Spot, Target,
};
use crate::feed::Feed;
use crate::manifest::named_digest;
use crate::push::Pushed;
use crate::retry::{Attempts, Failure, Retry};

const OCTETS: &str = "application/octet-stream";
/// Bytes of a part, where a server does not take a blob at once: below the limit of every proxy
/// that is known to have one, above the least that any store of objects wants.
const PART: u64 = 16 << 20;

/// What is uploaded.
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) access: Access,
}

/// An upload that has begun.
#[derive(Debug, Clone)]
struct Session {
    spot: Spot,
    /// Bytes that the registry has.
    offset: u64,
    /// Bytes that it takes at once.
    part: u64,
}

/// What a `POST` led to.
enum Begun {
    Mounted,
    Session(Session),
}

impl Client {
    /// Sends the blob unless it is there, until it is.
    pub(crate) async fn push_blob(
        &self,
        errand: &Errand,
        blob: &Blob,
        feed: &Feed<Pushed>,
    ) -> Result<Pushed, RegistryError> {
        let mut attempts = Attempts::new(&self.options, false);
        let mut session = None;
        loop {
            match self.push_once(errand, blob, &mut session, feed).await {
                Ok(pushed) => return Ok(pushed),
                Err(failure) => {
                    attempts
                        .progress(session.as_ref().map_or(0, |session: &Session| session.offset));
                    attempts.wait_after(failure).await?;
                }
            }
        }
    }

    async fn push_once(
        &self,
        errand: &Errand,
        blob: &Blob,
        session: &mut Option<Session>,
        feed: &Feed<Pushed>,
    ) -> Result<Pushed, Failure> {
        // Also after a try that failed: perhaps only its answer was lost.
        if self.has_blob(errand, blob.digest, &blob.access).await? {
            return Ok(Pushed::Present);
        }
        let _permit = self.blob_permit(&errand.place, Direction::Up).await;
        if let Some(open) = session {
            match self.progress_of(errand, open, &blob.access).await {
                Ok(()) => {}
                Err(failure) if failure.retry == Retry::Never => *session = None,
                Err(failure) => return Err(failure),
            }
        }
        let open = match session {
            Some(open) => open,
            None => match self.begin(errand, blob.digest, &blob.access).await? {
                Begun::Mounted => return Ok(Pushed::Mounted),
                Begun::Session(begun) => session.insert(begun),
            },
        };
        let resumed = open.offset > 0;
        let mut sent = self.send_parts(errand, blob, open, feed).await;
        if let Err(failure) = &mut sent {
            let too_large = is_status(&failure.error, StatusCode::PAYLOAD_TOO_LARGE);
            if too_large && open.part > PART && blob.size > PART {
                open.part = PART;
                failure.retry = Retry::Later;
            } else if failure.retry == Retry::Never && resumed && is_answer(&failure.error) {
                // It said that it could go on, and cannot: from the beginning then.
                *session = None;
                failure.retry = Retry::Later;
            }
        }
        sent.map(|()| Pushed::Uploaded)
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(
        &self,
        errand: &Errand,
        digest: Digest,
        access: &Access,
    ) -> Result<bool, Failure> {
        let outgoing = Outgoing::new(Method::HEAD, format!("blobs/{digest}"), access.clone());
        match self.exchange(errand, &outgoing).await {
            Ok(_) => Ok(true),
            // A content server behind a redirect may refuse `HEAD`: then nobody knows, and an
            // upload says what is wrong, if anything is.
            Err(failure) if failure.retry == Retry::Never && is_answer(&failure.error) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Asks for a mount, and takes back the session that a registry begins instead.
    pub(crate) async fn mount(
        &self,
        errand: &Errand,
        digest: Digest,
        access: &Access,
    ) -> Result<bool, Failure> {
        match self.begin(errand, digest, access).await? {
            Begun::Mounted => Ok(true),
            Begun::Session(session) => {
                let outgoing = at(Method::DELETE, &session, access);
                // A registry that cannot forget it will do so later by itself.
                let _ = self.exchange(errand, &outgoing).await;
                Ok(false)
            }
        }
    }

    async fn begin(
        &self,
        errand: &Errand,
        digest: Digest,
        access: &Access,
    ) -> Result<Begun, Failure> {
        let path = match access {
            Access::Mount(from) => format!("blobs/uploads/?mount={digest}&from={from}"),
            Access::Any | Access::Pull | Access::Push => "blobs/uploads/".to_owned(),
        };
        let body = Body::default;
        let content = Content { media_type: OCTETS, first: None, size: 0, body: &body, pace: None };
        let outgoing = Outgoing {
            content: Some(content),
            ..Outgoing::new(Method::POST, path, access.clone())
        };
        let answered = self.exchange_at(errand, &outgoing).await?;
        if answered.response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let spot = self.next_spot(errand, &answered).await?;
        let spot = spot.ok_or_else(|| odd(errand, "it does not say where the upload goes on"))?;
        Ok(Begun::Session(Session { spot, offset: 0, part: u64::MAX }))
    }

    /// Asks how far an upload is.
    async fn progress_of(
        &self,
        errand: &Errand,
        session: &mut Session,
        access: &Access,
    ) -> Result<(), Failure> {
        let answered = self.exchange_at(errand, &at(Method::GET, session, access)).await?;
        let Some(offset) = received(&answered.response) else {
            return Err(odd(errand, "it does not say how far the upload is").into());
        };
        session.offset = offset;
        if let Some(spot) = self.next_spot(errand, &answered).await? {
            session.spot = spot;
        }
        Ok(())
    }

    /// Sends what is left, all but the last part by `PATCH`.
    async fn send_parts(
        &self,
        errand: &Errand,
        blob: &Blob,
        session: &mut Session,
        feed: &Feed<Pushed>,
    ) -> Result<(), Failure> {
        if session.offset > blob.size {
            return Err(odd(errand, "it claims to have more than was sent").into());
        }
        while blob.size - session.offset > session.part {
            let part = session.offset..session.offset + session.part;
            let outgoing = at(Method::PATCH, session, &blob.access);
            let answered = self.send_part(errand, blob, outgoing, part.clone(), feed).await?;
            let offset = received(&answered.response).unwrap_or(part.end);
            if offset <= part.start || offset > part.end {
                return Err(Failure::later(odd(errand, "a part of the upload got lost")));
            }
            session.offset = offset;
            if let Some(spot) = self.next_spot(errand, &answered).await? {
                session.spot = spot;
            }
        }
        let mut outgoing = at(Method::PUT, session, &blob.access);
        if let Target::Given(spot) = &mut outgoing.target {
            spot.url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        }
        let rest = session.offset..blob.size;
        let answered = self.send_part(errand, blob, outgoing, rest, feed).await?;
        match named_digest(answered.response.headers()) {
            Some(actual) if actual != blob.digest => Err(RegistryError::Stored {
                subject: errand.subject.clone(),
                host: answered.answered_by,
                actual,
            }
            .into()),
            _ => Ok(()),
        }
    }

    async fn send_part(
        &self,
        errand: &Errand,
        blob: &Blob,
        outgoing: Outgoing<'static>,
        part: Range<u64>,
        feed: &Feed<Pushed>,
    ) -> Result<Answered, Failure> {
        let size = part.end - part.start;
        let body = || feed.body(part.start, size);
        let content = Content {
            media_type: OCTETS,
            first: (size < blob.size).then_some(part.start),
            size,
            body: &body,
            pace: Some(&feed.pace),
        };
        self.exchange_at(errand, &Outgoing { content: Some(content), ..outgoing }).await
    }

    /// Where the upload goes on, if the answer says so.
    async fn next_spot(
        &self,
        errand: &Errand,
        answered: &Answered,
    ) -> Result<Option<Spot>, RegistryError> {
        match answered.response.headers().get(LOCATION) {
            Some(location) => self.spot(errand, answered, location).await.map(Some),
            None => Ok(None),
        }
    }
}

fn at(method: Method, session: &Session, access: &Access) -> Outgoing<'static> {
    let target = Target::Given(session.spot.clone());
    Outgoing { target, ..Outgoing::new(method, String::new(), access.clone()) }
}

/// How many bytes the registry has, by the `Range` of its answer. `0-0` is what registries say of
/// none.
fn received(response: &Response) -> Option<u64> {
    let text = response.headers().get(RANGE)?.to_str().ok()?;
    let last = text.trim_start_matches("bytes=").strip_prefix("0-")?.trim().parse::<u64>().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

fn odd(errand: &Errand, reason: &'static str) -> RegistryError {
    let (subject, host) = (errand.subject.clone(), errand.place.host.clone());
    RegistryError::Upload { subject, host, reason }
}

/// Whether the registry understood and said no, for a reason that is not about who asks.
fn is_answer(error: &RegistryError) -> bool {
    matches!(error, RegistryError::NotFound { .. } | RegistryError::Status { .. })
}

fn is_status(error: &RegistryError, status: StatusCode) -> bool {
    matches!(error, RegistryError::Status { answer, .. } if answer.status == status.as_u16())
}
