//! Blobs by digest: where they come from, and readers that check what they give.

use std::collections::BTreeMap;
use std::io::{self, Read};

use rbuild_types::{Digest, Hasher};

use crate::error::ImageError;
use crate::limits;
use crate::manifest::{Descriptor, Document, parse_manifest};
use crate::media_type;

/// Where the bytes of an image are: a store, a layout, an archive.
pub trait BlobSource {
    /// Opens a blob from its start. The bytes are not trusted: callers check them.
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError>;

    /// Bytes of the blob.
    fn size(&self, digest: Digest) -> Result<u64, ImageError>;
}

/// Blobs in memory: documents that were just made, and tests.
impl BlobSource for BTreeMap<Digest, Vec<u8>> {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        let bytes = self.get(&digest).ok_or(ImageError::MissingBlob { digest })?;
        Ok(Box::new(bytes.as_slice()))
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        let bytes = self.get(&digest).ok_or(ImageError::MissingBlob { digest })?;
        Ok(bytes.len() as u64)
    }
}

/// Passes bytes on and fails at their end when they are not those that were named. It never gives
/// more bytes than were named.
pub struct Verified<R> {
    source: R,
    subject: String,
    expected: Digest,
    size: u64,
    read: u64,
    /// Taken at the end of the stream.
    hasher: Option<Hasher>,
}

impl<R: Read> Verified<R> {
    /// Checks `source` against a digest and a size.
    pub fn new(source: R, expected: Digest, size: u64) -> Self {
        let subject = format!("blob {}", expected.short());
        Self { source, subject, expected, size, read: 0, hasher: Some(Hasher::new()) }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.hasher.is_none() {
            return Ok(0);
        }
        let count = self.source.read(buffer)?;
        self.read += count as u64;
        let sizes = |found| ImageError::SizeMismatch {
            subject: self.subject.clone(),
            expected: self.size,
            found,
        };
        if self.read > self.size {
            return Err(sizes(self.read).into());
        }
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
            return Ok(count);
        }
        if self.read < self.size {
            return Err(sizes(self.read).into());
        }
        let found = self.hasher.take().map(Hasher::finish).unwrap_or(self.expected);
        if found != self.expected {
            let subject = self.subject.clone();
            let error = ImageError::DigestMismatch { subject, expected: self.expected, found };
            return Err(error.into());
        }
        Ok(0)
    }
}

/// Reads a whole document and checks it against its descriptor.
pub fn read_document(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, ImageError> {
    let subject = format!("document {}", descriptor.digest.short());
    if descriptor.size > limits::DOCUMENT {
        let problem = format!("{} bytes, more than {}", descriptor.size, limits::DOCUMENT);
        return Err(ImageError::document(subject, problem));
    }
    let mut bytes = Vec::new();
    blobs
        .open(descriptor.digest)?
        .take(limits::DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(ImageError::read(subject.clone()))?;
    descriptor.verify(&bytes, &subject)?;
    Ok(bytes)
}

/// Levels of indexes below each other.
const INDEX_DEPTH: usize = 3;

/// Every blob that `top` leads to, itself included, each once, with its size. Layers that may not be
/// at hand because they are not for distribution are left out when they are missing.
pub fn reachable(
    blobs: &dyn BlobSource,
    top: &Descriptor,
) -> Result<BTreeMap<Digest, u64>, ImageError> {
    let mut found = BTreeMap::new();
    collect(blobs, top, 0, &mut found)?;
    Ok(found)
}

fn collect(
    blobs: &dyn BlobSource,
    descriptor: &Descriptor,
    depth: usize,
    found: &mut BTreeMap<Digest, u64>,
) -> Result<(), ImageError> {
    if depth > INDEX_DEPTH {
        let problem = format!("indexes more than {INDEX_DEPTH} levels deep");
        return Err(ImageError::document("index", problem));
    }
    if found.insert(descriptor.digest, descriptor.size).is_some() {
        return Ok(());
    }
    let bytes = read_document(blobs, descriptor)?;
    match parse_manifest(&bytes, Some(&descriptor.media_type))? {
        Document::Index(index) => {
            for image in &index.manifests {
                collect(blobs, image, depth + 1, found)?;
            }
        }
        Document::Manifest(manifest) => {
            found.insert(manifest.config.digest, manifest.config.size);
            for layer in &manifest.layers {
                let foreign = media_type::is_foreign(&layer.media_type);
                if foreign && blobs.size(layer.digest).is_err() {
                    continue;
                }
                found.insert(layer.digest, layer.size);
            }
        }
    }
    Ok(())
}
