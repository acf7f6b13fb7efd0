//! Plain URLs: one request, its redirects, its body into a sink.
//!
//! What `blob.rs` and `exchange.rs` promise holds here too: tries again after a failure that may
//! pass, ends soon after cancellation, never holds more of a body than the window, and sends
//! credentials to the origin of the URL only, never again once a redirect has left it. Nobody
//! knows the body's digest beforehand, so a broken one starts again from its first byte.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use rbuild_types::{Ctx, Event};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    LAST_MODIFIED, LOCATION,
};
use reqwest::{Response, Url};

use crate::blob::REPORT_EVERY;
use crate::body::{Body, Limits};
use crate::exchange::Client;
use crate::place::Origin;
use crate::redirect::{self, MAX_REDIRECTS};
use crate::retry::{Attempts, Failure, by_status, retry_after};
use crate::runtime::{Message, Pipe};
use crate::text::printable;
use crate::transport::Proof;
use crate::{Answer, BlobSink, Registry, RegistryError, body};

/// What to ask for. Has no `Debug`: URL, headers and credentials may be secret.
#[derive(Clone, Default)]
pub struct Fetch {
    /// An `http` or `https` URL. A user and password in it are sent to its own origin only.
    pub url: String,
    /// What errors and progress call it; without secrets.
    pub subject: String,
    /// Name and value of further headers.
    pub headers: Vec<(String, String)>,
    /// Value of the `Authorization` header, for the URL's own origin.
    pub authorization: Option<String>,
    /// Sent by `POST` when there is one.
    pub body: Option<Vec<u8>>,
    /// Whether the body is sent by `PUT` instead.
    pub put: bool,
    /// Whether bytes are reported as progress.
    pub report: bool,
}

/// What the server said besides the body.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// Whether it is what the request's conditions say (304): there is no body then.
    pub not_modified: bool,
    /// The `ETag` header.
    pub etag: Option<String>,
    /// The `Last-Modified` header.
    pub last_modified: Option<String>,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The URL that answered in the end, without user and password.
    pub url: String,
    total: Option<u64>,
}

impl Registry {
    /// Downloads a URL into `sink`; on an error it may have any bytes. There is no limit to how
    /// many: the sink must know how much is too much.
    ///
    /// # Errors
    /// [`RegistryError::Status`] for an answer that is neither a success nor 304,
    /// [`RegistryError::Sink`] when `sink` refused, and any other [`RegistryError`].
    pub fn fetch(
        &self,
        fetch: &Fetch,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<Fetched, RegistryError> {
        let prepared = Prepared::new(fetch)?;
        let client = self.inner.client.clone();
        let head = Arc::new(Mutex::new(Fetched::default()));
        let shared = head.clone();
        let stream = self
            .inner
            .runtime
            .stream(|pipe| async move { client.send_fetch(&prepared, &pipe, &shared).await });
        let refused = |source| RegistryError::Sink { subject: fetch.subject.clone(), source };
        let seen = || head.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let report = |bytes, done| {
            if fetch.report {
                let (name, total) = (fetch.subject.clone(), seen().total);
                ctx.report(Event::Transferred { name, bytes, total, done });
            }
        };
        let (mut written, mut reported) = (0, None::<Instant>);
        loop {
            match stream.next(ctx.cancel)? {
                Message::Chunk(bytes) => {
                    sink.write(&bytes).map_err(refused)?;
                    written += bytes.len() as u64;
                    if reported.is_none_or(|last| last.elapsed() >= REPORT_EVERY) {
                        reported = Some(Instant::now());
                        report(written, false);
                    }
                }
                Message::Restart => {
                    written = 0;
                    sink.restart().map_err(refused)?;
                }
                Message::End(result) => {
                    result?;
                    report(written, true);
                    return Ok(seen());
                }
            }
        }
    }
}

/// A request that was understood.
struct Prepared {
    subject: String,
    url: Url,
    origin: Origin,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    body: Option<Vec<u8>>,
    put: bool,
}

impl Prepared {
    fn new(fetch: &Fetch) -> Result<Self, RegistryError> {
        let wrong = |host: &str, reason: &str| RegistryError::Connection {
            subject: fetch.subject.clone(),
            host: printable(host),
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(&fetch.url).map_err(|_| wrong("anywhere", "it is no URL"))?;
        let origin = Origin::of(&url).ok_or_else(|| wrong("anywhere", "it is no web URL"))?;
        let mut authorization = fetch.authorization.clone();
        if authorization.is_none() && (!url.username().is_empty() || url.password().is_some()) {
            let plain = |text| percent_decoded(text);
            let user = plain(url.username());
            let pair = [user, b":".to_vec(), plain(url.password().unwrap_or_default())].concat();
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            authorization = Some(format!("Basic {encoded}"));
        }
        // reqwest would send them wherever a redirect leads. Both fail only without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let mut headers = HeaderMap::new();
        for (name, text) in &fetch.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let (name, value) = name.zip(value(text)).ok_or_else(|| {
                wrong(&origin.host, "a header for it has bytes that none may have")
            })?;
            headers.append(name, value);
        }
        let authorization = match authorization {
            None => None,
            Some(text) => {
                let reason = "its credentials have bytes that no header may have";
                let mut value = value(&text).ok_or_else(|| wrong(&origin.host, reason))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let (subject, body) = (fetch.subject.clone(), fetch.body.clone());
        Ok(Self { subject, url, origin, headers, authorization, body, put: fetch.put })
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match decoded.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

impl Client {
    async fn send_fetch(
        &self,
        prepared: &Prepared,
        pipe: &Pipe,
        head: &Mutex<Fetched>,
    ) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(&self.options, false);
        loop {
            let mut sent = 0;
            match self.send_fetch_once(prepared, pipe, head, &mut sent).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    attempts.wait_after(failure).await?;
                    if sent > 0 {
                        pipe.restart()?;
                    }
                }
            }
        }
    }

    async fn send_fetch_once(
        &self,
        prepared: &Prepared,
        pipe: &Pipe,
        head: &Mutex<Fetched>,
        sent: &mut u64,
    ) -> Result<(), Failure> {
        let (response, host) = self.follow_fetch(prepared).await?;
        let not_modified = response.status().as_u16() == 304;
        if !response.status().is_success() && !not_modified {
            return Err(refusal(prepared, host, response).await);
        }
        let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        *head.lock().unwrap_or_else(PoisonError::into_inner) = Fetched {
            not_modified,
            etag: header(ETAG),
            last_modified: header(LAST_MODIFIED),
            content_type: header(CONTENT_TYPE),
            url: response.url().to_string(),
            total: response.content_length(),
        };
        if not_modified {
            return Ok(());
        }
        let limits = Limits::new(&self.options, &prepared.subject, &host);
        let mut body = Body::new(response, &limits);
        while let Some(bytes) = body.next().await? {
            *sent += bytes.len() as u64;
            pipe.send(bytes).await?;
        }
        Ok(())
    }

    /// Sends the request and follows redirects; also gives the host that answered.
    async fn follow_fetch(&self, prepared: &Prepared) -> Result<(Response, String), Failure> {
        let refused = |reason| RegistryError::Redirect {
            subject: prepared.subject.clone(),
            host: prepared.origin.host.clone(),
            reason,
        };
        let mut url = prepared.url.clone();
        let mut on_own_origin = true;
        for _ in 0..=MAX_REDIRECTS {
            let target = Origin::of(&url).ok_or_else(|| refused("it is no web URL".to_owned()))?;
            on_own_origin &= target == prepared.origin;
            // Registries that need not prove who they are say nothing about other servers.
            let http = self.transport.client(&self.options, &target, Proof::Certificate)?;
            let mut request = match &prepared.body {
                None => http.get(url.clone()),
                Some(body) if prepared.put => http.put(url.clone()).body(body.clone()),
                Some(body) => http.post(url.clone()).body(body.clone()),
            };
            // Content is what the server has, not a way to send it.
            request = request.header(ACCEPT_ENCODING, "identity").headers(prepared.headers.clone());
            if let Some(header) = prepared.authorization.as_ref().filter(|_| on_own_origin) {
                request = request.header(AUTHORIZATION, header.clone());
            }
            let response = self.send(&prepared.subject, &target.host, request, None).await?;
            let followed = match response.status().as_u16() {
                301..=303 => prepared.body.is_none(),
                307 | 308 => true,
                _ => false,
            };
            let location = response.headers().get(LOCATION).filter(|_| followed);
            let Some(location) = location else { return Ok((response, target.host)) };
            let plain = url.scheme() == "http";
            url = redirect::target(&self.options, &prepared.origin, &url, location, |_| plain)
                .map_err(refused)?;
        }
        Err(refused(format!("more than {MAX_REDIRECTS} redirects")).into())
    }
}

/// Turns an answer that is no success into an error.
async fn refusal(prepared: &Prepared, host: String, response: Response) -> Failure {
    let status = response.status();
    let retry = by_status(status, retry_after(response.headers()));
    let detail = body::error_detail(response).await;
    let answer = Answer { status: status.as_u16(), detail };
    let subject = prepared.subject.clone();
    Failure { error: RegistryError::Status { subject, host, answer }, retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_urls_become_a_header() {
        let fetch = Fetch { url: "http://me:a%40b@h/x".to_owned(), ..Fetch::default() };
        let prepared = Prepared::new(&fetch).ok().unwrap();
        assert_eq!(prepared.authorization.unwrap(), "Basic bWU6YUBi");
        assert_eq!(prepared.url.as_str(), "http://h/x");
        assert_eq!(percent_decoded("%4%zz%41%"), b"%4%zzA%");
    }
}
