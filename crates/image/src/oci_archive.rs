//! An OCI image layout as one tar, the same bytes for the same images.
//!
//! Entries are in byte order of their names, root's, from 1970; directories 0755, files 0444, as
//! containerd writes them. The archive is written in one pass and needs no seeking, so it can go to
//! a pipe. Blobs are checked while they pass.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use rbuild_types::{CancelToken, Digest};

use crate::blob::{BlobSource, Verified, reachable};
use crate::compress::ahead;
use crate::error::ImageError;
use crate::layout::{Export, INDEX_FILE, LAYOUT_FILE, blob_path, index_file, layout_file};
use crate::tarball::{self, END_OF_ARCHIVE, Entry, EntryKind};

/// Writes images as a tar of an OCI layout.
pub fn write_oci_archive(
    exports: &[Export],
    blobs: &dyn BlobSource,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    write_archive(exports, &BTreeMap::new(), blobs, sink, cancel)
}

/// Writes the layout and further documents beside `index.json`.
pub(crate) fn write_archive(
    exports: &[Export],
    further: &BTreeMap<String, Vec<u8>>,
    blobs: &dyn BlobSource,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    let mut digests = BTreeMap::new();
    for export in exports {
        digests.append(&mut reachable(blobs, &export.descriptor)?);
    }
    let mut documents = further.clone();
    documents.insert(INDEX_FILE.to_owned(), index_file(exports).to_bytes()?);
    documents.insert(LAYOUT_FILE.to_owned(), layout_file()?);

    let mut archive = ArchiveWriter { sink };
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    for (digest, size) in digests {
        cancel.check()?;
        archive.blob(digest, size, blobs)?;
    }
    for (name, bytes) in &documents {
        archive.file(name, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    archive.sink.write_all(&END_OF_ARCHIVE).map_err(ImageError::write("archive"))?;
    archive.sink.flush().map_err(ImageError::write("archive"))
}

struct ArchiveWriter<'a> {
    sink: &'a mut dyn Write,
}

impl ArchiveWriter<'_> {
    fn directory(&mut self, name: &str) -> Result<(), ImageError> {
        self.header(&Entry::new(name, EntryKind::Directory, 0o755))
    }

    fn blob(
        &mut self,
        digest: Digest,
        size: u64,
        blobs: &dyn BlobSource,
    ) -> Result<(), ImageError> {
        let source = Verified::new(blobs.open(digest)?, digest, size);
        let name = blob_path(digest);
        // One thread reads and checks what the other writes.
        ahead(|| Ok(Box::new(source)), |source| self.file(&name.to_string_lossy(), size, source))
    }

    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        self.header(&Entry { size, ..Entry::new(name, EntryKind::File, 0o444) })?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::read(name)(error)),
            };
            self.sink.write_all(&buffer[..count]).map_err(ImageError::write("archive"))?;
        }
        let padding = [0; tarball::BLOCK];
        self.sink
            .write_all(&padding[..tarball::padding(size)])
            .map_err(ImageError::write("archive"))
    }

    fn header(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let mut header = Vec::new();
        tarball::encode(entry, &mut header)?;
        self.sink.write_all(&header).map_err(ImageError::write("archive"))
    }
}

/// Bytes copied at once.
const BUFFER: usize = 256 << 10;
