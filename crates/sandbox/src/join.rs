//! The engine's side of a process that starts beside one that runs.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::spec::{Order, Place};
use crate::{Helper, Running, SandboxError, Spec, Stdio};

/// A process that starts in the namespaces, the root filesystem and the control groups of another.
#[derive(Debug)]
pub struct Join {
    /// The program to start as the helper.
    pub helper: PathBuf,
    /// What to run, as whom, and what it may. What the spec says of surroundings was settled when
    /// those were made, and does not count; the working directory must be there.
    pub spec: Spec,
    /// The process that is joined: a pidfd of process 1 of its namespace.
    pub process: OwnedFd,
    /// Standard input, output and error. A terminal is made in the other's `/dev/pts`.
    pub stdio: Stdio,
}

impl Join {
    /// Starts the process. Returns as soon as the helper has its orders; failures to set up come
    /// from [`Running::wait`].
    ///
    /// # Errors
    ///
    /// When the helper cannot be started.
    pub fn start(self) -> Result<Running, SandboxError> {
        let order = Order { spec: self.spec, place: Place::Joined };
        Helper::start(&self.helper)?.hand_over(&order, self.process, self.stdio, Vec::new())
    }
}
