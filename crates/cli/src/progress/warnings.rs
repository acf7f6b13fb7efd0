//! Keeps warnings for the end of the build, where they can be read.

use std::sync::Mutex;

use rbuild::{Diagnostic, Event, Progress};

use super::{Display, lock};

/// Passes events on and remembers the warnings among them.
pub struct Warnings<'a> {
    display: &'a dyn Display,
    warnings: Mutex<Vec<Diagnostic>>,
}

impl<'a> Warnings<'a> {
    /// Around a display.
    pub fn new(display: &'a dyn Display) -> Self {
        Self { display, warnings: Mutex::default() }
    }

    /// The warnings in the order of the Dockerfile.
    pub fn into_list(self) -> Vec<Diagnostic> {
        let mut list =
            self.warnings.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        list.sort_by_key(Diagnostic::span);
        list.dedup();
        list
    }
}

impl Progress for Warnings<'_> {
    fn event(&self, event: &Event) {
        if let Event::Warning(diagnostic) = event {
            lock(&self.warnings).push(diagnostic.clone());
        }
        self.display.event(event);
    }
}
