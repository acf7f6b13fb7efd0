//! Sizes, durations and times as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes in powers of 1000 with three digits, as Docker shows sizes: `0B`, `1.23MB`, `45.6kB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS[unit])
}

/// Bytes in powers of 1024 with four digits, as Docker shows memory: `64MiB`, `1.944GiB`.
pub fn binary_bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        value if value < 9.9995 => 3,
        value if value < 99.995 => 2,
        value if value < 999.95 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS[unit])
}

/// A duration with a tenth of a second below a minute: `0.3s`, `2m05s`, `1h02m`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", (duration.as_secs_f64() * 10.0).floor() / 10.0),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// How long ago, in Docker's words: `About a minute ago`, `3 weeks ago`.
pub fn ago(millis: i64, now: i64) -> String {
    let seconds = (now.saturating_sub(millis) / 1000).max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let text = match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..7200 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time in UTC as Docker's `CreatedAt` shows it.
pub fn timestamp(millis: i64) -> String {
    let (date, time) = civil(millis);
    format!("{date} {time} +0000 UTC")
}

/// A time in UTC by RFC 3339.
pub fn rfc3339(millis: i64) -> String {
    let (date, time) = civil(millis);
    format!("{date}T{time}.{:03}Z", millis.rem_euclid(1000))
}

/// Milliseconds since 1970 of an RFC 3339 time; `None` for what is none. Fractions of a second
/// are dropped.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let number = |text: &str| text.parse::<u8>().ok().map(i64::from);
            sign * (number(hours)? * 60 + number(minutes)?)
        }
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let minutes = days_from_civil(year, month, day) * 1440 + hour * 60 + minute - offset;
    Some((minutes * 60 + second) * 1000)
}

/// `YYYY-MM-DD` and `hh:mm:ss`.
fn civil(millis: i64) -> (String, String) {
    let seconds = millis.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = civil_from_days(days);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}-{month:02}-{day:02}"), time)
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken to begin in March, so that
/// the leap day is the last of one; an era is 400 of them.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let shown: Vec<_> =
            [0, 999, 1000, 1234, 45_600, 999_499, 999_500, 7_340_032, u64::MAX].map(bytes).into();
        assert_eq!(
            shown,
            ["0B", "999B", "1kB", "1.23kB", "45.6kB", "999kB", "1MB", "7.34MB", "18.4EB"]
        );
    }

    #[test]
    fn sizes_of_memory_have_four_digits() {
        let sizes = [0, 1023, 1024, 610_304, 64 << 20, (1 << 30) - 1, 2_087_354_106, u64::MAX];
        let shown: Vec<_> = sizes.map(binary_bytes).into();
        let expected = ["0B", "1023B", "1KiB", "596KiB", "64MiB", "1024MiB", "1.944GiB", "16EiB"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn durations_and_ages() {
        assert_eq!(duration(Duration::from_millis(1290)), "1.2s");
        assert_eq!(duration(Duration::from_secs(125)), "2m05s");
        assert_eq!(duration(Duration::from_secs(3725)), "1h02m");
        assert_eq!(ago(0, 61_000), "About a minute ago");
        assert_eq!(ago(0, 86_400_000 * 3), "3 days ago");
        assert_eq!(ago(5000, 0), "Less than a second ago");
    }

    #[test]
    fn times_go_there_and_back() {
        assert_eq!(timestamp(1_704_067_199_000), "2023-12-31 23:59:59 +0000 UTC");
        assert_eq!(rfc3339(951_782_400_001), "2000-02-29T00:00:00.001Z");
        for millis in [0, -86_400_000, 951_782_400_000, 4_102_444_800_000, 1_709_164_800_000] {
            assert_eq!(parse_rfc3339(&rfc3339(millis)), Some(millis));
        }
        assert_eq!(parse_rfc3339("1970-01-01T02:00:00.123456789+02:00"), Some(0));
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00+9223372036854775807:00"), None);
        assert_eq!(parse_rfc3339("yesterday"), None);
        assert_eq!(parse_rfc3339("1970-13-01T02:00:00Z"), None);
    }
}
