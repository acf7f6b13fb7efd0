//! What happens in the store, as it was written down.

use rbuild_container::events::{Event, FollowEvents, read};

use crate::{BuildError, Engine};

impl Engine {
    /// What happened, as far as it is known, and a way to what comes after it.
    ///
    /// # Errors
    ///
    /// When the journal cannot be read.
    pub fn events(&self) -> Result<(Vec<Event>, FollowEvents), BuildError> {
        let io = |source| BuildError::Io { what: "read the events".to_owned(), source };
        read(self.store.root()).map_err(io)
    }

    /// Writes down what happened.
    pub(crate) fn happened(&self, event: Event) {
        event.note(self.store.root());
    }
}
