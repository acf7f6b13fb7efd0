//! Pax extended headers: `LENGTH KEY=VALUE\n` records, read strictly.
//!
//! A malformed record is an error, never skipped: what one reader skips another one obeys.

use std::collections::BTreeMap;

use rbuild_rooted::Time;

/// The records of one extended header; the last of equal keys wins (POSIX pax).
#[derive(Debug, Default)]
pub(super) struct Records {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes` repeat: in the order of the header.
    pub(super) sparse_pairs: Vec<(bool, Vec<u8>)>,
}

/// Keys whose values are file names; those hold no NUL.
const NAMES: [&[u8]; 3] = [b"path", b"linkpath", b"GNU.sparse.name"];

impl Records {
    /// Reads all records, or says what is wrong.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut found = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(8).position(|byte| *byte == b' ');
            let space = space.ok_or("pax record without a length")?;
            let length = decimal(&bytes[..space]).ok_or("pax record with a malformed length")?;
            let length = usize::try_from(length).map_err(|_| "pax record with a huge length")?;
            let record = bytes.get(space + 1..length).ok_or("pax record longer than its header")?;
            let (newline, record) = record.split_last().ok_or("empty pax record")?;
            if *newline != b'\n' {
                return Err("pax record without a newline at its end");
            }
            let equals = record.iter().position(|byte| *byte == b'=');
            let equals = equals.ok_or("pax record without an equals sign")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err("pax record without a proper key");
            }
            if NAMES.contains(&key) && value.contains(&0) {
                return Err("NUL in a name");
            }
            match key {
                b"GNU.sparse.offset" => found.sparse_pairs.push((true, value.to_vec())),
                b"GNU.sparse.numbytes" => found.sparse_pairs.push((false, value.to_vec())),
                _ => {
                    found.records.insert(key.to_vec(), value.to_vec());
                }
            }
            bytes = &bytes[length..];
        }
        Ok(found)
    }

    /// The value of `key`; an empty value takes the header's own field back, so it is none.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// A non-negative decimal number.
    pub(super) fn number(&self, key: &'static str) -> Result<Option<u64>, String> {
        let Some(text) = self.get(key) else { return Ok(None) };
        decimal(text).map(Some).ok_or_else(|| format!("malformed pax {key}"))
    }

    /// Seconds with an optional fraction.
    pub(super) fn time(&self, key: &'static str) -> Result<Option<Time>, String> {
        let Some(text) = self.get(key) else { return Ok(None) };
        time(text).map(Some).ok_or_else(|| format!("malformed pax {key}"))
    }

    /// Every record whose key starts with `prefix`, without it, sorted.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.records.iter().filter_map(move |(key, value)| {
            Some((key.strip_prefix(prefix.as_bytes())?, value.as_slice()))
        })
    }

    /// Whether any of the keys that decide what an archive contains is set.
    pub(super) fn changes_entries(&self) -> bool {
        let decides = ["path", "linkpath", "size"];
        decides.iter().any(|key| self.records.contains_key(key.as_bytes()))
            || self.with_prefix("GNU.sparse.").next().is_some()
            || self.with_prefix("SCHILY.xattr.").next().is_some()
            || !self.sparse_pairs.is_empty()
    }
}

/// Digits only, at least one.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let place = |at: usize| u32::from(fraction.get(at).map_or(0, |digit| digit - b'0'));
    let nsec = (0..9).fold(0, |nsec, at| nsec * 10 + place(at));
    Some(match (negative, nsec) {
        (false, _) => Time { sec: seconds, nsec },
        (true, 0) => Time { sec: -seconds, nsec: 0 },
        (true, _) => Time { sec: -seconds - 1, nsec: 1_000_000_000 - nsec },
    })
}

/// Appends one record. Its length counts its own digits.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for size in [0, 1, 80, 86, 87, 88, 89, 90, 985, 990, 9990] {
            let mut bytes = Vec::new();
            append(&mut bytes, b"path", &vec![b'a'; size]);
            let records = Records::parse(&bytes).unwrap();
            assert_eq!(records.get("path").map_or(0, <[u8]>::len), size);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=b ",
            b"x a=b\n",
            b"6 a-b\n",
            b"5 =b\n",
            b" a=b\n",
            b"6a=b\n",
            b"-6 a=b\n",
            b"9 path=\0\n",
            b"10 path=\0\n",
            b"99999999999999999999 a=b\n",
            b"0 ",
            b"1 ",
            b"2 \n",
            b"3 \n",
        ] {
            assert!(Records::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(Records::parse(b"6 a=b\n").is_ok());
    }

    #[test]
    fn times_may_be_negative_and_have_fractions() {
        assert_eq!(time(b"1.5"), Some(Time { sec: 1, nsec: 500_000_000 }));
        assert_eq!(time(b"-1.25"), Some(Time { sec: -2, nsec: 750_000_000 }));
        assert_eq!(time(b"7.1234567899"), Some(Time { sec: 7, nsec: 123_456_789 }));
        assert_eq!(time(b"-"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
