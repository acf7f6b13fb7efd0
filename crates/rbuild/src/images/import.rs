//! `import`: a root filesystem in a tar becomes an image of one layer.

use std::io::Read;

use rbuild_image::layer::{UnpackOptions, unpack_archive};
use rbuild_types::{CancelToken, Ctx, Digest, ImageConfig, Platform, Silent};

use super::grow::ImageWords;
use crate::{BuildError, Engine};

impl Engine {
    /// Makes an image of the root filesystem in a tar, compressed or not, for a platform; its id.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] when the tar is damaged; [`BuildError::Request`] for changes that are
    /// none.
    pub fn import_image(
        &self,
        tar: &mut dyn Read,
        platform: Option<&Platform>,
        words: &ImageWords,
        cancel: &CancelToken,
    ) -> Result<Digest, BuildError> {
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let config = ImageConfig {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..ImageConfig::default()
        };
        let _lease = self.store.lease()?;
        let mut fill = |root: &_| {
            unpack_archive(tar, root, &UnpackOptions::default(), cancel)?;
            Ok(())
        };
        let ctx = Ctx::new(&Silent, cancel);
        let id = self.grow(None, config, words, String::new(), &mut fill, ctx)?;
        self.image_event("import", &id.to_string(), words.name.as_deref().unwrap_or_default());
        Ok(id)
    }
}
