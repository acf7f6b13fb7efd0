//! Media types of OCI and of Docker's schema 2, which mean the same.

use crate::compress::Compression;
use crate::error::ImageError;

/// `application/vnd.oci.image.manifest.v1+json`
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `application/vnd.oci.image.index.v1+json`
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// `application/vnd.oci.image.config.v1+json`
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// `application/vnd.oci.image.layer.v1.tar`, to which `+gzip` or `+zstd` is added
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// `application/vnd.docker.distribution.manifest.v2+json`
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `application/vnd.docker.distribution.manifest.list.v2+json`
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// `application/vnd.docker.container.image.v1+json`
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// `application/vnd.docker.image.rootfs.diff.tar`, to which `.gzip` is added
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Whose names a document uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// OCI image-spec.
    #[default]
    Oci,
    /// Docker image manifest version 2, schema 2.
    Docker,
}

/// The two kinds of documents that a registry serves as manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    /// One image.
    Manifest,
    /// A list of images, one per platform.
    Index,
}

impl Family {
    /// Media type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// Media type of an index.
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => OCI_INDEX,
            Self::Docker => DOCKER_INDEX,
        }
    }

    /// Media type of an image config.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// Media type of a layer. Docker never named zstd layers: those use OCI's name, as in BuildKit.
    pub fn layer(self, compression: Compression) -> Result<&'static str, ImageError> {
        match (self, compression) {
            (Self::Oci, Compression::None) => Ok(OCI_LAYER),
            (Self::Docker, Compression::None) => Ok(DOCKER_LAYER),
            (Self::Oci, Compression::Gzip) => Ok("application/vnd.oci.image.layer.v1.tar+gzip"),
            (Self::Docker, Compression::Gzip) => {
                Ok("application/vnd.docker.image.rootfs.diff.tar.gzip")
            }
            (_, Compression::Zstd) => Ok("application/vnd.oci.image.layer.v1.tar+zstd"),
            (_, other) => {
                Err(ImageError::document("layer", format!("{other:?} is no format for layers")))
            }
        }
    }
}

/// Parameters (`; charset=utf-8`) do not belong to the type.
pub(crate) fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Which kind of document a media type names, and whose.
pub fn document_kind(media_type: &str) -> Option<(DocumentKind, Family)> {
    match bare(media_type) {
        OCI_MANIFEST => Some((DocumentKind::Manifest, Family::Oci)),
        OCI_INDEX => Some((DocumentKind::Index, Family::Oci)),
        DOCKER_MANIFEST => Some((DocumentKind::Manifest, Family::Docker)),
        DOCKER_INDEX => Some((DocumentKind::Index, Family::Docker)),
        _ => None,
    }
}

/// How a layer of this media type is compressed; `None` when it is no tar layer. Layers "not for
/// distribution" count by their content.
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    let media_type = bare(media_type);
    let rest = media_type
        .strip_prefix(OCI_LAYER)
        .or_else(|| {
            media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
        })
        .or_else(|| media_type.strip_prefix(DOCKER_LAYER))
        .or_else(|| {
            media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar")
        })?;
    match rest {
        "" => Some(Compression::None),
        "+gzip" | ".gzip" => Some(Compression::Gzip),
        "+zstd" | ".zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Whether a layer of this type is usually fetched from elsewhere (Windows base layers).
pub fn is_foreign(media_type: &str) -> bool {
    let media_type = bare(media_type);
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}
