//! Entries to header blocks, in one fixed form.
//!
//! * USTAR (`ustar\0`, version `00`), numbers in octal with leading zeros and a NUL at the end;
//!   user and group *names* empty; device numbers 0 for what is not a device.
//! * Directories end in `/`.
//! * A name that does not fit its field is split at the last `/` that makes both parts fit
//!   (prefix of 155, name of 100 bytes); where there is none, it goes into a pax record.
//! * A pax header stands in front only where a field cannot hold its value: long names and link
//!   targets, ids from 2^21, sizes from 2^33, times before 1970 or from 2^33, and extended
//!   attributes (`SCHILY.xattr.`). Records are sorted by key. The header's own name is
//!   `PaxHeaders.0/` and the entry's last name.
//! * Times are whole seconds, rounded down. BuildKit keeps fractions where files have them; whole
//!   seconds survive every store and every tool.
//! * Names are bytes: nothing is converted to another character set.

use super::{BLOCK, Entry, EntryKind, pax};
use crate::error::ImageError;

/// What stands after the last entry: two blocks of zeros, no further padding.
pub const END_OF_ARCHIVE: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Largest values of the octal fields of 8 and 12 bytes.
const SMALL: u64 = 0o7777777;
const LARGE: u64 = 0o77777777777;
const PAX_DIRECTORY: &[u8] = b"PaxHeaders.0/";

/// Zeros after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Appends the header blocks of `entry` to `out`; its content and [`padding`] come after them.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), ImageError> {
    let mut path = entry.path.clone();
    if entry.kind == EntryKind::Directory && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    let mut records = Vec::new();
    let mut record =
        |key: &str, value: &[u8]| records.push((key.as_bytes().to_vec(), value.to_vec()));
    let mut header = tar::Header::new_ustar();

    let split = split_path(&path);
    if split.is_none() {
        record("path", &path);
    }
    if entry.link.len() > 100 {
        record("linkpath", &entry.link);
    }
    for (key, value) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(value) > SMALL {
            record(key, value.to_string().as_bytes());
        }
    }
    if entry.size > LARGE {
        record("size", entry.size.to_string().as_bytes());
    }
    let mtime = u64::try_from(entry.mtime.sec).ok().filter(|seconds| *seconds <= LARGE);
    if mtime.is_none() {
        record("mtime", entry.mtime.sec.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        records.push(([b"SCHILY.xattr.", &name[..]].concat(), value.clone()));
    }

    if !records.is_empty() {
        encode_pax(&path, records, out)?;
    }
    let (prefix, name) = split.unwrap_or((&[], &path[..path.len().min(100)]));
    let old = header.as_old_mut();
    put(&mut old.name, name);
    put(&mut old.linkname, &entry.link[..entry.link.len().min(100)]);
    old.linkflag = [match entry.kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }];
    octal(&mut old.mode, u64::from(entry.mode & 0o7777));
    octal(&mut old.uid, u64::from(entry.uid));
    octal(&mut old.gid, u64::from(entry.gid));
    octal(&mut old.size, entry.size);
    octal(&mut old.mtime, mtime.unwrap_or(0));
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.prefix, prefix);
        octal(&mut ustar.dev_major, u64::from(entry.device.0));
        octal(&mut ustar.dev_minor, u64::from(entry.device.1));
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    Ok(())
}

fn encode_pax(
    path: &[u8],
    mut records: Vec<(Vec<u8>, Vec<u8>)>,
    out: &mut Vec<u8>,
) -> Result<(), ImageError> {
    records.sort_unstable();
    let mut content = Vec::new();
    for (key, value) in &records {
        // The key ends at the first equals sign, so one inside it could not be read back.
        if key.contains(&b'=') || key.contains(&0) {
            return Err(ImageError::archive(path, "attribute name that pax cannot hold"));
        }
        pax::append(&mut content, key, value);
    }
    let last = path.strip_suffix(b"/").unwrap_or(path);
    let last = last.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = [PAX_DIRECTORY, last].concat();
    let mut header = tar::Header::new_ustar();
    let old = header.as_old_mut();
    put(&mut old.name, &name[..name.len().min(100)]);
    old.linkflag = [b'x'];
    for field in [&mut old.mode, &mut old.uid, &mut old.gid] {
        octal(field, 0);
    }
    octal(&mut old.size, content.len() as u64);
    octal(&mut old.mtime, 0);
    if let Some(ustar) = header.as_ustar_mut() {
        octal(&mut ustar.dev_major, 0);
        octal(&mut ustar.dev_minor, 0);
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&content);
    out.resize(out.len() + padding(content.len() as u64), 0);
    Ok(())
}

/// Prefix and name, `None` when they do not fit.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    // The name may not be empty, so the slash at the end of a directory does not split.
    let inner = &path[..path.len() - 1];
    let mut slashes = inner.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let at = slashes.rfind(|at| *at <= 155)?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (!prefix.is_empty() && name.len() <= 100).then_some((prefix, name))
}

fn put(field: &mut [u8], value: &[u8]) {
    field.fill(0);
    field.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
}

/// Leading zeros and a NUL at the end. Values that do not fit were put into a pax record and
/// stand as 0.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let fits = digits * 3 >= 64 || value >> (digits * 3) == 0;
    let text = format!("{:0digits$o}\0", if fits { value } else { 0 });
    put(field, text.as_bytes());
}
