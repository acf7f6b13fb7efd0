//! Indexes: one image per platform.

use std::collections::BTreeMap;

use rbuild_types::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::json;
use crate::manifest::{Annotations, Descriptor, null_default};
use crate::media_type::{self, Family};

/// A list of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Docker requires it, OCI recommends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The images.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// Free text.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_default"
    )]
    pub annotations: Annotations,
}

/// Marks attestations among the images (BuildKit).
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Names the manifest that an attestation is about (BuildKit).
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// Whether an entry of an index is no image of its own, but says something of another: an
/// attestation.
pub fn is_attached(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(REFERENCE_TYPE)
}

/// The manifest that an attestation is about.
pub fn attested(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.get(REFERENCE_DIGEST).filter(|_| is_attached(entry))?.parse().ok()
}

impl Index {
    /// A list of images that were just built.
    pub fn new(family: Family, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(family.index().to_owned()),
            artifact_type: None,
            manifests,
            annotations: Annotations::new(),
        }
    }

    /// The bytes that are stored and hashed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ImageError> {
        json::bytes(self, "index")
    }

    /// The media type, by which it is named in descriptors.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(media_type::OCI_INDEX)
    }
}

/// The image for `platform`.
///
/// The first exact match wins. Where there is none, an image that the platform can run all the same
/// is taken, the nearest first: lower variants of `arm`, and `amd64` without its variant. An entry
/// without a platform is taken only when it is alone. Attestations are never taken.
pub fn pick<'i>(index: &'i Index, platform: &Platform) -> Result<&'i Descriptor, ImageError> {
    let images = || {
        index.manifests.iter().filter(|descriptor| {
            !is_attached(descriptor)
                && descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
        })
    };
    let matching = |wanted: &Platform| {
        images().find(|descriptor| {
            let found = descriptor.platform.as_ref().map(Platform::from);
            found.is_some_and(|found| found.satisfies(wanted))
        })
    };
    if let Some(found) = runnable(platform).iter().find_map(matching) {
        return Ok(found);
    }
    let mut all = images();
    if let (Some(only), None) = (all.next(), all.next())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let found = images().filter_map(|image| image.platform.as_ref().map(Platform::from)).collect();
    Err(ImageError::NoPlatform { wanted: platform.clone(), found })
}

/// The image for `platform`, else the first that there is: for who looks into one of them, whichever
/// that may be.
pub fn pick_any<'i>(index: &'i Index, platform: &Platform) -> Option<&'i Descriptor> {
    let first = || index.manifests.iter().find(|entry| !is_attached(entry));
    pick(index, platform).ok().or_else(first)
}

/// Whether an image for `found` may be taken where one for `wanted` is asked for.
pub fn is_for(found: &Platform, wanted: &Platform) -> bool {
    runnable(wanted).iter().any(|wanted| found.satisfies(wanted))
}

/// `platform` and what it runs besides, nearest first (containerd's `platforms.Only`, without the
/// 32-bit variants of 64-bit machines, which need a kernel option).
fn runnable(platform: &Platform) -> Vec<Platform> {
    let with =
        |variant: Option<&str>| Platform::normalised(&platform.os, &platform.architecture, variant);
    let mut list = vec![platform.clone()];
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("arm", Some("v8")) => list.extend([with(Some("v7")), with(Some("v6")), with(Some("v5"))]),
        ("arm", Some("v7")) => list.extend([with(Some("v6")), with(Some("v5"))]),
        ("arm", Some("v6")) => list.push(with(Some("v5"))),
        ("amd64", Some("v4")) => list.extend([with(Some("v3")), with(Some("v2")), with(None)]),
        ("amd64", Some("v3")) => list.extend([with(Some("v2")), with(None)]),
        ("amd64", Some(_)) | ("arm64", Some(_)) => list.push(with(None)),
        _ => {}
    }
    list
}
