//! When to try again, and after how long.
//!
//! Tried again: connection errors (refused ones for a second only), broken bodies, 5xx, 408, 429. Not tried again: any other 4xx,
//! wrong bytes, certificates that do not verify. The wait doubles from `backoff` to `backoff_max`;
//! `Retry-After` wins over it.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{RegistryError, RegistryOptions};

/// A failed try and what it means for the next one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RegistryError,
    pub(crate) retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The answer would be the same.
    Never,
    /// After the usual wait.
    Later,
    /// After the wait that the registry asked for.
    After(Duration),
    /// After the usual wait, but a second failure of this kind is final: each such try costs the
    /// full idle limit, and all together must stay below the promised 150 s.
    Once,
    /// After a short wait, a few times: nobody listens there, which a name with the wrong port says
    /// for ever, and a server that is just being started does not say for long.
    Soon,
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl Failure {
    pub(crate) fn later(error: RegistryError) -> Self {
        Self { error, retry: Retry::Later }
    }

    pub(crate) fn once(error: RegistryError) -> Self {
        Self { error, retry: Retry::Once }
    }
}

/// Bytes that count as progress. A server that sends a few bytes and resets, for ever, must not
/// keep the client busy for ever.
const PROGRESS: u64 = 1 << 20;
/// Tries at a place where nobody listens, and the wait between them.
const TRIES_REFUSED: u32 = 3;
const REFUSED_WAIT: Duration = Duration::from_millis(500);
/// Tries at a place that another place stands behind.
const TRIES_WITH_SUCCESSOR: u32 = 2;

/// Counts the tries of one call at one place.
pub(crate) struct Attempts {
    tries: u32,
    failed: u32,
    stalled: u32,
    refused: u32,
    backoff: Duration,
    backoff_max: Duration,
    retry_after_max: Duration,
    high_water: u64,
}

impl Attempts {
    pub(crate) fn new(options: &RegistryOptions, has_successor: bool) -> Self {
        let tries =
            if has_successor { options.retries.min(TRIES_WITH_SUCCESSOR) } else { options.retries };
        Self {
            tries,
            failed: 0,
            stalled: 0,
            refused: 0,
            backoff: options.backoff,
            backoff_max: options.backoff_max,
            retry_after_max: options.retry_after_max,
            high_water: 0,
        }
    }

    /// Notes how far the transfer has come. Only a new high water mark is progress: a server that
    /// ignores Range sends the same bytes again.
    pub(crate) fn progress(&mut self, bytes: u64) {
        if bytes >= self.high_water + PROGRESS {
            self.high_water = bytes;
            self.failed = 0;
            self.stalled = 0;
            self.refused = 0;
        }
    }

    /// Waits before the next try, or gives the error back when there is none.
    pub(crate) async fn wait_after(&mut self, failure: Failure) -> Result<(), RegistryError> {
        match self.pause(failure.retry) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(failure.error),
        }
    }

    /// Tries until it went well or the tries are used up.
    pub(crate) async fn repeat<T, F: Future<Output = Result<T, Failure>>>(
        &mut self,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait_after(failure).await?,
            }
        }
    }

    fn pause(&mut self, retry: Retry) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.tries {
            return None;
        }
        let doubled = self.backoff.saturating_mul(1 << (self.failed - 1).min(16));
        let usual = doubled.min(self.backoff_max);
        match retry {
            Retry::Never => None,
            Retry::Later => Some(usual),
            Retry::After(wait) if wait > self.retry_after_max => None,
            Retry::After(wait) => Some(wait),
            Retry::Once => {
                self.stalled += 1;
                (self.stalled < 2).then_some(usual)
            }
            Retry::Soon => {
                self.refused += 1;
                (self.refused < TRIES_REFUSED).then_some(usual.min(REFUSED_WAIT))
            }
        }
    }
}

/// What a status that is not a success means for the next try.
pub(crate) fn by_status(status: StatusCode, retry_after: Option<Duration>) -> Retry {
    let again = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    match (again, retry_after) {
        (false, _) => Retry::Never,
        (true, Some(wait)) => Retry::After(wait),
        (true, None) => Retry::Later,
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    parse_retry_after(text, SystemTime::now())
}

fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "very long", which the limit then refuses.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    // A date in the past asks for no wait.
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parse = |text: &str| parse_retry_after(text, now);
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert!(parse("99999999999999999999999").unwrap() > Duration::from_secs(3600));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn waits_double_up_to_the_limit_and_progress_starts_again() {
        let options = RegistryOptions { retries: 6, ..Default::default() };
        let mut attempts = Attempts::new(&options, false);
        let seconds: Vec<_> =
            (0..6).map(|_| attempts.pause(Retry::Later).map(|wait| wait.as_secs())).collect();
        assert_eq!(seconds, [Some(1), Some(2), Some(4), Some(8), Some(8), None]);
        attempts.progress(PROGRESS);
        assert_eq!(attempts.pause(Retry::Later), Some(Duration::from_secs(1)));
        attempts.progress(PROGRESS);
        assert_eq!(attempts.pause(Retry::Later), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_wait_that_is_too_long_and_a_second_stall_are_final() {
        let options = RegistryOptions::default();
        let hour = Retry::After(Duration::from_secs(3600));
        assert_eq!(Attempts::new(&options, false).pause(hour), None);
        let mut attempts = Attempts::new(&options, false);
        assert!(attempts.pause(Retry::Once).is_some());
        assert!(attempts.pause(Retry::Once).is_none());
    }

    #[test]
    fn where_nobody_listens_nobody_is_waited_for_long() {
        let mut attempts = Attempts::new(&RegistryOptions::default(), false);
        let waits: Vec<_> = (0..3).map(|_| attempts.pause(Retry::Soon)).collect();
        assert_eq!(waits, [Some(REFUSED_WAIT), Some(REFUSED_WAIT), None]);
        // A blob that was coming when its server went away is waited for anew.
        attempts.progress(PROGRESS);
        assert_eq!(attempts.pause(Retry::Soon), Some(REFUSED_WAIT));
    }
}
