//! Where a remote cache is kept: an index that is replaced as a whole, and layers by digest.
//!
//! A cache has the form of an image: a manifest whose config is the index and whose layers are the
//! layers that the index names, so that any registry, layout or tool can keep and copy it.

mod gha;
mod local;
mod registry;
mod s3;

use std::collections::BTreeMap;
use std::time::Duration;

use rbuild_cache::Store;
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_image::media_type::Family;
use rbuild_registry::{BlobSink, RegistryError};
use rbuild_rooted::{Errno, RootedError};
use rbuild_types::{Cancelled, Ctx, Digest};

use crate::export::push;
use crate::remote_cache::CacheLocation;
use crate::remote_cache::index::INDEX_TYPE;
use crate::{BuildError, Engine};

/// One place with a cache.
pub(crate) trait CacheStore: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> String;

    /// What tells it from all other places, whoever asks.
    fn place(&self) -> String;

    /// The index and what its place holds now.
    fn read_index(&self, ctx: Ctx<'_>) -> Result<Found, CacheStoreError>;

    /// Replaces what [`CacheStore::read_index`] found by an index and the layers that it names.
    /// Says `false`, and writes nothing, where something else is there by now.
    fn write_index(
        &self,
        index: &[u8],
        layers: &[Descriptor],
        expected: Option<Digest>,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError>;

    /// Whether somebody who looked before may still replace an index just written; then, after
    /// which time to look again.
    fn settles_after(&self) -> Option<Duration>;

    /// Whether a layer is there.
    fn has_blob(&self, blob: &Descriptor, ctx: Ctx<'_>) -> Result<bool, CacheStoreError>;

    /// Puts a layer there that the store has.
    fn put_blob(
        &self,
        blob: &Descriptor,
        from: &Store,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError>;

    /// Gets a layer. Whoever keeps it checks it.
    fn fetch_blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError>;
}

/// What a place holds.
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Something that is no cache of ours.
    Foreign {
        /// Which.
        version: Digest,
    },
    /// A cache whose index is lost or damaged.
    Broken {
        /// What is wrong.
        problem: String,
        /// Which.
        version: Digest,
    },
    /// Images that were built with the index in their configs.
    Images {
        /// Their indexes and layers.
        images: Vec<InlineIndex>,
        /// Which.
        version: Digest,
    },
    /// An index.
    Index {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Which: the digest of the manifest.
        version: Digest,
    },
}

/// The index in the config of an image, which leaves it to the manifest where layers are.
pub(crate) struct InlineIndex {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// The image's layers by diff id.
    pub(crate) layers: BTreeMap<Digest, Descriptor>,
}

/// Why a place could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheStoreError {
    /// It does not hold what its own documents say.
    #[error("{problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// The file system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A path in a directory could not be opened.
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    /// A document could not be read or written.
    #[error(transparent)]
    Image(#[from] rbuild_image::ImageError),
    /// A registry refused, or could not be asked.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// Our own store refused.
    #[error(transparent)]
    Store(#[from] rbuild_cache::CacheError),
    /// The call was cancelled, or the time for it was over.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl CacheStoreError {
    /// Whether something is lost or is not what is said of it, which is so the next time too.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Image(_) => true,
            Self::Rooted(error) => {
                error.errno() == Some(Errno::NOENT) || matches!(error, RootedError::TooLarge { .. })
            }
            Self::Registry(error) => matches!(
                **error,
                RegistryError::NotFound { .. }
                    | RegistryError::DigestMismatch { .. }
                    | RegistryError::SizeMismatch { .. }
            ),
            // Readers that check what they give say so by an error of reading.
            Self::Io { source, .. } => {
                source.get_ref().is_some_and(|error| error.is::<rbuild_image::ImageError>())
            }
            Self::Store(_) | Self::Cancelled(_) => false,
        }
    }
}

impl From<RegistryError> for CacheStoreError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Registry(Box::new(error)),
        }
    }
}

/// Opens the place; nothing is read or made yet. An image's config is none by itself.
pub(crate) fn open(
    engine: &Engine,
    location: &CacheLocation,
) -> Result<Option<Box<dyn CacheStore>>, BuildError> {
    Ok(Some(match location {
        CacheLocation::Inline => return Ok(None),
        CacheLocation::Local { path, tag, digest } => {
            Box::new(local::LocalCache::new(path, tag, *digest))
        }
        CacheLocation::Gha(location) => {
            let service = engine.registry(|| "GitHub's cache cannot be asked".to_owned())?;
            Box::new(gha::GhaCache::new(service.clone(), location.clone()))
        }
        CacheLocation::S3(location) => {
            let missing = || "the bucket of the cache cannot be asked".to_owned();
            let bucket = engine.registry(missing)?.bucket(&location.bucket)?;
            Box::new(s3::S3Cache::new(bucket, location.clone()))
        }
        CacheLocation::Registry { reference, insecure } => {
            let names = std::slice::from_ref(reference);
            let registry = push::registry(engine, names, *insecure)?;
            Box::new(registry::RegistryCache::new(registry, reference.clone()))
        }
    }))
}

/// The manifest of a cache.
fn manifest(index: &[u8], layers: &[Descriptor]) -> Manifest {
    Manifest::new(Family::Oci, Descriptor::of(INDEX_TYPE, index), layers.to_vec())
}
