//! Images of OCI layouts: `--build-context name=oci-layout://PATH`.

use std::fmt;
use std::path::PathBuf;

use rbuild_image::blob::{BlobSource as _, read_document};
use rbuild_image::index::{Index, pick};
use rbuild_image::layout::{IMAGE_NAME, Layout, REF_NAME};
use rbuild_image::manifest::{Descriptor, Document, parse_manifest};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Digest, Platform, Reference};

use super::image::{ImageSource, MAX_INDEX_DEPTH, bad_document, chain, too_deep};
use super::layers::copy_blob;
use crate::BuildError;

/// One image of a layout in a directory.
#[derive(Debug)]
pub(crate) struct LayoutImage {
    path: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What an image without tag and digest is called.
const DEFAULT_TAG: &str = "latest";

impl LayoutImage {
    pub(crate) fn new(path: PathBuf, tag: Option<String>, digest: Option<Digest>) -> Self {
        Self { path, tag, digest }
    }

    pub(crate) fn open(&self) -> Result<Layout, BuildError> {
        // The layout itself was named by the user; what is in it may be a stranger's.
        let root = Root::open(&self.path).map_err(|error| self.failed(chain(&error)))?;
        Layout::open(root).map_err(|error| self.failed(chain(&error)))
    }

    fn failed(&self, problem: String) -> BuildError {
        BuildError::Request { message: format!("{self}: {problem}") }
    }

    /// The entry that is meant.
    pub(crate) fn find(&self, layout: &Layout) -> Result<Descriptor, BuildError> {
        let index = layout.index()?;
        if let Some(digest) = self.digest {
            let listed = index.manifests.iter().find(|entry| entry.digest == digest);
            return match listed {
                Some(entry) => Ok(entry.clone()),
                // An image of an index is no entry and can be named all the same.
                None => Ok(Descriptor::new("", digest, layout.size(digest)?)),
            };
        }
        let wanted = self.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let entries = &index.manifests;
        match entries.iter().find(|entry| has_tag(entry, wanted)) {
            Some(entry) => Ok(entry.clone()),
            None => match (entries.as_slice(), &self.tag) {
                ([only], None) => Ok(only.clone()),
                _ => Err(self.failed(not_there(wanted, &index))),
            },
        }
    }
}

/// Whether an image of a layout or archive is tagged so.
pub(crate) fn has_tag(entry: &Descriptor, wanted: &str) -> bool {
    let whole = entry.annotations.get(IMAGE_NAME);
    let parsed = whole.and_then(|name| name.parse::<Reference>().ok());
    entry.annotations.get(REF_NAME).is_some_and(|tag| tag == wanted)
        || parsed.is_some_and(|name| name.tag() == Some(wanted))
}

fn not_there(tag: &str, index: &Index) -> String {
    let tags: Vec<&str> = index
        .manifests
        .iter()
        .filter_map(|entry| entry.annotations.get(REF_NAME))
        .map(String::as_str)
        .take(20)
        .collect();
    match tags.is_empty() {
        true => format!("no image is tagged {tag}; name one with @DIGEST"),
        false => format!("no image is tagged {tag}; there are {}", tags.join(", ")),
    }
}

impl fmt::Display for LayoutImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci-layout://{}", self.path.display())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl ImageSource<'_> {
    /// Reads manifest and config of a layout's image into the store.
    pub(super) fn of_layout(
        &self,
        image: &LayoutImage,
        platform: &Platform,
    ) -> Result<Digest, BuildError> {
        let layout = image.open()?;
        let mut at = image.find(&layout)?;
        for _ in 0..=MAX_INDEX_DEPTH {
            let bytes = read_document(&layout, &at)?;
            let media_type = Some(at.media_type.as_str()).filter(|text| !text.is_empty());
            match parse_manifest(&bytes, media_type)? {
                Document::Index(index) => at = pick(&index, platform)?.clone(),
                Document::Manifest(manifest) => {
                    let config = read_document(&layout, &manifest.config)?;
                    let blobs = self.store().blobs();
                    blobs.put(&config)?;
                    blobs.put(&bytes)?;
                    return Ok(at.digest);
                }
            }
        }
        Err(too_deep().into())
    }

    /// Copies a layer of a layout into the store.
    pub(super) fn layer_of_layout(
        &self,
        image: &LayoutImage,
        layer: &Descriptor,
        ctx: Ctx<'_>,
    ) -> Result<(), BuildError> {
        let layout = image.open()?;
        let size = layout.size(layer.digest)?;
        if size != layer.size {
            let problem = format!("{size} bytes, the manifest names {}", layer.size);
            return Err(bad_document("layer", problem).into());
        }
        let mut source = layout.open(layer.digest)?;
        copy_blob(self.store(), &mut source, Some(layer.digest), Some(layer.size), ctx.cancel)?;
        Ok(())
    }
}
