//! Keeps warnings for the end of the build, where they can be read.

use std::sync::Mutex;

use rbuild::{Diagnostic, Event, Progress};

use super::{Display, lock};

/// Passes events on and remembers the warnings among them.
pub struct Warnings<'a> {
    display: &'a dyn Display,
    warnings: Mutex<Vec<Diagnostic>>,
    /// Name and text.
    dockerfile: Mutex<Option<(String, String)>>,
}

/// What is said at the end, and where it points to.
pub struct Said {
    /// In the order of the Dockerfile.
    pub warnings: Vec<Diagnostic>,
    /// The Dockerfile's name.
    pub name: String,
    /// Its text, when it was read.
    pub text: Option<String>,
}

impl<'a> Warnings<'a> {
    /// Around a display.
    pub fn new(display: &'a dyn Display) -> Self {
        Self { display, warnings: Mutex::default(), dockerfile: Mutex::default() }
    }

    /// Ends the build.
    pub fn finish(self) -> Said {
        let mut warnings = std::mem::take(&mut *lock(&self.warnings));
        warnings.sort_by_key(Diagnostic::span);
        warnings.dedup();
        let dockerfile = lock(&self.dockerfile).take();
        let (name, text) = match dockerfile {
            Some((name, text)) => (name, Some(text)),
            None => ("Dockerfile".to_owned(), None),
        };
        Said { warnings, name, text }
    }
}

impl Progress for Warnings<'_> {
    fn event(&self, event: &Event) {
        match event {
            Event::Warning(diagnostic) => lock(&self.warnings).push(diagnostic.clone()),
            Event::Dockerfile { name, text } => {
                *lock(&self.dockerfile) = Some((name.clone(), text.clone()));
            }
            _ => {}
        }
        self.display.event(event);
    }
}
