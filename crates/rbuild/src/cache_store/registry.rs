//! A cache in a registry, under a tag.
//!
//! A registry has no way to replace a tag only if it still is what it was, so a writer looks right
//! before it writes, and again a little later: who comes second puts its records beside those of
//! who came first.
//!
//! The tag may also be that of an image, or of an index of images, with their steps in their
//! configs: for reading only.

use std::io::{Read, Seek as _, SeekFrom};
use std::time::Duration;

use rbuild_cache::Store;
use rbuild_image::config::parse_config;
use rbuild_image::manifest::{Descriptor, Document, Manifest, parse_manifest};
use rbuild_image::media_type::Family;
use rbuild_registry::{BlobSink, Registry, RegistryError, Upload};
use rbuild_types::{Ctx, Digest, Reference};

use super::{CacheStore, CacheStoreError, Found, InlineIndex, manifest};
use crate::remote_cache::index::{INDEX_TYPE, MAX_BYTES};
use crate::remote_cache::inline;
use crate::sources::image::chain;

/// After which time a writer looks whether somebody else has written. Longer than between another
/// writer's last look and its write.
const SETTLES_AFTER: Duration = Duration::from_millis(500);

/// Images of an index that are asked for their steps.
const MAX_IMAGES: usize = 16;

/// See the module.
pub(super) struct RegistryCache {
    registry: Registry,
    reference: Reference,
}

impl RegistryCache {
    pub(super) fn new(registry: Registry, reference: Reference) -> Self {
        Self { registry, reference }
    }

    /// The index in the config of an image.
    fn inline(
        &self,
        manifest: &Manifest,
        ctx: Ctx<'_>,
    ) -> Result<Option<InlineIndex>, CacheStoreError> {
        let Descriptor { digest, size, .. } = manifest.config;
        let config = self.registry.document(&self.reference, digest, Some(size), ctx)?;
        // What is no config of an image has no index either.
        let Ok(config) = parse_config(&config) else { return Ok(None) };
        let Some(bytes) = inline::decode(&config) else { return Ok(None) };
        let layers = config.rootfs.diff_ids.iter().copied().zip(manifest.layers.iter().cloned());
        Ok(Some(InlineIndex { bytes, layers: layers.collect() }))
    }

    /// The bytes of the index that a manifest names.
    fn index(&self, index: &Descriptor, ctx: Ctx<'_>) -> Result<Vec<u8>, CacheStoreError> {
        if index.size > MAX_BYTES {
            let problem = format!("its index has {} bytes", index.size);
            return Err(CacheStoreError::Damaged { problem });
        }
        let mut bytes = Vec::new();
        self.registry.blob(&self.reference, index.digest, Some(index.size), &mut bytes, ctx)?;
        Ok(bytes)
    }
}

impl CacheStore for RegistryCache {
    fn name(&self) -> String {
        format!("the cache {}", self.reference.familiar())
    }

    fn place(&self) -> String {
        format!("registry {}", self.reference)
    }

    fn read_index(&self, ctx: Ctx<'_>) -> Result<Found, CacheStoreError> {
        let answer = match self.registry.manifest(&self.reference, ctx) {
            Ok(answer) => answer,
            Err(RegistryError::NotFound { .. }) => return Ok(Found::Nothing),
            Err(error) => return Err(error.into()),
        };
        let version = answer.digest;
        let mut images = Vec::new();
        match serde_json::from_slice::<Manifest>(&answer.bytes) {
            Ok(manifest) if manifest.config.media_type == INDEX_TYPE => {
                return match self.index(&manifest.config, ctx) {
                    Ok(bytes) => Ok(Found::Index { bytes, version }),
                    // Not what may be otherwise the next time.
                    Err(error) if error.is_damage() => {
                        Ok(Found::Broken { problem: chain(&error), version })
                    }
                    Err(error) => Err(error),
                };
            }
            Ok(manifest) => images.extend(self.inline(&manifest, ctx)?),
            Err(_) if answer.is_index() => {
                let Document::Index(index) = parse_manifest(&answer.bytes, None)? else {
                    return Ok(Found::Foreign { version });
                };
                for image in index.manifests.iter().take(MAX_IMAGES) {
                    let name = self.reference.with_digest(image.digest);
                    let image = self.registry.manifest(&name, ctx)?;
                    if let Ok(manifest) = serde_json::from_slice::<Manifest>(&image.bytes) {
                        images.extend(self.inline(&manifest, ctx)?);
                    }
                }
            }
            Err(_) => {}
        }
        match images.is_empty() {
            true => Ok(Found::Foreign { version }),
            false => Ok(Found::Images { images, version }),
        }
    }

    fn write_index(
        &self,
        index: &[u8],
        layers: &[Descriptor],
        expected: Option<Digest>,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError> {
        let manifest = manifest(index, layers);
        let bytes = manifest.to_bytes()?;
        let Descriptor { digest, size, .. } = manifest.config;
        let open = |offset| {
            let rest = index.get(usize::try_from(offset).unwrap_or(usize::MAX)..);
            Ok(Box::new(rest.unwrap_or_default()) as Box<dyn Read>)
        };
        let upload = Upload { digest, size, mount_from: None, open: &open };
        self.registry.push_blob(&self.reference, &upload, ctx)?;
        let now = match self.registry.resolve(&self.reference, ctx) {
            Ok(digest) => Some(digest),
            Err(RegistryError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if now != expected {
            return Ok(false);
        }
        self.registry.push_manifest(&self.reference, Family::Oci.manifest(), &bytes, ctx)?;
        Ok(true)
    }

    fn settles_after(&self) -> Option<Duration> {
        Some(SETTLES_AFTER)
    }

    fn has_blob(&self, blob: &Descriptor, ctx: Ctx<'_>) -> Result<bool, CacheStoreError> {
        Ok(self.registry.blob_exists(&self.reference, blob.digest, ctx)?)
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        from: &Store,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let open = |offset| {
            let mut file = from.blobs().open(&blob.digest).map_err(std::io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file) as Box<dyn Read>)
        };
        let (digest, size) = (blob.digest, blob.size);
        let upload = Upload { digest, size, mount_from: None, open: &open };
        self.registry.push_blob(&self.reference, &upload, ctx)?;
        Ok(())
    }

    fn fetch_blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        Ok(self.registry.blob(&self.reference, blob.digest, Some(blob.size), sink, ctx)?)
    }
}
