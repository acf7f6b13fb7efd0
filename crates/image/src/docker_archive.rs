//! The format of `docker save`: `manifest.json` beside an OCI layout, so that old and new readers
//! find what they look for. Docker has read layers and configs from any path since 1.10.

use std::collections::BTreeMap;
use std::io::Write;

use rbuild_types::{CancelToken, Reference};
use serde::{Deserialize, Serialize};

use crate::blob::{BlobSource, read_document};
use crate::compress::Compression;
use crate::error::ImageError;
use crate::json;
use crate::layout::{Export, blob_path};
use crate::manifest::{Document, Manifest, null_default, parse_manifest};
use crate::media_type::layer_compression;
use crate::oci_archive::write_archive;

pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// One image in `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// Path of the image config in the archive.
    pub config: String,
    /// Names as people type them, with tags.
    pub repo_tags: Option<Vec<String>>,
    /// Paths of the layers in the archive, bottom first; compressed or not.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<String>,
}

/// Writes images as `docker save` does; `docker load` of 20.10 and of today both read it.
///
/// Each export must be one image, not an index. Layers of zstd are read by Docker since version 23.
pub fn write_docker_archive(
    exports: &[Export],
    blobs: &dyn BlobSource,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    let images =
        exports.iter().map(|export| saved_image(export, blobs)).collect::<Result<Vec<_>, _>>()?;
    let bytes = json::bytes(&images, MANIFEST_FILE)?;
    let further = BTreeMap::from([(MANIFEST_FILE.to_owned(), bytes)]);
    write_archive(exports, &further, blobs, sink, cancel)
}

fn saved_image(export: &Export, blobs: &dyn BlobSource) -> Result<SavedImage, ImageError> {
    let bytes = read_document(blobs, &export.descriptor)?;
    let manifest = match parse_manifest(&bytes, Some(&export.descriptor.media_type))? {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => {
            let problem = "an archive for docker load holds one platform, not an index";
            return Err(ImageError::document("docker archive", problem));
        }
    };
    check_layers(&manifest)?;
    let tagged = |name: &Reference| name.tag().is_some().then(|| name.familiar());
    let tags: Vec<String> = export.names.iter().filter_map(tagged).collect();
    let path = |digest| blob_path(digest).to_string_lossy().into_owned();
    Ok(SavedImage {
        config: path(manifest.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: manifest.layers.iter().map(|layer| path(layer.digest)).collect(),
    })
}

fn check_layers(manifest: &Manifest) -> Result<(), ImageError> {
    for layer in &manifest.layers {
        match layer_compression(&layer.media_type) {
            Some(Compression::None | Compression::Gzip | Compression::Zstd) => {}
            _ => {
                let problem = format!("docker load cannot read layers of {}", layer.media_type);
                return Err(ImageError::document("docker archive", problem));
            }
        }
    }
    Ok(())
}
