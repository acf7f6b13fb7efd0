//! OCI image layouts: a directory with `oci-layout`, `index.json` and `blobs/sha256/<hex>`.
//!
//! Blobs appear whole or not at all: each is written under another name, checked while it is
//! written, and renamed. `index.json` is replaced last, so a layout that is being written to
//! always is the old or the new one.

use std::io::{Read, Write};
use std::path::PathBuf;

use rbuild_rooted::{Follow, NewDirs, Root};
use rbuild_types::{CancelToken, Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::blob::{BlobSource, Verified, reachable};
use crate::error::ImageError;
use crate::index::Index;
use crate::manifest::{Annotations, Descriptor, Document, parse_manifest};
use crate::media_type::{self, Family};
use crate::{json, limits};

/// Annotation with the tag alone.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the whole reference, as containerd and BuildKit write it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation with the time of creation.
pub const CREATED: &str = "org.opencontainers.image.created";

pub(crate) const LAYOUT_FILE: &str = "oci-layout";
pub(crate) const INDEX_FILE: &str = "index.json";
const LAYOUT_VERSION: &str = "1.0.0";

/// One image (or index of images) and its names in what is written.
#[derive(Debug, Clone)]
pub struct Export {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// Names; may be none.
    pub names: Vec<Reference>,
    /// RFC 3339 time for the `created` annotation.
    pub created: Option<String>,
}

impl Export {
    /// The entries of `index.json`: one per name, or one without.
    pub(crate) fn index_entries(&self) -> Vec<Descriptor> {
        let mut plain = self.descriptor.clone();
        if let Some(created) = &self.created {
            plain.annotations.insert(CREATED.to_owned(), created.clone());
        }
        if self.names.is_empty() {
            return vec![plain];
        }
        let named = |name: &Reference| {
            let mut entry = plain.clone();
            entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
            if let Some(tag) = name.tag() {
                entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
            }
            entry
        };
        self.names.iter().map(named).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// The content of `oci-layout`.
pub(crate) fn layout_file() -> Result<Vec<u8>, ImageError> {
    json::bytes(&LayoutFile { version: LAYOUT_VERSION.to_owned() }, LAYOUT_FILE)
}

/// The content of `index.json` for these images.
pub(crate) fn index_file(exports: &[Export]) -> Index {
    let entries = exports.iter().flat_map(Export::index_entries).collect();
    Index::new(Family::Oci, entries)
}

/// Where a blob is in a layout.
pub(crate) fn blob_path(digest: Digest) -> PathBuf {
    PathBuf::from("blobs/sha256").join(digest.hex())
}

/// A layout in a directory.
#[derive(Debug)]
pub struct Layout {
    root: Root,
}

impl Layout {
    /// Opens a layout for reading; the version must be one that we know.
    pub fn open(root: Root) -> Result<Self, ImageError> {
        let bytes = root.read_small(LAYOUT_FILE, limits::DOCUMENT)?;
        check_version(&bytes)?;
        Ok(Self { root })
    }

    /// The images of the layout.
    pub fn index(&self) -> Result<Index, ImageError> {
        parse_index(&self.root.read_small(INDEX_FILE, limits::DOCUMENT)?)
    }

    /// Adds images to the layout in `dest`, making it when the directory is empty. An image takes
    /// its names away from those that had them; an unnamed one replaces its equal only.
    pub fn write(
        dest: &Root,
        exports: &[Export],
        blobs: &dyn BlobSource,
        cancel: &CancelToken,
    ) -> Result<(), ImageError> {
        let new = NewDirs { mode: 0o755, owner: None };
        dest.create_dir_all("blobs/sha256", new)?;
        for export in exports {
            for (digest, size) in reachable(blobs, &export.descriptor)? {
                cancel.check()?;
                write_blob(dest, digest, size, blobs)?;
            }
        }
        let mut index = match dest.stat(INDEX_FILE, Follow::No)? {
            Some(_) => parse_index(&dest.read_small(INDEX_FILE, limits::DOCUMENT)?)?,
            None => Index::new(Family::Oci, Vec::new()),
        };
        for entry in index_file(exports).manifests {
            index.manifests.retain(|old| !is_replaced(old, &entry));
            index.manifests.push(entry);
        }
        publish(dest, LAYOUT_FILE, &layout_file()?)?;
        publish(dest, INDEX_FILE, &index.to_bytes()?)
    }
}

impl BlobSource for Layout {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        self.size(digest)?;
        // Links would let a stranger's layout name files elsewhere in it or wait on pipes.
        Ok(Box::new(self.root.open_file(blob_path(digest), Follow::No)?))
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        match self.root.stat(blob_path(digest), Follow::No)? {
            Some(found) if found.is_file() => Ok(found.size),
            _ => Err(ImageError::MissingBlob { digest }),
        }
    }
}

pub(crate) fn check_version(bytes: &[u8]) -> Result<(), ImageError> {
    let file: LayoutFile = json::parse(bytes, LAYOUT_FILE)?;
    if file.version != LAYOUT_VERSION {
        let version: String = file.version.chars().take(50).collect();
        return Err(ImageError::document(LAYOUT_FILE, format!("unknown version {version:?}")));
    }
    Ok(())
}

pub(crate) fn parse_index(bytes: &[u8]) -> Result<Index, ImageError> {
    let parsed =
        parse_manifest(bytes, Some(media_type::OCI_INDEX)).map_err(|error| match error {
            // The file is what its owner knows, not the kind of document.
            ImageError::Document { problem, .. } => ImageError::document(INDEX_FILE, problem),
            other => other,
        })?;
    match parsed {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(ImageError::document(INDEX_FILE, "is not an index")),
    }
}

fn is_replaced(old: &Descriptor, new: &Descriptor) -> bool {
    let name = |annotations: &Annotations| {
        annotations.get(IMAGE_NAME).or_else(|| annotations.get(REF_NAME)).cloned()
    };
    match (name(&old.annotations), name(&new.annotations)) {
        (None, None) => old.digest == new.digest,
        (old, new) => old == new,
    }
}

fn write_blob(
    dest: &Root,
    digest: Digest,
    size: u64,
    blobs: &dyn BlobSource,
) -> Result<(), ImageError> {
    let path = blob_path(digest);
    if let Some(found) = dest.stat(&path, Follow::No)?
        && found.is_file()
        && found.size == size
    {
        // Also what is there already is only believed after a look.
        let there = Verified::new(dest.open_file(&path, Follow::No)?, digest, size);
        if std::io::copy(&mut { there }, &mut std::io::sink()).is_ok() {
            return Ok(());
        }
    }
    let temporary = PathBuf::from(format!("blobs/sha256/.{}.partial", digest.hex()));
    let mut file = dest.create_file(&temporary, 0o644)?;
    let mut source = Verified::new(blobs.open(digest)?, digest, size);
    let copied = std::io::copy(&mut source, &mut file)
        .map_err(ImageError::write(path.display().to_string()))
        .and_then(|_| Ok(dest.rename(&temporary, &path)?));
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = dest.remove(&temporary);
    }
    copied
}

fn publish(dest: &Root, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let temporary = format!(".{name}.partial");
    let mut file = dest.create_file(&temporary, 0o644)?;
    file.write_all(bytes).map_err(ImageError::write(name))?;
    dest.rename(&temporary, name)?;
    Ok(())
}
