//! One request to a registry: origin, authorization, redirects.
//!
//! Authorization is attached here and nowhere else, per hop: only to a URL of the registry's own
//! origin, and never again once a redirect has left it. Pushes will send their requests through
//! the same door, because an upload's `Location` is as untrusted as a redirect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_types::{Digest, Reference};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Authenticator, Demand};
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
    blobs: Mutex<HashMap<String, Arc<Semaphore>>>,
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

/// The request itself, below the repository's URL.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// `manifests/latest` or `blobs/sha256:…`.
    pub(crate) path: String,
    pub(crate) accept: Option<&'static str>,
    /// First byte wanted.
    pub(crate) from: u64,
}

impl Client {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        Self {
            options,
            transport: Transport::default(),
            auth: Authenticator::default(),
            origins: Mutex::default(),
            blobs: Mutex::default(),
        }
    }

    /// Sends `outgoing` and returns a success; authenticates once if the registry asks for it.
    pub(crate) async fn exchange(
        &self,
        errand: &Errand,
        outgoing: &Outgoing,
    ) -> Result<Response, Failure> {
        let origin = self.origin(&errand.place).await?;
        let repository = &errand.place.repository;
        let text = format!(
            "{}://{}/v2/{repository}/{}",
            origin.scheme, errand.place.api_host, outgoing.path
        );
        let start = Url::parse(&text).map_err(|error| RegistryError::Connection {
            subject: errand.subject.clone(),
            host: errand.place.host.clone(),
            reason: format!("its name makes no URL ({error})"),
        })?;
        let scope = format!("repository:{repository}:pull");
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
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answered.response);
            }
            return Err(self.refusal(errand, &origin, answered).await);
        }
    }

    /// Follows redirects until there is another answer.
    async fn follow(
        &self,
        errand: &Errand,
        outgoing: &Outgoing,
        start: Url,
        origin: &Origin,
        authorization: &Option<HeaderValue>,
    ) -> Result<Answered, Failure> {
        let refused = |reason| RegistryError::Redirect {
            subject: errand.subject.clone(),
            host: errand.place.host.clone(),
            reason,
        };
        let mut url = start;
        let mut on_own_origin = true;
        for _ in 0..=MAX_REDIRECTS {
            let target = Origin::of(&url).ok_or_else(|| refused("it is no web URL".to_owned()))?;
            on_own_origin &= target == *origin;
            let http = self.transport.client(&self.options, &target)?;
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
            let asked = if on_own_origin { &errand.place.host } else { &target.host };
            let response = self.send(&errand.subject, asked, request).await?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
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

    /// Sends one request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        subject: &str,
        host: &str,
        request: RequestBuilder,
    ) -> Result<Response, Failure> {
        let waited = self.options.answer_timeout;
        match tokio::time::timeout(waited, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(transport::failure(subject, host, error)),
            Err(_) => {
                let (subject, host) = (subject.to_owned(), host.to_owned());
                Err(Failure::once(RegistryError::Stalled { subject, host, waited }))
            }
        }
    }

    /// Turns an answer that is no success into an error.
    async fn refusal(&self, errand: &Errand, origin: &Origin, answered: Answered) -> Failure {
        let Answered { response, on_own_origin, answered_by } = answered;
        let status = response.status();
        let wait = retry_after(response.headers());
        let (subject, host) = (errand.subject.clone(), answered_by);
        let detail = body::error_detail(response).await;
        let answer = Answer { status: status.as_u16(), detail };
        let error = match status.as_u16() {
            401 | 403 if on_own_origin => {
                let hint = self.auth.hint(origin, &errand.place.host);
                RegistryError::Unauthorized { subject, host, answer, hint }
            }
            404 => RegistryError::NotFound { subject, host, answer },
            429 => RegistryError::RateLimited { subject, host, answer, retry_after: wait },
            _ => RegistryError::Status { subject, host, answer },
        };
        Failure { error, retry: by_status(status, wait) }
    }

    /// The origin of a place. Only a host that may be plain needs asking.
    async fn origin(&self, place: &Place) -> Result<Origin, RegistryError> {
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
        if !place.plain_allowed {
            return Ok(tls);
        }
        let known = || self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = known().get(&place.api_host) {
            return Ok(origin.clone());
        }
        let origin = if self.speaks(&plain, plain_url).await {
            plain
        } else if self.speaks(&tls, tls_url).await {
            tls
        } else {
            // Not remembered: the request itself says what is wrong, and may go better.
            return Ok(plain);
        };
        known().insert(place.api_host.clone(), origin.clone());
        Ok(origin)
    }

    /// Whether anything answers in the origin's scheme. No credentials are sent.
    async fn speaks(&self, origin: &Origin, url: Url) -> bool {
        let Ok(http) = self.transport.client(&self.options, origin) else { return false };
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

    /// Waits for a place among the blobs of a host.
    pub(crate) async fn blob_permit(&self, place: &Place) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Semaphore::new(self.options.connections));
            blobs.entry(place.api_host.clone()).or_insert_with(fresh).clone()
        };
        // The semaphore is never closed.
        semaphore.acquire_owned().await.ok()
    }
}

/// An answer that is no redirect.
struct Answered {
    response: Response,
    /// Whether no redirect has led away from the registry.
    on_own_origin: bool,
    /// The host that gave it.
    answered_by: String,
}
