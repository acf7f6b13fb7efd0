//! Reads bodies with limits on size and on slowness.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::retry::Failure;
use crate::text::printable;
use crate::{RegistryError, RegistryOptions, transport};

/// Largest error body that is looked at, bytes.
const MAX_ERROR: usize = 64 << 10;
/// An error's text is worth this much waiting.
const ERROR_TIMEOUT: Duration = Duration::from_secs(5);

/// What a body is for, and how slow it may be.
pub(crate) struct Limits<'a> {
    subject: &'a str,
    host: &'a str,
    window: Duration,
    rate: u64,
}

impl<'a> Limits<'a> {
    pub(crate) fn new(options: &RegistryOptions, subject: &'a str, host: &'a str) -> Self {
        Self { subject, host, window: options.idle_timeout, rate: options.idle_rate }
    }
}

/// A body that is cut off when it brings too few bytes per window.
///
/// Only the time spent waiting for the network counts, so a slow disk is no stall.
pub(crate) struct Body<'a> {
    response: Response,
    limits: &'a Limits<'a>,
    waited: Duration,
    bytes: u64,
}

impl<'a> Body<'a> {
    pub(crate) fn new(response: Response, limits: &'a Limits<'a>) -> Self {
        Self { response, limits, waited: Duration::ZERO, bytes: 0 }
    }

    /// The next bytes, now and then none; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Limits { subject, host, window, .. } = *self.limits;
        let left = window.saturating_sub(self.waited);
        let start = Instant::now();
        let chunk = tokio::time::timeout(left, self.response.chunk()).await;
        self.waited += start.elapsed();
        let stalled = || {
            let (subject, host) = (subject.to_owned(), host.to_owned());
            Failure::once(RegistryError::Stalled { subject, host, waited: window })
        };
        let chunk = match chunk {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => return Err(transport::failure(subject, host, error)),
            Err(_) if self.bytes < self.least() => return Err(stalled()),
            // The window brought enough; its end merely fell into a pause.
            Err(_) => Bytes::new(),
        };
        self.bytes += chunk.len() as u64;
        if self.waited < window {
            return Ok(Some(chunk));
        }
        if self.bytes < self.least() {
            return Err(stalled());
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(Some(chunk))
    }

    /// Bytes that a window has to bring.
    fn least(&self) -> u64 {
        let Limits { window, rate, .. } = *self.limits;
        u64::try_from(window.as_millis()).unwrap_or(u64::MAX).saturating_mul(rate) / 1000
    }
}

/// The whole body, unless it is larger than `limit` bytes.
pub(crate) async fn read_document(
    response: Response,
    limits: &Limits<'_>,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    let too_large = || RegistryError::TooLarge {
        subject: limits.subject.to_owned(),
        host: limits.host.to_owned(),
        limit,
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large().into());
    }
    let mut bytes = Vec::new();
    let mut body = Body::new(response, limits);
    while let Some(chunk) = body.next().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large().into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words in an error answer; empty when it has none.
pub(crate) async fn error_detail(mut response: Response) -> String {
    let html = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let mut bytes = Vec::new();
    // A body that breaks, or is slow, is cut: the status says enough.
    let _ = tokio::time::timeout(ERROR_TIMEOUT, async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = MAX_ERROR - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if bytes.len() == MAX_ERROR {
                break;
            }
        }
    })
    .await;
    if html { String::new() } else { describe(&bytes) }
}

fn describe(bytes: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(bytes) else {
        return printable(&String::from_utf8_lossy(bytes));
    };
    let items = body.errors.iter().map(|item| match (item.code.as_str(), item.message.as_str()) {
        (code, "") => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    });
    printable(&items.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_repeated_without_control_characters() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way","detail":{}}]}"#;
        assert_eq!(describe(body), "DENIED: no\\u{1b}[2J way");
        assert_eq!(describe(b"plain\n"), "plain");
        assert_eq!(describe(b""), "");
    }
}
