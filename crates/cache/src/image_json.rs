//! The few fields of OCI JSON that a store needs to know what belongs to an image.
//!
//! Everything here was written by strangers: sizes are bounded by the reader, digests are digests
//! by type, and nesting of indexes is bounded by the caller.

use std::collections::BTreeMap;

use rbuild_types::{Digest, Reference};
use serde::{Deserialize, Serialize};

/// Longest manifest, index or config that is read, in bytes (registries refuse manifests above
/// 4 MiB; configs with long histories stay far below it).
pub(crate) const MAX_JSON: usize = 8 << 20;

/// Media type of an OCI index, said in `index.json`.
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// Annotation of the OCI image layout: the name of a descriptor in `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of containerd for the full name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// `index.json` of a store without images.
pub(crate) const EMPTY_INDEX: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A descriptor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor of `index.json`.
    pub(crate) fn named(media_type: &str, digest: Digest, size: u64, name: Option<&str>) -> Self {
        let names = name.map(|name| [REF_NAME, IMAGE_NAME].map(|key| (key.into(), name.into())));
        let annotations = names.into_iter().flatten().collect();
        Self { media_type: media_type.to_owned(), digest, size, annotations }
    }

    /// The name that it has in `index.json`.
    pub(crate) fn reference(&self) -> Option<Reference> {
        let name = self.annotations.get(IMAGE_NAME).or(self.annotations.get(REF_NAME))?;
        name.parse().ok()
    }
}

/// A manifest (config and layers) or an index (manifests): one of both is there.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    created: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// The chain ids of all layers that a config names, bottom first (OCI image spec, "Layer
/// ChainID"); none for what is not a config.
pub(crate) fn chain_ids(config: &[u8]) -> Vec<Digest> {
    let config: Config = serde_json::from_slice(config).unwrap_or_default();
    let mut chain = Vec::with_capacity(config.rootfs.diff_ids.len());
    for diff_id in config.rootfs.diff_ids {
        chain.push(match chain.last() {
            None => diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}")),
        });
    }
    chain
}

/// When the image of this config was made, in milliseconds since 1970; many do not say.
pub(crate) fn created(config: &[u8]) -> Option<i64> {
    let config: Config = serde_json::from_slice(config).ok()?;
    config.created?.parse().ok().map(jiff::Timestamp::as_millisecond)
}

/// The text of `index.json` for these descriptors.
pub(crate) fn index_json(manifests: &[Descriptor]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: &'a [Descriptor],
    }
    serde_json::to_vec(&Index { schema_version: 2, media_type: INDEX_TYPE, manifests })
}
