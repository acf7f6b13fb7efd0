//! What a build is asked to do with caches elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_image::compress::Encoding;
use rbuild_registry::BucketOptions;
use rbuild_types::{Digest, Reference};

/// How long sending layers may take once the build is done: as BuildKit's for GitHub's cache.
pub const CACHE_TIMEOUT: Duration = Duration::from_secs(600);

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheLocation {
    /// An OCI image layout in a directory.
    Local {
        /// The directory.
        path: PathBuf,
        /// Its name in the layout; `latest` when nobody says otherwise.
        tag: String,
        /// The manifest to take, whatever it is called. For reading only.
        digest: Option<Digest>,
    },
    /// A tag in a registry.
    Registry {
        /// The repository and the tag; a digest for reading only.
        reference: Reference,
        /// Whether the registry may be spoken to in plain HTTP.
        insecure: bool,
    },
    /// GitHub's cache of a workflow's jobs.
    Gha(GhaLocation),
    /// Objects in a bucket.
    S3(S3Location),
    /// The config of the image that is built. It is taken from where the image is pushed to.
    Inline,
}

/// Where in GitHub's cache a cache is.
#[derive(Clone, PartialEq, Eq)]
pub struct GhaLocation {
    /// Of the service: what a job has in `ACTIONS_RESULTS_URL`.
    pub url: String,
    /// What a job has in `ACTIONS_RUNTIME_TOKEN`.
    pub token: String,
    /// Tells caches of one repository apart.
    pub scope: String,
}

impl std::fmt::Debug for GhaLocation {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, scope, .. } = self;
        f.debug_struct("GhaLocation")
            .field("url", url)
            .field("scope", scope)
            .finish_non_exhaustive()
    }
}

/// Where in a bucket a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: BucketOptions,
    /// What the name of each object begins with.
    pub prefix: String,
    /// What follows for an index.
    pub manifests_prefix: String,
    /// What follows for a layer.
    pub blobs_prefix: String,
    /// What follows for this index.
    pub name: String,
}

impl S3Location {
    /// A bucket, with the names that BuildKit gives but for that of the cache.
    pub fn new(bucket: BucketOptions) -> Self {
        Self {
            bucket,
            prefix: String::new(),
            manifests_prefix: "manifests/".to_owned(),
            blobs_prefix: "blobs/".to_owned(),
            name: "rbuild".to_owned(),
        }
    }
}

/// A cache to take results from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheImport {
    /// Where it is.
    pub location: CacheLocation,
}

/// A cache that a build's results go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where it is.
    pub location: CacheLocation,
    /// Which results.
    pub mode: CacheMode,
    /// Which cache mounts go with them.
    pub mounts: Vec<CacheMounts>,
    /// How layers are compressed.
    pub encoding: Encoding,
    /// Whether layers that are compressed in another way already are compressed anew.
    pub force_compression: bool,
    /// Whether the build fails when the cache cannot be written; else that is a warning.
    pub must_succeed: bool,
    /// How long sending may take once the build is done.
    pub timeout: Duration,
}

impl CacheExport {
    /// With everything as it is when nobody says otherwise.
    pub fn new(location: CacheLocation) -> Self {
        Self {
            location,
            mode: CacheMode::Min,
            mounts: Vec::new(),
            encoding: Encoding::GZIP,
            force_compression: false,
            must_succeed: false,
            timeout: CACHE_TIMEOUT,
        }
    }
}

/// Cache mounts that go to a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheMounts {
    /// All that the steps of the build name.
    Named,
    /// Those with this id; a namespace and a slash stand before it.
    Id(String),
}

impl CacheMounts {
    /// The id, where one is asked for.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Named => None,
            Self::Id(id) => Some(id),
        }
    }
}

/// Which results go to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Those whose layers are in an image that is built.
    #[default]
    Min,
    /// Those of all steps of all stages.
    Max,
}
