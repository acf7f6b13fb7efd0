//! Manifests: one image's config and layers, by digest.

use std::collections::BTreeMap;

use rbuild_types::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::ImageError;
use crate::index::Index;
use crate::media_type::{self, DocumentKind, Family};
use crate::{json, limits};

/// Annotations of a document or of a descriptor.
pub type Annotations = BTreeMap<String, String>;

/// Names some bytes: what they are, how many, and their digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the bytes are.
    #[serde(default, deserialize_with = "null_default")]
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
    /// Free text.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: Annotations,
    /// Of an image in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but the three fields that all have.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// The descriptor of a document that is at hand.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Checks bytes that were read for this descriptor.
    pub fn verify(&self, bytes: &[u8], subject: &str) -> Result<(), ImageError> {
        let found = bytes.len() as u64;
        if found != self.size {
            let subject = subject.to_owned();
            return Err(ImageError::SizeMismatch { subject, expected: self.size, found });
        }
        let found = Digest::of(bytes);
        if found != self.digest {
            let subject = subject.to_owned();
            return Err(ImageError::DigestMismatch { subject, expected: self.digest, found });
        }
        Ok(())
    }
}

/// A platform as descriptors write it, with what we do not look at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Go's name of the architecture.
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// Go's name of the operating system.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// Windows build.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            variant: platform.variant.clone(),
            other: Map::new(),
        }
    }
}

impl From<&DescriptorPlatform> for Platform {
    fn from(found: &DescriptorPlatform) -> Self {
        let variant = found.variant.as_deref();
        let mut platform = Self::normalised(&found.os, &found.architecture, variant);
        platform.os_version = found.os_version.clone();
        platform
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Docker requires it, OCI recommends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// Free text.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: Annotations,
}

impl Manifest {
    /// The manifest of an image that was just built.
    pub fn new(family: Family, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(family.manifest().to_owned()),
            artifact_type: None,
            config,
            layers,
            annotations: Annotations::new(),
        }
    }

    /// The bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        json::bytes(self, "manifest")
    }

    /// The media type, by which it is named in descriptors.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST)
    }

    /// Whether it is an image, and not an attestation or another artifact: its config is one of an
    /// image and all its layers are tars.
    pub fn is_image(&self) -> bool {
        let is_layer = |layer: &Descriptor| {
            media_type::layer_compression(&layer.media_type).is_some()
                || media_type::is_foreign(&layer.media_type)
        };
        [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG]
            .contains(&media_type::bare(&self.config.media_type))
            && self.layers.iter().all(is_layer)
    }
}

/// What a reference may lead to.
#[allow(clippy::large_enum_variant, reason = "one at a time, and taken apart at once")]
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

/// Parses the bytes behind a reference.
///
/// `media_type` is what the transport said (`Content-Type`, or the descriptor's); it, the document's
/// own `mediaType` and its fields must agree, because readers that look at different ones of them
/// would run different images (CVE-2021-41190). Without any type the fields decide.
pub fn parse_manifest(bytes: &[u8], media_type: Option<&str>) -> Result<Document, ImageError> {
    let error = |problem: &str| ImageError::document("manifest", problem);
    let value: Map<String, Value> = json::parse(bytes, "manifest")?;
    let has = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
    if value.get("schemaVersion") != Some(&Value::from(2)) {
        return Err(error("schemaVersion is not 2"));
    }
    let is_image = value.contains_key("config") || value.contains_key("layers");
    let is_index = value.contains_key("manifests");
    if is_image && is_index || has("fsLayers") {
        return Err(error("has the fields of more than one kind of document"));
    }
    let own = match value.get("mediaType") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(error("mediaType is not a text")),
    };
    let given = media_type.map(media_type::bare);
    if let (Some(given), Some(own)) = (given, own)
        && media_type::document_kind(given).is_some()
        && given != own
    {
        return Err(error("mediaType differs from the type it was served as"));
    }
    let kind = match own.or(given).map(media_type::document_kind) {
        Some(Some((kind, _))) => kind,
        // Registries that do not know better serve `application/json` or plain text.
        Some(None) if own.is_some() => return Err(error("unknown mediaType")),
        _ if is_index => DocumentKind::Index,
        _ => DocumentKind::Manifest,
    };
    match kind {
        DocumentKind::Manifest if is_index => Err(error("an index with the type of a manifest")),
        DocumentKind::Index if is_image => Err(error("a manifest with the type of an index")),
        DocumentKind::Manifest => {
            let manifest: Manifest = json::parse(bytes, "manifest")?;
            if manifest.layers.len() > limits::LAYERS {
                return Err(error(&format!("more than {} layers", limits::LAYERS)));
            }
            Ok(Document::Manifest(manifest))
        }
        DocumentKind::Index => {
            let index: Index = json::parse(bytes, "index")?;
            if index.manifests.len() > limits::INDEX_ENTRIES {
                return Err(error(&format!("more than {} images", limits::INDEX_ENTRIES)));
            }
            Ok(Document::Index(index))
        }
    }
}

/// Chain ids: the n-th names the tree of the first n layers (OCI image-spec `config.md`).
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(chain_id(chain.last(), diff_id));
    }
    chain
}

/// The chain id of one layer upon what has the chain id `below`.
pub fn chain_id(below: Option<&Digest>, diff_id: &Digest) -> Digest {
    match below {
        None => *diff_id,
        Some(below) => Digest::of(format!("{below} {diff_id}")),
    }
}

/// Go writes `null` for empty slices and maps.
pub(crate) fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
