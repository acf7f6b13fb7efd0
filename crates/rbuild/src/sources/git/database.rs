//! The objects of one repository, as far as they were fetched.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufReader, Seek as _, Write};

use rbuild_cache::Scratch;
use rbuild_registry::BlobSink;
use rbuild_types::Ctx;

use super::error::GitError;
use super::loose;
use super::memory::Memory;
use super::object::{Commit, Kind, Naming, ObjectId, tagged};
use super::pack::Pack;
use super::remote::Remote;

/// Tags of tags that are followed.
const MAX_TAGS: usize = 8;

/// Objects by name, from packs, and from a server that has plain files.
pub(super) struct Database<'a> {
    remote: &'a Remote<'a>,
    scratch: &'a Scratch,
    ctx: Ctx<'a>,
    packs: RefCell<Vec<Pack>>,
    /// Whether the packs of a server with plain files were fetched.
    all_packs: Cell<bool>,
}

impl<'a> Database<'a> {
    pub(super) fn new(remote: &'a Remote<'a>, scratch: &'a Scratch, ctx: Ctx<'a>) -> Self {
        Self { remote, scratch, ctx, packs: RefCell::default(), all_packs: Cell::default() }
    }

    /// Makes an object with all that it needs available.
    pub(super) fn fetch(&self, id: &ObjectId) -> Result<(), GitError> {
        if self.remote.is_dumb() {
            return Ok(());
        }
        let (file, size) = self.remote.pack(id, self.temporary()?)?;
        self.packs.borrow_mut().push(Pack::open(file, size, self.ctx.cancel)?);
        Ok(())
    }

    /// A file without a name, so that it takes room only as long as it is open.
    fn temporary(&self) -> Result<File, GitError> {
        let path = self.scratch.path().join("new");
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(&path)?;
        fs_err::remove_file(&path)?;
        Ok(file.into_parts().0)
    }

    /// The commit that an id stands for, through tags.
    pub(super) fn commit(&self, id: &ObjectId) -> Result<(ObjectId, Commit), GitError> {
        let mut id = *id;
        for _ in 0..MAX_TAGS {
            let (kind, bytes) = self.read(&id)?;
            let next = match kind {
                Kind::Commit => {
                    let commit = Commit::parse(&bytes);
                    let commit = commit.ok_or_else(|| GitError::object(id, "bad commit"))?;
                    return Ok((id, commit));
                }
                Kind::Tag => tagged(&bytes).ok_or_else(|| GitError::object(id, "bad tag"))?,
                Kind::Tree | Kind::Blob => {
                    return Err(GitError::object(id, format!("it is a {}", kind.name())));
                }
            };
            id = next;
        }
        Err(GitError::object(id, "too many tags of tags"))
    }

    /// An object of the kind that is expected.
    pub(super) fn read_as(&self, kind: Kind, id: &ObjectId) -> Result<Vec<u8>, GitError> {
        let (found, bytes) = self.read(id)?;
        match found == kind {
            true => Ok(bytes),
            false => Err(GitError::object(*id, format!("it is a {}", found.name()))),
        }
    }

    /// An object of any kind.
    pub(super) fn read(&self, id: &ObjectId) -> Result<(Kind, Vec<u8>), GitError> {
        for pack in self.packs.borrow().iter() {
            if let Some(found) = pack.read(id)? {
                return Ok(found);
            }
        }
        if let Some(found) = self.loose(id)? {
            return Ok(found);
        }
        if self.remote.is_dumb() && !self.all_packs.replace(true) {
            self.fetch_packs()?;
            return self.read(id);
        }
        Err(GitError::object(*id, "the repository does not have it"))
    }

    /// Writes the bytes of a blob.
    pub(super) fn copy(&self, id: &ObjectId, out: &mut dyn Write) -> Result<(), GitError> {
        for pack in self.packs.borrow().iter() {
            if pack.copy(id, out)? {
                return Ok(());
            }
        }
        Ok(out.write_all(&self.read_as(Kind::Blob, id)?)?)
    }

    /// An object that is a file of its own on the server.
    fn loose(&self, id: &ObjectId) -> Result<Option<(Kind, Vec<u8>)>, GitError> {
        if !self.remote.is_dumb() {
            return Ok(None);
        }
        let hex = id.hex();
        let (directory, name) = hex.split_at(2);
        let mut sink = FileSink(self.temporary()?);
        let path = format!("/objects/{directory}/{name}");
        if self.remote.file(&path, &mut sink)?.is_none() {
            return Ok(None);
        }
        sink.0.rewind()?;
        let (kind, bytes) = loose::inflate(BufReader::new(sink.0))
            .ok_or_else(|| GitError::object(*id, "it cannot be unpacked"))?;
        match Naming::of(kind, &bytes) {
            Some(found) if found == *id => Ok(Some((kind, bytes))),
            _ => Err(GitError::object(*id, "its bytes are those of another")),
        }
    }

    /// All packs of a server with plain files: nothing says which has an object but the packs.
    fn fetch_packs(&self) -> Result<(), GitError> {
        let mut list = Memory::default();
        if self.remote.file("/objects/info/packs", &mut list)?.is_none() {
            return Ok(());
        }
        let list = String::from_utf8_lossy(&list.bytes).into_owned();
        for line in list.lines() {
            let Some(name) = line.strip_prefix("P ") else { continue };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            if !name.ends_with(".pack") || !name.bytes().all(plain) {
                continue;
            }
            let mut sink = FileSink(self.temporary()?);
            if self.remote.file(&format!("/objects/pack/{name}"), &mut sink)?.is_some() {
                let size = sink.0.metadata()?.len();
                self.packs.borrow_mut().push(Pack::open(sink.0, size, self.ctx.cancel)?);
            }
        }
        Ok(())
    }
}

struct FileSink(File);

impl BlobSink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn restart(&mut self) -> io::Result<()> {
        self.0.rewind()?;
        self.0.set_len(0)
    }
}
