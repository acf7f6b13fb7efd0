//! Reads image archives: tars of OCI layouts and of `docker save`.
//!
//! The archive is scanned once for its members; their contents stay in the file and are read by
//! offset. Only regular members count. Old `docker save` archives hold layers as links to others:
//! those are followed inside the archive, and only for docker-save names.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rbuild_types::Digest;

use crate::blob::BlobSource;
use crate::docker_archive::{MANIFEST_FILE, SavedImage};
use crate::error::ImageError;
use crate::index::Index;
use crate::layout::{self, INDEX_FILE, LAYOUT_FILE, blob_path};
use crate::tarball::{EntryKind, Reader};
use crate::{json, limits};

/// An archive of images in a file that can be read at any offset; not compressed as a whole.
#[derive(Debug)]
pub struct ImageArchive {
    file: File,
    members: HashMap<String, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size: u64 },
    Link { target: String },
}

/// Links followed for one name.
const MAX_LINKS: usize = 8;

impl ImageArchive {
    /// Scans an archive.
    pub fn open(file: File) -> Result<Self, ImageError> {
        let counting = Counting { file: &file, offset: 0 };
        let mut reader = Reader::new(counting);
        let mut members = HashMap::new();
        while let Some(entry) = reader.next_entry()? {
            let error = |problem: &str| ImageError::archive(&entry.path, problem);
            if members.len() >= limits::ARCHIVE_MEMBERS {
                return Err(error("too many members"));
            }
            let name = member_name(&entry.path);
            let member = match entry.kind {
                EntryKind::File if entry.sparse.is_none() => {
                    Member::File { offset: reader.source().offset, size: entry.size }
                }
                EntryKind::File => return Err(error("a file with holes in an image archive")),
                EntryKind::HardLink => Member::Link { target: member_name(&entry.link) },
                EntryKind::Symlink => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = [parent.as_bytes(), b"/", &entry.link].concat();
                    Member::Link { target: member_name(&target) }
                }
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Self { file, members })
    }

    /// The images that `index.json` lists; `None` when the archive is no OCI layout.
    pub fn index(&self) -> Result<Option<Index>, ImageError> {
        if !self.members.contains_key(LAYOUT_FILE) {
            return Ok(None);
        }
        layout::check_version(&self.document(LAYOUT_FILE)?)?;
        layout::parse_index(&self.document(INDEX_FILE)?).map(Some)
    }

    /// The images that `manifest.json` lists; `None` when there is no such file.
    pub fn saved_images(&self) -> Result<Option<Vec<SavedImage>>, ImageError> {
        if !self.members.contains_key(MANIFEST_FILE) {
            return Ok(None);
        }
        let images: Vec<SavedImage> = json::parse(&self.document(MANIFEST_FILE)?, MANIFEST_FILE)?;
        if images.iter().any(|image| image.layers.len() > limits::LAYERS) {
            let problem = format!("more than {} layers", limits::LAYERS);
            return Err(ImageError::document(MANIFEST_FILE, problem));
        }
        Ok(Some(images))
    }

    /// Opens a member that [`SavedImage`] names, following links inside the archive. Its digest is
    /// the caller's to check: the config says which.
    pub fn open_saved(&self, path: &str) -> Result<impl Read + '_, ImageError> {
        let missing = || ImageError::document(path_shown(path), "is not in the archive");
        let mut name = member_name(path.as_bytes());
        for _ in 0..MAX_LINKS {
            match self.members.get(&name).ok_or_else(missing)? {
                Member::File { offset, size } => return Ok(self.part(*offset, *size)),
                Member::Link { target } => name = target.clone(),
            }
        }
        Err(ImageError::document(path_shown(path), "too many links in the archive"))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let Some(Member::File { offset, size }) = self.members.get(name) else {
            return Err(ImageError::document(name, "is no regular file of the archive"));
        };
        if *size > limits::DOCUMENT {
            let problem = format!("more than {} bytes", limits::DOCUMENT);
            return Err(ImageError::document(name, problem));
        }
        let mut bytes = Vec::new();
        self.part(*offset, *size).read_to_end(&mut bytes).map_err(ImageError::read(name))?;
        Ok(bytes)
    }

    fn part(&self, offset: u64, size: u64) -> Part<'_> {
        Part { file: &self.file, offset, left: size }
    }

    fn blob(&self, digest: Digest) -> Result<(u64, u64), ImageError> {
        match self.members.get(&*blob_path(digest).to_string_lossy()) {
            Some(Member::File { offset, size }) => Ok((*offset, *size)),
            _ => Err(ImageError::MissingBlob { digest }),
        }
    }
}

impl BlobSource for ImageArchive {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        let (offset, size) = self.blob(digest)?;
        Ok(Box::new(self.part(offset, size)))
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        self.blob(digest).map(|(_, size)| size)
    }
}

/// Members are looked up by cleaned names; they never become paths of the machine.
fn member_name(path: &[u8]) -> String {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            _ => names.push(name),
        }
    }
    String::from_utf8_lossy(&names.join(&b'/')).into_owned()
}

fn path_shown(path: &str) -> String {
    path.chars().take(200).collect()
}

/// Reads from the start and knows how far it is. Each read is large, so none is buffered here.
struct Counting<'f> {
    file: &'f File,
    offset: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A run of bytes of the file.
struct Part<'f> {
    file: &'f File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
