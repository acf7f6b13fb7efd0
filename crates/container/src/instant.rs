//! Points in time as they are written down: nanoseconds since 1970, or RFC 3339.

use jiff::Timestamp;

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// RFC 3339 with nine digits of a second, as Docker writes it.
pub(crate) fn written(nanoseconds: i64) -> String {
    let time = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

/// The reverse of [`written`].
pub(crate) fn read(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}
