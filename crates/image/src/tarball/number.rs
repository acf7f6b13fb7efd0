//! Numbers in header fields: octal text, or base-256 when the first bit is set.

/// The value of a numeric field, `None` when it is malformed or does not fit.
///
/// Octal as Go's archive/tar and GNU tar read it: spaces and NULs around the digits, nothing at all
/// is 0. Base-256 is two's complement over the field's bits after the first.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => parse_base256(field),
        _ => parse_octal(field),
    }
}

fn parse_octal(field: &[u8]) -> Option<i64> {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
    let rest = field.get(start..)?;
    let end = rest.iter().position(padding).unwrap_or(rest.len());
    let digits = rest.get(..end)?;
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn parse_base256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    // Bit 7 is the marker, bit 6 the sign.
    let start = if negative { i128::from(*first) - 0x100 } else { i128::from(first & 0x7f) };
    let value = rest.iter().try_fold(start, |value, byte| {
        // Two bits of room are kept, so that an overflow is seen before it happens.
        if value.abs() > i128::MAX >> 10 {
            return None;
        }
        Some(value * 256 + i128::from(*byte))
    })?;
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_base256() {
        assert_eq!(parse(b"0000644\0"), Some(0o644));
        assert_eq!(parse(b"   644 \0"), Some(0o644));
        assert_eq!(parse(b"\0\0\0\0"), Some(0));
        assert_eq!(parse(b"77777777777"), Some(0o77777777777));
        assert_eq!(parse(b"12x"), None);
        assert_eq!(parse(b"-1"), None);
        assert_eq!(parse(&[0x80, 0, 0, 1, 0]), Some(256));
        assert_eq!(parse(&[0xff; 12]), Some(-1));
        assert_eq!(parse(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
