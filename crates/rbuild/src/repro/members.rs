//! What archives hold, as far as it takes to say that two differ in order or times only.
//!
//! Whatever is not understood is no archive: a difference of it has no known cause.

/// A file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) size: u64,
    /// As the archive writes it.
    pub(crate) time: Vec<u8>,
}

/// Members of archives that are looked at.
const MEMBERS: usize = 1 << 16;

/// The members of a zip, ar or tar file in their order; `None` for what is none of them.
pub(crate) fn members(bytes: &[u8]) -> Option<Vec<Member>> {
    if bytes.starts_with(b"PK\x03\x04") {
        return zip(bytes);
    }
    if bytes.starts_with(b"!<arch>\n") {
        return ar(bytes);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return tar(bytes);
    }
    None
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let digits = bytes.get(at..at.checked_add(length)?)?;
    Some(digits.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

/// By the central directory, whose end is in the last 64 KiB: APPNOTE.TXT 4.3.12 and 4.3.16.
fn zip(bytes: &[u8]) -> Option<Vec<Member>> {
    let tail = bytes.len().saturating_sub((1 << 16) + 22);
    let end = bytes.get(tail..)?.windows(4).rposition(|word| word == b"PK\x05\x06")? + tail;
    let mut at = number(bytes, end + 16, 4)?;
    let mut found = Vec::new();
    while bytes.get(at..)?.starts_with(b"PK\x01\x02") && found.len() < MEMBERS {
        let [name, extra, comment] = [28, 30, 32].map(|field| number(bytes, at + field, 2));
        let (name, extra, comment) = (name?, extra?, comment?);
        found.push(Member {
            name: bytes.get(at + 46..at + 46 + name)?.to_vec(),
            size: number(bytes, at + 24, 4)? as u64,
            time: bytes.get(at + 12..at + 16)?.to_vec(),
        });
        at += 46 + name + extra + comment;
    }
    Some(found)
}

fn ar(bytes: &[u8]) -> Option<Vec<Member>> {
    let (mut at, mut found) = (8_usize, Vec::new());
    while at < bytes.len() && found.len() < MEMBERS {
        let header = bytes.get(at..at + 60)?;
        let size: usize = std::str::from_utf8(&header[48..58]).ok()?.trim().parse().ok()?;
        found.push(Member {
            name: header[..16].to_vec(),
            size: size as u64,
            time: header[16..28].to_vec(),
        });
        at = at.checked_add(60)?.checked_add(size)?;
        at += at % 2;
    }
    Some(found)
}

fn tar(bytes: &[u8]) -> Option<Vec<Member>> {
    let octal = |field: &[u8]| {
        let text = std::str::from_utf8(field).ok()?;
        usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
    };
    let (mut at, mut found) = (0_usize, Vec::new());
    while let Some(header) = bytes.get(at..at.checked_add(512)?) {
        if header.iter().all(|byte| *byte == 0) || found.len() >= MEMBERS {
            break;
        }
        let size = octal(&header[124..136])?;
        let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let time = header[136..148].to_vec();
        found.push(Member { name: name.to_vec(), size: size as u64, time });
        at = at.checked_add(512)?.checked_add(size.checked_next_multiple_of(512)?)?;
    }
    Some(found)
}
