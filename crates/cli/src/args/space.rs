//! Amounts of disk: `10GB`, `512MiB`, `20%`.

use rbuild::Space;

use crate::failure::Failure;

/// Reads the value of the flag, or of the variable, `name`.
pub fn parse(name: &str, text: &str) -> Result<Space, Failure> {
    percent(text).map(Space::Percent).or_else(|| bytes(text).map(Space::Bytes)).ok_or_else(|| {
        Failure::usage_hint(
            format!("{name} {text}: neither a number of bytes nor a part of the disk"),
            "for example 500MB, 10GiB or 20%",
        )
    })
}

fn percent(text: &str) -> Option<u8> {
    text.strip_suffix('%')?.trim().parse().ok().filter(|percent| *percent <= 100)
}

/// `10GB` and `512mb` are powers of 1000, `1GiB` of 1024.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[digits.len()..].trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (base, unit) = match unit.strip_suffix('i') {
        Some(unit) if !unit.is_empty() => (1024_f64, unit),
        _ => (1000_f64, unit),
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let value = digits.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0)?;
    // Whatever is above the highest number is the highest number.
    Some((value * base.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let space = |text: &str| parse("--max-used-space", text).ok();
        assert_eq!(space("0"), Some(Space::Bytes(0)));
        assert_eq!(space("10 kB"), Some(Space::Bytes(10_000)));
        assert_eq!(space("512m"), Some(Space::Bytes(512_000_000)));
        assert_eq!(space("1.5GiB"), Some(Space::Bytes(3 << 29)));
        assert_eq!(space("20%"), Some(Space::Percent(20)));
        for bad in ["", "B", "-1", "inf", "1x", "1.2.3", "NaN", "1i", "1e400", "101%", "%", "1%%"] {
            assert_eq!(space(bad), None, "{bad}");
        }
    }
}
