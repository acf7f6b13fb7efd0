//! A tar to an eStargz blob, as it is written.

use std::io::{self, Write};

use rayon::ThreadPool;
use rbuild_types::{Digest, Hasher};

use super::toc::{Toc, TocEntry};
use super::{CHUNK, Estargz, TOC_NAME, footer};
use crate::compress::{Ordered, gzip_member};
use crate::error::ImageError;
use crate::tarball::{self, BLOCK, END_OF_ARCHIVE, Entry, EntryKind, HeaderBlock};

/// Makes an eStargz blob of the tar that is written to it.
///
/// The bytes depend on the tar and the level alone, never on the number of threads or on how the tar
/// is cut into writes. At most two members per thread are in memory, besides the one being filled and
/// the table of contents. Nothing is complete before [`EstargzWriter::finish`].
pub struct EstargzWriter<'p, W> {
    sink: W,
    level: u32,
    ordered: Ordered<'p, Member>,
    part: Part,
    /// Headers of an entry that are not all there yet.
    headers: Vec<u8>,
    /// How long they have to be for the next look at them.
    wanted: usize,
    /// Where in them the last one starts.
    last: usize,
    /// What the next member will hold, and how much of it, from the start, is content.
    member: Vec<u8>,
    content: usize,
    /// Of the members that were started, how many; of those that were written, the offsets and the
    /// digests of their contents.
    started: usize,
    written: Vec<(u64, Option<Digest>)>,
    size: u64,
    entries: Vec<TocEntry>,
    diff_id: Hasher,
    uncompressed_size: u64,
}

/// More than the headers of any entry that can be read.
const MOST_HEADERS: usize = 4 << 20;
/// How the names of pax records about holes start.
const SPARSE: &[u8] = b"GNU.sparse.";

fn sparse(path: &[u8]) -> ImageError {
    ImageError::archive(path, "eStargz cannot hold a sparse file: take another compression")
}

/// What the next bytes are.
enum Part {
    /// Of the headers of an entry, or the end.
    Headers,
    /// Content of a file.
    Content(Box<File>),
    /// Padding behind it.
    Padding(usize),
    /// What stands behind the end.
    Rest,
}

/// A file under way.
struct File {
    entry: Entry,
    /// Its place in the table.
    number: usize,
    at: u64,
    /// Of all content, if there are several chunks.
    hasher: Option<Hasher>,
}

/// A finished member.
struct Member {
    bytes: Vec<u8>,
    content: Option<Digest>,
}

impl<'p, W: Write> EstargzWriter<'p, W> {
    /// Starts a blob in `sink`, compressed at this level of gzip.
    pub fn new(sink: W, level: u32, pool: &'p ThreadPool) -> Self {
        Self {
            sink,
            level,
            ordered: Ordered::new(pool),
            part: Part::Headers,
            headers: Vec::new(),
            wanted: BLOCK,
            last: 0,
            member: Vec::new(),
            content: 0,
            started: 0,
            written: Vec::new(),
            size: 0,
            entries: Vec::new(),
            diff_id: Hasher::new(),
            uncompressed_size: 0,
        }
    }

    /// Ends the blob, flushes the sink and gives it back.
    ///
    /// # Errors
    ///
    /// When the tar is not whole, and when the sink cannot be written to.
    pub fn finish(mut self) -> io::Result<(W, Estargz)> {
        // Some archives end with a single block of zeros.
        if matches!(self.part, Part::Headers) && !self.headers.is_empty() {
            self.entry()?;
        }
        if matches!(self.part, Part::Content(_)) || matches!(self.part, Part::Padding(1..)) {
            return Err(ImageError::archive(b"", "the archive is truncated").into());
        }
        self.cut()?;
        while let Some(member) = self.ordered.next()? {
            self.put(&member)?;
        }
        let toc = self.table()?;
        let mut tar = Vec::new();
        let size = toc.len() as u64;
        let entry = Entry { size, ..Entry::new(TOC_NAME, EntryKind::File, 0o444) };
        tarball::encode(&entry, &mut tar)?;
        tar.extend_from_slice(&toc);
        tar.resize(tar.len() + tarball::padding(size), 0);
        tar.extend_from_slice(&END_OF_ARCHIVE);
        self.diff_id.update(&tar);
        self.sink.write_all(&gzip_member(&tar, self.level)?)?;
        self.sink.write_all(&footer(self.size))?;
        self.sink.flush()?;
        let made = Estargz {
            toc_digest: Digest::of(&toc),
            diff_id: self.diff_id.finish(),
            uncompressed_size: self.uncompressed_size + tar.len() as u64,
        };
        Ok((self.sink, made))
    }

    /// The table of contents, now that it is known where all members are.
    fn table(&mut self) -> Result<Vec<u8>, ImageError> {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in &mut entries {
            let member = entry.member.and_then(|number| self.written.get(number));
            if let Some((offset, digest)) = member {
                (entry.offset, entry.chunk_digest) = (Some(*offset), *digest);
                // Of one chunk it is the same.
                if entry.is_file() {
                    entry.digest = entry.digest.or(*digest);
                }
            }
        }
        Toc::to_bytes(entries)
    }

    /// Takes some of the bytes.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.part {
            Part::Headers => {
                let count = bytes.len().min(self.wanted - self.headers.len());
                self.headers.extend_from_slice(&bytes[..count]);
                if self.headers.len() == self.wanted {
                    self.look()?;
                }
                return Ok(count);
            }
            Part::Content(file) => {
                let left = usize::try_from(file.entry.size - file.at).unwrap_or(usize::MAX);
                let count = bytes.len().min(left).min(CHUNK - self.content);
                if let Some(hasher) = &mut file.hasher {
                    hasher.update(&bytes[..count]);
                }
                file.at += count as u64;
                self.content += count;
                count
            }
            Part::Padding(left) => {
                let count = bytes.len().min(*left);
                *left -= count;
                count
            }
            Part::Rest => bytes.len().min(CHUNK),
        };
        self.member.extend_from_slice(&bytes[..count]);
        self.after()?;
        Ok(count)
    }

    /// Goes on to the next part when one is complete.
    fn after(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.part, Part::Headers) {
            Part::Content(file) if file.at == file.entry.size => self.end_file(*file),
            Part::Content(file) => {
                if self.content == CHUNK {
                    self.start_chunk(TocEntry::chunk(&file.entry, file.at), &file)?;
                }
                self.part = Part::Content(file);
            }
            Part::Padding(0) | Part::Headers => {}
            other => self.part = other,
        }
        match self.member.len() - self.content >= CHUNK {
            true => self.cut(),
            false => Ok(()),
        }
    }

    /// Sees whether the headers of an entry are complete.
    fn look(&mut self) -> io::Result<()> {
        if self.wanted - self.last > BLOCK {
            // That was the content of one that describes the next.
            (self.last, self.wanted) = (self.wanted, self.wanted + BLOCK);
            return Ok(());
        }
        let block = self.headers.last_chunk().map(tarball::header_block);
        match block.unwrap_or(HeaderBlock::Entry) {
            // Nothing keeps an archive from having any number of global headers.
            _ if self.headers.len() > MOST_HEADERS => {
                return Err(ImageError::archive(b"", "more headers than an entry has").into());
            }
            HeaderBlock::Extension(0) => {
                (self.last, self.wanted) = (self.wanted, self.wanted + BLOCK)
            }
            HeaderBlock::Extension(blocks) => self.wanted += blocks * BLOCK,
            // The end of an archive is two.
            HeaderBlock::Zeros if self.headers.len() == BLOCK => {
                (self.last, self.wanted) = (BLOCK, 2 * BLOCK);
            }
            _ => self.entry()?,
        }
        Ok(())
    }

    /// Takes an entry whose headers are complete, or the end.
    fn entry(&mut self) -> io::Result<()> {
        let headers = std::mem::take(&mut self.headers);
        (self.last, self.wanted) = (0, BLOCK);
        let found = tarball::Reader::new(headers.as_slice()).next_entry();
        let is_sparse = || headers.windows(SPARSE.len()).any(|bytes| bytes == SPARSE);
        let found = match found {
            // Its map stands where headers end.
            Err(_) if is_sparse() => return Err(sparse(b"").into()),
            found => found?,
        };
        self.member.extend_from_slice(&headers);
        let Some(entry) = found else {
            self.part = Part::Rest;
            return self.after();
        };
        let refuse = |problem| Err(ImageError::archive(&entry.path, problem).into());
        if entry.sparse.is_some() {
            return Err(sparse(&entry.path).into());
        }
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        if name == TOC_NAME.as_bytes() {
            return refuse("eStargz has a file of its own by this name: take another compression");
        }
        let mut known = TocEntry::new(&entry);
        if entry.kind != EntryKind::File || entry.size == 0 {
            known.digest = (entry.kind == EntryKind::File).then(|| Digest::of(b""));
            self.entries.push(known);
            return self.after();
        }
        let hasher = (entry.size > CHUNK as u64).then(Hasher::new);
        let file = File { number: self.entries.len(), entry, at: 0, hasher };
        self.start_chunk(known, &file)?;
        self.part = Part::Content(Box::new(file));
        Ok(())
    }

    /// Lets a member begin with content of a file.
    fn start_chunk(&mut self, mut chunk: TocEntry, file: &File) -> io::Result<()> {
        self.cut()?;
        chunk.member = Some(self.started);
        if file.entry.size - file.at >= CHUNK as u64 {
            chunk.chunk_size = CHUNK as u64;
        }
        self.entries.push(chunk);
        Ok(())
    }

    fn end_file(&mut self, file: File) {
        if let (Some(hasher), Some(entry)) = (file.hasher, self.entries.get_mut(file.number)) {
            entry.digest = Some(hasher.finish());
        }
        self.part = match tarball::padding(file.entry.size) {
            0 => Part::Headers,
            padding => Part::Padding(padding),
        };
    }

    /// Lets the member go, if there is anything in it.
    fn cut(&mut self) -> io::Result<()> {
        if self.member.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.member);
        let content = std::mem::take(&mut self.content);
        let level = self.level;
        self.started += 1;
        let ready = self.ordered.start(move || {
            let content = bytes.get(..content).filter(|content| !content.is_empty());
            let content = content.map(Digest::of);
            Ok(Member { bytes: gzip_member(&bytes, level)?, content })
        })?;
        match ready {
            Some(member) => self.put(&member),
            None => Ok(()),
        }
    }

    fn put(&mut self, member: &Member) -> io::Result<()> {
        self.written.push((self.size, member.content));
        self.size += member.bytes.len() as u64;
        self.sink.write_all(&member.bytes)
    }
}

impl<W: Write> Write for EstargzWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.take(bytes)?;
        self.diff_id.update(&bytes[..count]);
        self.uncompressed_size += count as u64;
        Ok(count)
    }

    /// Does nothing: cutting a member short would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
