//! Disk usage and removal of what nobody uses.

use rbuild_cache::{ImageRecord, PruneOptions, Pruned, Row, Usage};
use rbuild_types::{CancelToken, Ctx, Progress};

use crate::{BuildError, Engine};

impl Engine {
    /// Bytes on disk by class.
    pub fn usage(&self) -> Result<Usage, BuildError> {
        Ok(self.store.usage()?)
    }

    /// Everything in the store, one row each.
    pub fn rows(&self) -> Result<Vec<Row>, BuildError> {
        Ok(self.store.rows()?)
    }

    /// Removes cache that no image, container or running build uses.
    pub fn prune(
        &self,
        options: &PruneOptions,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<Pruned, BuildError> {
        Ok(self.store.prune(options, &Ctx::new(progress, cancel))?)
    }

    /// Removes the images that have no name.
    pub fn prune_images(&self) -> Result<Vec<ImageRecord>, BuildError> {
        Ok(self.store.tags().prune_images(None)?)
    }
}
