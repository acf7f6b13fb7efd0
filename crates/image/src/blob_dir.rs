//! The `dir:` format of skopeo, buildah and podman: `manifest.json`, and each blob in a file that is
//! named by its digest alone.

use std::io::Read;

use rbuild_rooted::{Follow, Root};
use rbuild_types::Digest;

use crate::blob::BlobSource;
use crate::error::ImageError;
use crate::limits;
use crate::manifest::{Descriptor, Document, parse_manifest};

const MANIFEST: &str = "manifest.json";

/// An image in such a directory.
#[derive(Debug)]
pub struct BlobDir {
    root: Root,
    manifest: Vec<u8>,
    descriptor: Descriptor,
}

impl BlobDir {
    /// Reads the manifest.
    ///
    /// # Errors
    ///
    /// When there is none, or it is none of an image.
    pub fn open(root: Root) -> Result<Self, ImageError> {
        let manifest = root.read_small(MANIFEST, limits::DOCUMENT)?;
        let media_type = match parse_manifest(&manifest, None)? {
            Document::Manifest(parsed) => parsed.media_type().to_owned(),
            Document::Index(_) => {
                let problem = "is a list of images: copy one of them, or take an OCI layout";
                return Err(ImageError::document(MANIFEST, problem));
            }
        };
        let descriptor = Descriptor::of(media_type, &manifest);
        Ok(Self { root, manifest, descriptor })
    }

    /// The image.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }
}

impl BlobSource for BlobDir {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        if digest == self.descriptor.digest {
            return Ok(Box::new(self.manifest.as_slice()));
        }
        self.size(digest)?;
        Ok(Box::new(self.root.open_file(digest.hex(), Follow::No)?))
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        if digest == self.descriptor.digest {
            return Ok(self.descriptor.size);
        }
        match self.root.stat(digest.hex(), Follow::No)? {
            Some(found) if found.is_file() => Ok(found.size),
            _ => Err(ImageError::MissingBlob { digest }),
        }
    }
}
