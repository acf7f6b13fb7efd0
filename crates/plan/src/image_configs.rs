//! What the plan asks about base images. The plan itself touches no network and no disk.

use rbuild_types::{ImageConfig, Platform, Reference, ReferenceError};

/// Knows the configs of base images: a registry with a cache in front, or a map in tests.
pub trait ImageConfigs {
    /// What a name in the Dockerfile stands for: where there are no aliases, what Docker says.
    fn reference(&self, name: &str) -> Result<Reference, ReferenceError> {
        name.parse()
    }

    /// The config of the image that `reference` names, for `platform` when the image has several.
    /// An image of one single other platform may be returned: the plan warns about it.
    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError>;
}

/// An image that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// The reference, pinned by digest when that is known.
    pub reference: Reference,
    /// The platform that was picked.
    pub platform: Platform,
    /// Its config.
    pub config: ImageConfig,
}

/// Why an image's config could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such repository or tag, or one may not know of it.
    #[error("{reference}: not found")]
    NotFound {
        /// What was asked for.
        reference: Reference,
    },
    /// The image exists, but not for this platform.
    #[error("no match for platform {platform} in manifest")]
    Platform {
        /// What was asked for.
        platform: Platform,
        /// What there is.
        available: Vec<Platform>,
    },
    /// Nobody was asked. Checks go on and leave out what would need the config.
    #[error("not looked up")]
    NotAsked,
    /// Anything else: network, authentication, a broken manifest.
    #[error("{message}")]
    Other {
        /// What happened, in lower case, with its causes.
        message: String,
    },
}
