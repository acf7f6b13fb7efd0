//! Nothing.

use rbuild::{Event, Progress};

use super::Display;

/// Drops everything.
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _: &Event) {}
}

impl Display for Quiet {
    fn close(&self) {}
}
