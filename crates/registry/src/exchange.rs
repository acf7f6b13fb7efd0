//! One request to a registry: origin, authorization, redirects.
//!
//! Authorization is attached here and nowhere else, per hop: only to a URL of the registry's own
//! origin, and never again once a redirect has left it. Pushes send their requests through the same
//! door, because an upload's `Location` is as untrusted as a redirect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_types::{Digest, Reference};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, IF_MATCH,
    LOCATION, RANGE,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Authenticator, Demand};
use crate::feed::Pace;
use crate::place::{Origin, Place};
use crate::redirect::{self, MAX_REDIRECTS};
use crate::retry::{Failure, by_status, retry_after};
use crate::transport::{self, Transport};
use crate::{Answer, RegistryError, RegistryOptions, body};

/// Limit for finding out whether a host that may be plain speaks HTTP or TLS.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all requests share.
pub(crate) struct Client {
    pub(crate) options: RegistryOptions,
    pub(crate) transport: Transport,
    auth: Authenticator,
    /// Scheme of each host that may be plain, once known.
    origins: Mutex<HashMap<String, Origin>>,
    /// Limits the blobs per host. Documents are not limited: they must not queue behind layers.
    blobs: Mutex<HashMap<(String, Direction), Arc<Semaphore>>>,
    /// Held while a list of referrers is read, changed and written.
    pub(crate) referrers: tokio::sync::Mutex<()>,
}

/// Which way blobs go. A caller may copy from one registry to another: its uploads must not wait
/// for its downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// Where a request goes and what errors call it.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) place: Place,
    pub(crate) subject: String,
}

impl Errand {
    pub(crate) fn manifest(place: &Place, reference: &Reference) -> Self {
        Self { place: place.clone(), subject: reference.to_string() }
    }

    pub(crate) fn blob(place: &Place, repository: &Reference, digest: Digest) -> Self {
        let subject = format!("blob {digest} of {}", repository.repository());
        Self { place: place.clone(), subject }
    }
}

/// The request itself.
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) access: Access,
    pub(crate) accept: Option<&'static str>,
    /// First byte wanted.
    pub(crate) from: u64,
    pub(crate) content: Option<Content<'a>>,
    /// The state in which what is changed has to be, by the name that an answer gave it.
    pub(crate) if_match: Option<HeaderValue>,
}

impl Outgoing<'_> {
    /// A request without content, below the repository's URL.
    pub(crate) fn new(method: Method, path: String, access: Access) -> Self {
        let target = Target::Path(path);
        Self { method, target, access, accept: None, from: 0, content: None, if_match: None }
    }
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The beginning of the API.
    Root,
    /// Below the repository's URL: `manifests/latest` or `blobs/sha256:…`.
    Path(String),
    /// Where an answer said that an upload, or a list, goes on.
    Given(Spot),
}

/// A URL that a registry gave.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) url: Url,
    /// Whether it is the registry's own, and no answer before came from elsewhere.
    pub(crate) on_own_origin: bool,
}

/// What a token has to allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing in particular: to be let in.
    Any,
    Pull,
    Push,
    /// Push, and pull from another repository of the same registry, whose path this is.
    Mount(String),
}

impl Access {
    pub(crate) fn scope(&self, repository: &str) -> String {
        match self {
            Self::Any => String::new(),
            Self::Pull => format!("repository:{repository}:pull"),
            Self::Push => format!("repository:{repository}:pull,push"),
            Self::Mount(other) => {
                format!("repository:{repository}:pull,push repository:{other}:pull")
            }
        }
    }
}

/// What a request brings along.
pub(crate) struct Content<'a> {
    pub(crate) media_type: &'a str,
    /// The first byte's place in the whole, and the whole's size, where this is a part.
    pub(crate) first: Option<u64>,
    pub(crate) size: u64,
    /// The bytes, for each time they are sent.
    pub(crate) body: &'a (dyn Fn() -> reqwest::Body + Send + Sync),
    /// How fast they leave, where they are many.
    pub(crate) pace: Option<&'a Pace>,
}

impl Client {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        Self {
            options,
            transport: Transport::default(),
            auth: Authenticator::default(),
            origins: Mutex::default(),
            blobs: Mutex::default(),
            referrers: tokio::sync::Mutex::default(),
        }
    }

    /// Sends `outgoing` and returns a success; authenticates once if the registry asks for it.
    pub(crate) async fn exchange(
        &self,
        errand: &Errand,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response, Failure> {
        Ok(self.exchange_at(errand, outgoing).await?.response)
    }

    /// [`Client::exchange`], and where the answer came from.
    pub(crate) async fn exchange_at(
        &self,
        errand: &Errand,
        outgoing: &Outgoing<'_>,
    ) -> Result<Answered, Failure> {
        let origin = self.origin(&errand.place).await?;
        let repository = &errand.place.repository;
        let below = |path: &str| {
            let text = format!("{}://{}/v2/{path}", origin.scheme, errand.place.api_host);
            let url = Url::parse(&text).map_err(|error| RegistryError::Connection {
                subject: errand.subject.clone(),
                host: errand.place.host.clone(),
                reason: format!("its name makes no URL ({error})"),
            })?;
            Ok::<_, RegistryError>(Spot { url, on_own_origin: true })
        };
        let start = match &outgoing.target {
            Target::Root => below("")?,
            Target::Path(path) => below(&format!("{repository}/{path}"))?,
            Target::Given(spot) => spot.clone(),
        };
        let scope = outgoing.access.scope(repository);
        let mut authenticated = false;
        loop {
            let authorization = self.auth.authorization(&origin, &scope);
            let answered =
                self.follow(errand, outgoing, start.clone(), &origin, &authorization).await?;
            let demands = answered.response.status() == StatusCode::UNAUTHORIZED
                && answered.on_own_origin
                && !authenticated;
            if demands {
                let demand = Demand {
                    origin: &origin,
                    scope: &scope,
                    headers: answered.response.headers(),
                    refused: authorization,
                };
                if self.auth.authenticate(self, errand, &demand).await? {
                    authenticated = true;
                    continue;
                }
            }
            let status = answered.response.status();
            let no_such_part = status == StatusCode::RANGE_NOT_SATISFIABLE && outgoing.from > 0;
            if status.is_success() || no_such_part {
                return Ok(answered);
            }
            return Err(self.refusal(errand, &origin, &scope, answered).await);
        }
    }

    /// Follows redirects until there is another answer.
    async fn follow(
        &self,
        errand: &Errand,
        outgoing: &Outgoing<'_>,
        start: Spot,
        origin: &Origin,
        authorization: &Option<HeaderValue>,
    ) -> Result<Answered, Failure> {
        let refused = |reason| RegistryError::Redirect {
            subject: errand.subject.clone(),
            host: errand.place.host.clone(),
            reason,
        };
        let Spot { mut url, mut on_own_origin } = start;
        for _ in 0..=MAX_REDIRECTS {
            let target = Origin::of(&url).ok_or_else(|| refused("it is no web URL".to_owned()))?;
            on_own_origin &= target == *origin;
            let proof = errand.place.proof(&self.options, &target);
            let http = self.transport.client(&self.options, &target, proof)?;
            let mut request = http
                .request(outgoing.method.clone(), url.clone())
                // Digests are of the bytes as stored: no encoding may come in between.
                .header(ACCEPT_ENCODING, "identity");
            if let Some(accept) = outgoing.accept {
                request = request.header(ACCEPT, accept);
            }
            if outgoing.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", outgoing.from));
            }
            if let Some(header) = authorization.as_ref().filter(|_| on_own_origin) {
                request = request.header(AUTHORIZATION, header.clone());
            }
            if let Some(state) = &outgoing.if_match {
                request = request.header(IF_MATCH, state.clone());
            }
            let mut pace = None;
            if let Some(content) = &outgoing.content {
                request = request.header(CONTENT_TYPE, content.media_type);
                if let Some(first) = content.first {
                    let last = (first + content.size).saturating_sub(1);
                    request = request.header(CONTENT_RANGE, format!("{first}-{last}"));
                }
                request = request.body((content.body)());
                pace = content.pace;
            }
            let asked = if on_own_origin { &errand.place.host } else { &target.host };
            let response = self.send(&errand.subject, asked, request, pace).await?;
            // What changes something is sent on only where the answer says that it stays what it is.
            let only_read = matches!(outgoing.method, Method::GET | Method::HEAD);
            let location = match response.status().as_u16() {
                301..=303 if only_read => response.headers().get(LOCATION),
                307 | 308 => response.headers().get(LOCATION),
                _ => None,
            };
            let Some(location) = location else {
                let answered_by = asked.clone();
                return Ok(Answered { response, on_own_origin, answered_by });
            };
            let stays = |target: &Origin| target == origin;
            url =
                redirect::target(&self.options, origin, &url, location, stays).map_err(refused)?;
        }
        Err(refused(format!("more than {MAX_REDIRECTS} redirects")).into())
    }

    /// Sends one request and waits for the head of the answer; `pace` is that of its content.
    pub(crate) async fn send(
        &self,
        subject: &str,
        host: &str,
        request: RequestBuilder,
        pace: Option<&Pace>,
    ) -> Result<Response, Failure> {
        let mut response = std::pin::pin!(request.send());
        loop {
            let waited =
                pace.map_or(self.options.answer_timeout, |pace| pace.window(&self.options));
            match tokio::time::timeout(waited, &mut response).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(transport::failure(subject, host, error)),
                Err(_) if pace.is_some_and(|pace| pace.is_enough(&self.options)) => {}
                Err(_) => {
                    let (subject, host) = (subject.to_owned(), host.to_owned());
                    return Err(Failure::once(RegistryError::Stalled { subject, host, waited }));
                }
            }
        }
    }

    /// Why the credentials for `origin` and `scope` were not used, if that is so.
    pub(crate) fn authentication_note(&self, origin: &Origin, scope: &str) -> Option<String> {
        self.auth.note(origin, scope)
    }

    /// Turns an answer that is no success into an error.
    async fn refusal(
        &self,
        errand: &Errand,
        origin: &Origin,
        scope: &str,
        answered: Answered,
    ) -> Failure {
        let Answered { response, on_own_origin, answered_by } = answered;
        let status = response.status();
        let wait = retry_after(response.headers());
        let (subject, host) = (errand.subject.clone(), answered_by);
        let detail = body::error_detail(response).await;
        let answer = Answer { status: status.as_u16(), detail };
        let error = match status.as_u16() {
            401 | 403 if on_own_origin => {
                let hint = self.auth.hint(origin, scope, &errand.place.host);
                RegistryError::Unauthorized { subject, host, answer, hint }
            }
            404 => RegistryError::NotFound { subject, host, answer },
            429 => RegistryError::RateLimited { subject, host, answer, retry_after: wait },
            _ => RegistryError::Status { subject, host, answer },
        };
        Failure { error, retry: by_status(status, wait) }
    }

    /// The origin of a place. Only a host that may be plain needs asking.
    pub(crate) async fn origin(&self, place: &Place) -> Result<Origin, RegistryError> {
        let of = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{}/v2/", place.api_host)).ok()?;
            Some((Origin::of(&url)?, url))
        };
        let (Some((tls, tls_url)), Some((plain, plain_url))) = (of("https"), of("http")) else {
            return Err(RegistryError::Connection {
                subject: format!("{}/{}", place.host, place.repository),
                host: place.host.clone(),
                reason: "it is no host name".to_owned(),
            });
        };
        if !place.may_be_plain() {
            return Ok(tls);
        }
        let known = || self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = known().get(&place.api_host) {
            return Ok(origin.clone());
        }
        // What leaves the machine is rather encrypted, though nobody knows for whom.
        let order = match plain.is_loopback() {
            true => [(&plain, plain_url), (&tls, tls_url)],
            false => [(&tls, tls_url), (&plain, plain_url)],
        };
        let mut spoken = None;
        for (origin, url) in order {
            if self.speaks(place, origin, url).await {
                spoken = Some(origin.clone());
                break;
            }
        }
        // Not remembered: the request itself says what is wrong, and may go better.
        let Some(origin) = spoken else { return Ok(plain) };
        known().insert(place.api_host.clone(), origin.clone());
        Ok(origin)
    }

    /// Whether anything answers in the origin's scheme. No credentials are sent.
    async fn speaks(&self, place: &Place, origin: &Origin, url: Url) -> bool {
        let proof = place.proof(&self.options, origin);
        let Ok(http) = self.transport.client(&self.options, origin, proof) else { return false };
        let asked = tokio::time::timeout(PROBE_TIMEOUT, http.get(url).send()).await;
        let response = match asked {
            Ok(Ok(response)) => response,
            // A certificate that is not accepted is TLS all the same, and no reason to fall back.
            Ok(Err(error)) => return transport::is_about_certificate(&error),
            Err(_) => return false,
        };
        // Go's and nginx's way to say that the port speaks TLS.
        let misplaced = origin.is_plain() && response.status() == StatusCode::BAD_REQUEST;
        !(misplaced && body::error_detail(response).await.to_ascii_uppercase().contains("HTTPS"))
    }

    /// Waits for a place among the blobs of a host that go the same way.
    pub(crate) async fn blob_permit(
        &self,
        place: &Place,
        direction: Direction,
    ) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Semaphore::new(self.options.connections));
            blobs.entry((place.api_host.clone(), direction)).or_insert_with(fresh).clone()
        };
        // The semaphore is never closed.
        semaphore.acquire_owned().await.ok()
    }
}

/// An answer that is no redirect.
pub(crate) struct Answered {
    pub(crate) response: Response,
    /// Whether no redirect has led away from the registry.
    pub(crate) on_own_origin: bool,
    /// The host that gave it.
    pub(crate) answered_by: String,
}
