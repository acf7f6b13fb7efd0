//! What earlier builds did.

use rbuild_cache::BuildRecord;

use crate::{BuildError, Engine};

impl Engine {
    /// What became of the steps of the last build in this store, whichever project it was of, and
    /// why those that ran did.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn last_build(&self) -> Result<Option<BuildRecord>, BuildError> {
        Ok(self.store.builds().last()?)
    }
}
