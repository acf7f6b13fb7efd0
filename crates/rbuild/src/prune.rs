//! Disk usage and removal of what nobody uses.

use rbuild_cache::{PruneOptions, Pruned, Row, Usage};
use rbuild_types::{CancelToken, Ctx, Progress};

use crate::{BuildError, Engine};

impl Engine {
    /// Bytes on disk, by class and by what the build cache holds; walks the store.
    pub fn usage(&self) -> Result<Usage, BuildError> {
        Ok(self.store.usage()?)
    }

    /// Bytes that the store takes but for work in progress, without walking it: what is compared
    /// with [`EngineOptions::limits`](crate::EngineOptions::limits).
    pub fn used(&self) -> Result<u64, BuildError> {
        Ok(self.store.used()?)
    }

    /// What the build cache holds, with sizes as they were recorded: nothing is walked.
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
}
