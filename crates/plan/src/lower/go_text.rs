//! Values as Go prints them: the history that BuildKit writes, and that tools compare, is made
//! with Go's `%v`, `%+v` and `%q`.

use rbuild_types::HealthConfig;

/// `%v` of a list: `[a b]`.
pub(super) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `%q` of a list: `["a" "b"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// `%q` of a string (`strconv.Quote`).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            other if is_printable(other) => quoted.push(other),
            other => {
                let code = u32::from(other);
                quoted.push_str(&match code {
                    0..0x80 => format!("\\x{code:02x}"),
                    0x80..0x10000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                });
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Go's `strconv.IsPrint`: of blanks only the ASCII space. Rust's own table of what to escape
/// also holds combining marks, which Go prints.
fn is_printable(letter: char) -> bool {
    if letter == ' ' || letter == '\'' {
        return true;
    }
    let marks = '\u{300}'..='\u{36f}';
    !letter.is_whitespace() && (letter.escape_debug().count() == 1 || marks.contains(&letter))
}

/// `%+v` of a health check.
pub(super) fn healthcheck(check: &HealthConfig) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

/// `time.Duration.String` of nanoseconds: `1m30s`, `1.5ms`, `0s`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(total, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(total, 6)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = decimal(total % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `number / 10^digits` without trailing zeros.
fn decimal(number: u64, digits: usize) -> String {
    let scale = 10_u64.pow(digits as u32);
    let fraction = format!("{:0digits$}", number % scale);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() {
        (number / scale).to_string()
    } else {
        format!("{}.{fraction}", number / scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let shown = [0, 5, 1_500, 500_000_000, 1_500_000_000, 90_000_000_000, 3_600_000_000_000];
        let shown: Vec<_> = shown.into_iter().map(duration).collect();
        assert_eq!(shown, ["0s", "5ns", "1.5µs", "500ms", "1.5s", "1m30s", "1h0m0s"]);
        assert_eq!(duration(i64::MIN), "-2562047h47m16.854775808s");
    }

    #[test]
    fn strings_are_quoted_as_in_go() {
        assert_eq!(quoted("tab\té'\"\\\u{1}"), r#""tab\té'\"\\\x01""#);
        assert_eq!(quoted("\u{a0}\u{200b}e\u{301}"), "\"\\u00a0\\u200be\u{301}\"");
    }
}
