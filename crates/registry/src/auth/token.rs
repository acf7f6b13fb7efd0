//! Gets a token from a registry's token server.
//!
//! User and password go as Basic authorization of a GET, an identity token as the refresh token
//! of an OAuth2 POST (distribution's "Token Authentication" and "Oauth2 Token Authentication").
//! Redirects are refused: they would carry the password on.

use std::time::{Duration, Instant};

use reqwest::header::AUTHORIZATION;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::credential::{Credential, Secret};
use super::realm::{Trust, judge};
use super::{basic_header, hint};
use crate::exchange::{Client, Errand};
use crate::place::Origin;
use crate::retry::{Failure, by_status, retry_after};
use crate::text::printable;
use crate::{Answer, RegistryError, body};

/// Largest answer, bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// The token specification's default and least life of a token.
const SHORTEST_LIFE: u64 = 60;
/// Longest life that is believed, seconds.
const LONGEST_LIFE: u64 = 24 * 3600;

/// A token server, judged.
pub(super) struct Server {
    url: Url,
    service: String,
    scope: String,
    origin: Origin,
    pub(super) trust: Trust,
}

pub(super) struct Token {
    pub(super) token: Secret,
    pub(super) expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Server {
    /// The token server that the registry at `origin` names, unless it is not to be spoken to.
    pub(super) fn new(
        client: &Client,
        errand: &Errand,
        origin: &Origin,
        realm: &str,
    ) -> Result<Self, RegistryError> {
        let refused = |reason| RegistryError::Token { host: errand.place.host.clone(), reason };
        let mut url = Url::parse(realm)
            .map_err(|_| refused(format!("its token server {:?} is no URL", printable(realm))))?;
        let trust = judge(&client.options, &errand.place, origin, &url).map_err(refused)?;
        // reqwest would turn these into an Authorization header of the registry's making. Both
        // fail only for URLs without a host, which have been refused.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let origin = Origin::of(&url).ok_or_else(|| refused("its scheme is odd".to_owned()))?;
        Ok(Self { url, service: String::new(), scope: String::new(), origin, trust })
    }

    pub(super) fn host(&self) -> &str {
        &self.origin.host
    }

    /// Sets what is asked for.
    pub(super) fn ask(&mut self, service: Option<&str>, scope: &str) {
        self.service = service.unwrap_or_default().to_owned();
        self.scope = scope.to_owned();
    }

    fn query(&self) -> Vec<(&'static str, &str)> {
        let mut query = Vec::new();
        if !self.service.is_empty() {
            query.push(("service", self.service.as_str()));
        }
        // A scope with spaces is a list.
        query.extend(self.scope.split(' ').filter(|one| !one.is_empty()).map(|one| ("scope", one)));
        query
    }
}

/// Asks `server` for a token, as the owner of `credential` or anonymously.
pub(super) async fn fetch(
    client: &Client,
    errand: &Errand,
    server: &Server,
    credential: Option<&Credential>,
) -> Result<Token, Failure> {
    let proof = errand.place.proof(&client.options, &server.origin);
    let http = client.transport.client(&client.options, &server.origin, proof)?;
    let request = match credential {
        Some(Credential::IdentityToken(token)) => {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", "rbuild"),
                ("service", &server.service),
                ("scope", &server.scope),
                ("refresh_token", token.expose()),
            ];
            http.request(Method::POST, server.url.clone()).form(&form)
        }
        other => {
            let mut url = server.url.clone();
            url.query_pairs_mut().extend_pairs(server.query());
            let request = http.request(Method::GET, url);
            match other {
                Some(Credential::Password(login)) => {
                    request.header(AUTHORIZATION, basic_header(login)?)
                }
                _ => request,
            }
        }
    };
    let host = server.host();
    let subject = format!("a token for {}", errand.subject);
    let response = client.send(&subject, host, request, None).await?;
    let status = response.status();
    if status.is_redirection() {
        return Err(token_error(errand, format!("its token server {host} redirects")).into());
    }
    if !status.is_success() {
        let wait = retry_after(response.headers());
        let detail = body::error_detail(response).await;
        let answer = Answer { status: status.as_u16(), detail };
        let retry = by_status(status, wait);
        let error = if matches!(status.as_u16(), 400 | 401 | 403) {
            let place = &errand.place.host;
            let user = credential.map(Credential::user).unwrap_or_default();
            RegistryError::Unauthorized {
                subject,
                host: host.to_owned(),
                answer,
                hint: hint(place, user, None),
            }
        } else {
            RegistryError::Status { subject, host: host.to_owned(), answer }
        };
        return Err(Failure { error, retry });
    }
    let limits = body::Limits::new(&client.options, &subject, host);
    let bytes = body::read_document(response, &limits, MAX_ANSWER).await?;
    let (token, life) = read(&bytes).ok_or_else(|| odd(errand))?;
    Ok(Token { token, expires: Instant::now() + life })
}

fn read(bytes: &[u8]) -> Option<(Secret, Duration)> {
    let answer: TokenAnswer = serde_json::from_slice(bytes).ok()?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token)?;
    let life = answer.expires_in.unwrap_or(SHORTEST_LIFE).clamp(SHORTEST_LIFE, LONGEST_LIFE);
    (!token.is_empty()).then(|| (Secret::new(token), Duration::from_secs(life)))
}

fn odd(errand: &Errand) -> RegistryError {
    token_error(errand, "the answer of its token server has no token".to_owned())
}

fn token_error(errand: &Errand, reason: String) -> RegistryError {
    RegistryError::Token { host: errand.place.host.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_of_the_token_are_read() {
        let token = |json: &str| {
            read(json.as_bytes()).map(|(token, life)| (token.expose().to_owned(), life.as_secs()))
        };
        assert_eq!(token(r#"{"token":"a","expires_in":300}"#), Some(("a".into(), 300)));
        assert_eq!(token(r#"{"access_token":"b","token":""}"#), Some(("b".into(), 60)));
        assert_eq!(
            token(r#"{"token":"a","expires_in":18446744073709551615}"#),
            Some(("a".into(), LONGEST_LIFE))
        );
        for bad in ["{}", "[]", "", r#"{"token":""}"#, r#"{"token":1}"#] {
            assert_eq!(token(bad), None, "{bad}");
        }
    }
}
