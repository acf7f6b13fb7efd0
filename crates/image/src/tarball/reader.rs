//! Reads entries of a tar stream one by one, with GNU and pax overrides applied.
//!
//! What the reader promises about an archive written by a stranger:
//!
//! * A pax `size` always decides where the next header is, whatever the header's own field says.
//! * Checks are made on names and numbers after every override; NUL in a name, malformed pax
//!   records, wrong checksums, negative sizes and unknown entry types are errors.
//! * Two overrides of one kind in front of one entry, or a GNU long name that contradicts pax, are
//!   errors: readers differ in which of them they obey.
//! * Memory is bounded by [`crate::limits`], whatever sizes are claimed.
//! * Links, directories, devices and pipes have no content, as in Go's archive/tar.

use std::io::{self, Read};

use rbuild_rooted::Time;

use super::pax::{self, Records};
use super::sparse::{self, Map};
use super::{BLOCK, Entry, EntryKind, number, padding};
use crate::error::ImageError;
use crate::limits;

/// Yields the entries of a tar stream; between two calls of [`Reader::next_entry`] it is a `Read`
/// over the stored bytes of the current entry.
pub struct Reader<R> {
    source: R,
    /// Stored bytes of the current entry that were not read yet.
    left: u64,
    /// Padding after them.
    padding: usize,
    ended: bool,
}

type Raw = [u8; BLOCK];

/// What a block is that stands where a header may, for those who get a tar piece by piece.
pub(crate) enum HeaderBlock {
    /// Of the end, or padding.
    Zeros,
    /// A header that describes the next one, and how many blocks its content has.
    Extension(usize),
    /// The header of an entry, or none at all: [`Reader`] says what is wrong with it.
    Entry,
}

/// Looks at a block. Nothing is said of its being sound.
pub(crate) fn header_block(raw: &[u8; BLOCK]) -> HeaderBlock {
    let limit = match raw[156] {
        b'x' | b'g' => limits::PAX,
        b'L' | b'K' => limits::LONG_NAME,
        _ if raw.iter().all(|byte| *byte == 0) => return HeaderBlock::Zeros,
        _ => return HeaderBlock::Entry,
    };
    match size_field(raw) {
        Ok(size) if size <= limit => HeaderBlock::Extension(size.div_ceil(BLOCK as u64) as usize),
        _ => HeaderBlock::Entry,
    }
}

/// Headers that stand in front of an entry and change it.
#[derive(Default)]
struct Overrides {
    pax: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts at the first header.
    pub fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, ended: false }
    }

    /// The stream behind; what stands after the end of the archive was not read from it.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The stream behind, at the next stored byte of the current entry.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Skips what is left of the current entry and reads the next one; `None` at the end.
    ///
    /// An archive ends with two blocks of zeros, with one, or with the stream.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ImageError> {
        let mut overrides = Overrides::default();
        loop {
            let Some(raw) = self.next_header(&overrides)? else { return Ok(None) };
            let shown = header_path(&raw);
            let error = |problem: &str| ImageError::archive(&shown, problem);
            let flag = raw[156];
            match flag {
                b'x' | b'g' => {
                    let bytes = self.read_extension(&raw, limits::PAX)?;
                    let records = Records::parse(&bytes).map_err(error)?;
                    if flag == b'g' {
                        // Docker and containerd ignore global headers (git writes a comment into
                        // one); one that changes entries would make readers disagree.
                        if records.changes_entries() {
                            return Err(error("global pax header that changes entries"));
                        }
                    } else if overrides.pax.replace(records).is_some() {
                        return Err(error("two pax headers for one entry"));
                    }
                }
                b'L' | b'K' => {
                    let mut name = self.read_extension(&raw, limits::LONG_NAME)?;
                    if name.last() == Some(&0) {
                        name.pop();
                    }
                    if name.is_empty() || name.contains(&0) {
                        return Err(error("empty GNU long name or NUL in one"));
                    }
                    let slot = match flag {
                        b'L' => &mut overrides.long_name,
                        _ => &mut overrides.long_link,
                    };
                    if slot.replace(name).is_some() {
                        return Err(error("two GNU long names for one entry"));
                    }
                }
                _ => return self.finish_entry(&raw, overrides).map(Some),
            }
        }
    }

    /// Reads to the end of the stream, so that a digest over it covers all of its bytes.
    pub fn drain(&mut self) -> Result<(), ImageError> {
        io::copy(&mut self.source, &mut io::sink()).map_err(ImageError::read("archive"))?;
        Ok(())
    }

    fn next_header(&mut self, overrides: &Overrides) -> Result<Option<Raw>, ImageError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_content()?;
        let pending = overrides.pax.is_some()
            || overrides.long_name.is_some()
            || overrides.long_link.is_some();
        let header = match self.read_block()? {
            Some(raw) if raw.iter().any(|byte| *byte != 0) => Some(raw),
            Some(_) => {
                if self.read_block()?.is_some_and(|raw| raw.iter().any(|byte| *byte != 0)) {
                    return Err(ImageError::archive(b"", "a header after a block of zeros"));
                }
                None
            }
            None => None,
        };
        if header.is_none() {
            self.ended = true;
            if pending {
                return Err(ImageError::archive(b"", "the archive ends inside an entry"));
            }
        }
        if let Some(raw) = &header {
            check_sum(raw)?;
        }
        Ok(header)
    }

    /// The content of a header that describes the next one.
    fn read_extension(&mut self, raw: &Raw, limit: u64) -> Result<Vec<u8>, ImageError> {
        let shown = header_path(raw);
        let size = size_field(raw).map_err(|problem| ImageError::archive(&shown, problem))?;
        if size > limit {
            let problem = format!("extended header of {size} bytes, more than {limit}");
            return Err(ImageError::archive(&shown, problem));
        }
        self.start_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(ImageError::read("archive"))?;
        Ok(bytes)
    }

    fn finish_entry(&mut self, raw: &Raw, overrides: Overrides) -> Result<Entry, ImageError> {
        let shown = overrides.long_name.clone().unwrap_or_else(|| header_path(raw));
        let pax = overrides.pax.unwrap_or_default();
        let mut entry = decode(raw, &pax, overrides.long_name, overrides.long_link)
            .map_err(|problem| ImageError::archive(&shown, problem))?;
        let error = |problem: String| ImageError::archive(&shown, problem);
        let mut stored = size_field(raw).map_err(|problem| error(problem.to_owned()))?;
        if let Some(size) = pax.number("size").map_err(error)? {
            if i64::try_from(size).is_err() {
                return Err(error("size beyond any file".to_owned()));
            }
            stored = size;
        }
        if entry.kind != EntryKind::File {
            self.start_content(0);
            return Ok(entry);
        }
        self.start_content(stored);
        entry.size = stored;
        if raw[156] == b'S' {
            self.read_gnu_sparse(raw, stored, &mut entry)?;
        } else {
            self.read_pax_sparse(&pax, &mut entry)?;
        }
        Ok(entry)
    }

    /// GNU's own form: four segments in the header, more in blocks that follow it.
    fn read_gnu_sparse(
        &mut self,
        raw: &Raw,
        stored: u64,
        entry: &mut Entry,
    ) -> Result<(), ImageError> {
        let path = entry.path.clone();
        let error = |problem: String| ImageError::archive(&path, problem);
        let size = number::parse(&raw[483..495]).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| error("malformed sparse size".to_owned()))?;
        let mut map = Map::default();
        let mut ended = sparse::push_gnu_fields(&mut map, &raw[386..482]).map_err(error)?;
        let mut more = raw[482] != 0;
        // These blocks come before the content and are not counted in its size.
        while more {
            let block = self.read_block()?.ok_or_else(|| error("truncated".to_owned()))?;
            if !ended {
                ended = sparse::push_gnu_fields(&mut map, &block[..504]).map_err(error)?;
            }
            more = block[504] != 0;
        }
        entry.sparse = Some(map.finish(stored, size).map_err(error)?);
        entry.size = size;
        Ok(())
    }

    /// Pax forms 0.0, 0.1 (the map is in the records) and 1.0 (it is in front of the content).
    fn read_pax_sparse(&mut self, pax: &Records, entry: &mut Entry) -> Result<(), ImageError> {
        let path = entry.path.clone();
        let error = |problem: String| ImageError::archive(&path, problem);
        let version = (pax.get("GNU.sparse.major"), pax.get("GNU.sparse.minor"));
        let in_records = pax.get("GNU.sparse.map").is_some() || !pax.sparse_pairs.is_empty();
        let (map, size) = match version {
            (Some(b"1"), Some(b"0")) => (self.read_sparse_1_0(&path)?, "GNU.sparse.realsize"),
            (None, None) | (Some(b"0"), Some(b"0" | b"1")) if in_records => {
                (sparse::pax_0(pax).map_err(error)?, "GNU.sparse.size")
            }
            (None, None) => return Ok(()),
            _ => return Err(error("unknown sparse format".to_owned())),
        };
        let size = pax.number(size).map_err(error)?;
        let size = size.filter(|size| i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| error("sparse file without a size".to_owned()))?;
        if let Some(name) = pax.get("GNU.sparse.name") {
            entry.path = name.to_vec();
        }
        entry.sparse = Some(map.finish(self.left, size).map_err(error)?);
        entry.size = size;
        Ok(())
    }

    fn read_sparse_1_0(&mut self, path: &[u8]) -> Result<Map, ImageError> {
        let error = |problem: &str| ImageError::archive(path, problem);
        let before = self.left;
        let count = self.read_decimal_line(path)?;
        if count > limits::SPARSE_SEGMENTS as u64 {
            return Err(error("too many sparse segments"));
        }
        let mut map = Map::default();
        for _ in 0..count {
            let (offset, length) = (self.read_decimal_line(path)?, self.read_decimal_line(path)?);
            map.push(offset, length).map_err(|problem| error(&problem))?;
        }
        let mut rest = [0; BLOCK];
        let rest = &mut rest[..padding(before - self.left)];
        self.read_exact(rest).map_err(ImageError::read("archive"))?;
        Ok(map)
    }

    fn read_decimal_line(&mut self, path: &[u8]) -> Result<u64, ImageError> {
        let mut line = Vec::with_capacity(20);
        loop {
            let mut byte = [0];
            self.read_exact(&mut byte).map_err(ImageError::read("archive"))?;
            if byte[0] == b'\n' || line.len() >= 20 {
                break;
            }
            line.push(byte[0]);
        }
        pax::decimal(&line).ok_or_else(|| ImageError::archive(path, "malformed sparse map"))
    }

    fn start_content(&mut self, size: u64) {
        self.left = size;
        self.padding = padding(size);
    }

    fn skip_content(&mut self) -> Result<(), ImageError> {
        let skip = self.left.saturating_add(self.padding as u64);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.source).take(skip), &mut io::sink())
            .map_err(ImageError::read("archive"))?;
        if skipped < skip {
            return Err(ImageError::archive(b"", "the archive is truncated"));
        }
        Ok(())
    }

    /// One block, `None` when the stream ends before its first byte.
    fn read_block(&mut self) -> Result<Option<Raw>, ImageError> {
        let mut raw = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut raw[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ImageError::archive(b"", "the archive is truncated")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImageError::read("archive")(error)),
            }
        }
        Ok(Some(raw))
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(ImageError::archive(b"", "the archive is truncated").into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn check_sum(raw: &Raw) -> Result<(), ImageError> {
    let claimed = number::parse(&raw[148..156]);
    let bytes = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let sum: i64 = raw.iter().enumerate().map(|(at, byte)| i64::from(bytes(at, *byte))).sum();
    // Some old programs summed signed bytes.
    let signed = || -> i64 {
        raw.iter().enumerate().map(|(at, byte)| i64::from(bytes(at, *byte) as i8)).sum()
    };
    if claimed == Some(sum) || claimed.is_some_and(|claimed| claimed == signed()) {
        return Ok(());
    }
    Err(ImageError::archive(b"", "header with a wrong checksum, or not a tar archive"))
}

fn size_field(raw: &Raw) -> Result<u64, &'static str> {
    let size = number::parse(&raw[124..136]).ok_or("malformed size")?;
    u64::try_from(size).map_err(|_| "negative size")
}

/// The field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The name in the header itself: POSIX and star formats have a prefix, GNU's has other fields there.
fn header_path(raw: &Raw) -> Vec<u8> {
    let name = text(&raw[..100]);
    if &raw[257..263] != b"ustar\0" {
        return name.to_vec();
    }
    let star = &raw[508..512] == b"tar\0";
    let prefix = text(if star { &raw[345..476] } else { &raw[345..500] });
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn decode(
    raw: &Raw,
    pax: &Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
) -> Result<Entry, String> {
    let pick = |key: &str, long: Option<Vec<u8>>, field: Vec<u8>| match (pax.get(key), long) {
        (Some(pax), Some(gnu)) if pax != gnu => Err(format!("pax {key} contradicts GNU's")),
        (Some(pax), _) => Ok(pax.to_vec()),
        (None, Some(gnu)) => Ok(gnu),
        (None, None) => Ok(field),
    };
    let path = pick("path", long_name, header_path(raw))?;
    let link = pick("linkpath", long_link, text(&raw[157..257]).to_vec())?;
    let kind = match raw[156] {
        // Archives from before POSIX tell directories by their slash.
        0 | b'0' if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => return Err(format!("unknown entry type {:?}", char::from(other))),
    };
    let field = |name: &str, range: std::ops::Range<usize>| {
        number::parse(&raw[range]).ok_or_else(|| format!("malformed {name}"))
    };
    let id = |key: &'static str, range: std::ops::Range<usize>| {
        let value = match pax.number(key)? {
            Some(value) => value,
            None => u64::try_from(field(key, range)?).map_err(|_| format!("negative {key}"))?,
        };
        // The last id means "no change" to the kernel.
        match u32::try_from(value) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(format!("{key} {value} is none that Linux has")),
        }
    };
    let device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    let number = |name: &str, range: std::ops::Range<usize>| match device {
        true => u32::try_from(field(name, range)?).map_err(|_| format!("malformed {name}")),
        false => Ok(0),
    };
    let linked = matches!(kind, EntryKind::HardLink | EntryKind::Symlink);
    if linked && link.is_empty() {
        return Err("link without a target".to_owned());
    }
    Ok(Entry {
        kind,
        path,
        link: if linked { link } else { Vec::new() },
        mode: (field("mode", 100..108)? & 0o7777) as u32,
        uid: id("uid", 108..116)?,
        gid: id("gid", 116..124)?,
        size: 0,
        mtime: match pax.time("mtime")? {
            Some(time) => time,
            None => Time { sec: field("mtime", 136..148)?, nsec: 0 },
        },
        device: (number("device number", 329..337)?, number("device number", 337..345)?),
        xattrs: pax
            .with_prefix("SCHILY.xattr.")
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
        sparse: None,
    })
}
