//! The durations and the count of `HEALTHCHECK`, read and refused in Go's words
//! (`time.ParseDuration`, `strconv.ParseInt`).

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{char, digit0, digit1, one_of};
use nom::combinator::{opt, recognize};
use nom::sequence::preceded;
use nom::{IResult, Parser};

use super::go_quoted;

const MILLISECOND: i64 = 1_000_000;

/// Reads the value of `--NAME` in nanoseconds. 0 is allowed and stands for "inherit", as nothing
/// does; below a millisecond is refused.
pub(super) fn interval(name: &str, text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    match parse(text)? {
        0 => Ok(0),
        nanoseconds if nanoseconds < MILLISECOND => {
            Err(format!("Interval {} cannot be less than 1ms", go_quoted(name)))
        }
        nanoseconds => Ok(nanoseconds),
    }
}

/// Reads the value of `--retries`; nothing counts as 0.
pub(super) fn retries(text: &str) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let quoted = go_quoted(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"));
    }
    match text.parse::<i32>() {
        Err(_) => Err(format!("strconv.ParseInt: parsing {quoted}: value out of range")),
        Ok(retries) if retries < 0 => Err(format!("--retries cannot be negative ({retries})")),
        Ok(retries) => Ok(retries.into()),
    }
}

/// Reads a duration such as `1h2m3.5s` in nanoseconds.
fn parse(text: &str) -> Result<i64, String> {
    let quoted = go_quoted(text);
    let invalid = || format!("time: invalid duration {quoted}");
    let signed: IResult<&str, Option<char>> = opt(one_of("+-")).parse(text);
    let (mut rest, sign) = signed.map_err(|_| invalid())?;
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (after, (whole, fraction)) = number(rest).map_err(|_| invalid())?;
        if after.is_empty() || after.starts_with(['.']) {
            return Err(format!("time: missing unit in duration {quoted}"));
        }
        let (after, name) =
            unit_name(after).map_err(|_| format!("time: missing unit in duration {quoted}"))?;
        let unit = unit(name).ok_or_else(|| {
            let name = go_quoted(name);
            format!("time: unknown unit {name} in duration {quoted}")
        })?;
        total = scaled(whole, fraction, unit)
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    let total = if sign == Some('-') { -total } else { total };
    i64::try_from(total).map_err(|_| invalid())
}

/// Digits with or without a fraction; at least one digit in all.
fn number(text: &str) -> IResult<&str, (&str, &str)> {
    let with_whole = (digit1, opt(preceded(char('.'), digit0)));
    let only_fraction = (tag(""), preceded(char('.'), digit1).map(Some));
    alt((with_whole, only_fraction))
        .map(|(whole, fraction): (&str, Option<&str>)| (whole, fraction.unwrap_or_default()))
        .parse(text)
}

fn unit_name(text: &str) -> IResult<&str, &str> {
    recognize(take_while1(|next: char| next != '.' && !next.is_ascii_digit())).parse(text)
}

fn unit(name: &str) -> Option<i128> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The number in nanoseconds; digits of the fraction beyond what counts are cut off.
fn scaled(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = fraction.get(..fraction.len().min(18))?;
    let part = match digits {
        "" => 0,
        digits => {
            let scale = 10_i128.checked_pow(u32::try_from(digits.len()).ok()?)?;
            digits.parse::<i128>().ok()?.checked_mul(unit)? / scale
        }
    };
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let good = [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1ms", 1_000_000),
            ("+2us", 2_000),
            ("0s", 0),
            ("9223372036854775807ns", i64::MAX),
        ];
        for (text, nanoseconds) in good {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        assert_eq!(parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        for text in ["x", "", "-", ".", ".s", "9223372036854775808ns", &"9".repeat(99)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_have_a_floor() {
        assert_eq!(interval("timeout", ""), Ok(0));
        let message = "Interval \"timeout\" cannot be less than 1ms";
        assert_eq!(interval("timeout", "50us").unwrap_err(), message);
        assert_eq!(interval("timeout", "-1s").unwrap_err(), message);
    }

    #[test]
    fn retries_are_not_negative() {
        assert_eq!(retries("3"), Ok(3));
        assert_eq!(retries("+3"), Ok(3));
        assert_eq!(retries("-1").unwrap_err(), "--retries cannot be negative (-1)");
        assert_eq!(retries("x").unwrap_err(), "strconv.ParseInt: parsing \"x\": invalid syntax");
        let message = "strconv.ParseInt: parsing \"99999999999\": value out of range";
        assert_eq!(retries("99999999999").unwrap_err(), message);
    }
}
