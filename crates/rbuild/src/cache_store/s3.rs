//! A cache in an S3 bucket: the index is one object, each layer another.
//!
//! The index is replaced only if it still is what was read (`If-Match`). Servers that know nothing
//! of that take every write, so a writer looks again a little later, as in a registry. Layers that
//! no index names are the bucket's to remove, by a rule for old objects.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::Store;
use rbuild_image::manifest::Descriptor;
use rbuild_registry::{BlobSink, Bucket, BucketOptions};
use rbuild_types::{Ctx, Digest};

use super::{CacheStore, CacheStoreError, Found};
use crate::remote_cache::S3Location;
use crate::remote_cache::index::MAX_BYTES;

/// After which time a writer looks whether somebody else has written.
const SETTLES_AFTER: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct S3Cache {
    bucket: Bucket,
    location: S3Location,
    /// The index that was read last, and the server's name for it.
    seen: Mutex<Option<(Digest, Option<String>)>>,
}

impl S3Cache {
    pub(super) fn new(bucket: Bucket, location: S3Location) -> Self {
        Self { bucket, location, seen: Mutex::default() }
    }

    fn index(&self) -> String {
        let S3Location { prefix, manifests_prefix, name, .. } = &self.location;
        format!("{prefix}{manifests_prefix}{name}")
    }

    fn layer(&self, blob: &Descriptor) -> String {
        let S3Location { prefix, blobs_prefix, .. } = &self.location;
        format!("{prefix}{blobs_prefix}{}", blob.digest)
    }
}

impl CacheStore for S3Cache {
    fn name(&self) -> String {
        format!("the cache {} in bucket {}", self.index(), self.location.bucket.bucket)
    }

    fn place(&self) -> String {
        let BucketOptions { bucket, region, endpoint_url, .. } = &self.location.bucket;
        let endpoint = endpoint_url.as_deref().unwrap_or_default();
        format!("s3 {region} {endpoint} {bucket} {}", self.index())
    }

    fn read_index(&self, ctx: Ctx<'_>) -> Result<Found, CacheStoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(object) = self.bucket.get(&self.index(), MAX_BYTES, ctx.cancel)? else {
            *seen = None;
            return Ok(Found::Nothing);
        };
        let version = Digest::of(&object.bytes);
        *seen = Some((version, object.tag));
        Ok(Found::Index { bytes: object.bytes, version })
    }

    fn write_index(
        &self,
        index: &[u8],
        _: &[Descriptor],
        expected: Option<Digest>,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let tag = match seen {
            Some((version, tag)) if Some(version) == expected => tag,
            None if expected.is_none() => None,
            _ => return Ok(false),
        };
        Ok(self.bucket.replace(&self.index(), index.to_vec(), tag, ctx.cancel)?)
    }

    fn settles_after(&self) -> Option<Duration> {
        Some(SETTLES_AFTER)
    }

    fn has_blob(&self, blob: &Descriptor, ctx: Ctx<'_>) -> Result<bool, CacheStoreError> {
        Ok(self.bucket.size(&self.layer(blob), ctx.cancel)? == Some(blob.size))
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        from: &Store,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let mut file = from.blobs().open(&blob.digest)?;
        Ok(self.bucket.upload(&self.layer(blob), blob.size, &mut file, ctx)?)
    }

    fn fetch_blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        Ok(self.bucket.download(&self.layer(blob), blob.size, sink, ctx)?)
    }
}
