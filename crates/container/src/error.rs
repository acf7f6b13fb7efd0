//! What can go wrong around a container.

use std::io;
use std::path::PathBuf;

use rbuild_sandbox::{SandboxError, StartFailure};

/// Why something could not be done with a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The supervisor could not be started.
    #[error("cannot start the supervisor {program}: {source}")]
    Supervisor {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The supervisor does not answer: it was killed, or the program that embeds the engine does
    /// not call `sandbox_main`.
    #[error(
        "the container's supervisor did not answer: it was killed, or the program that embeds \
         rbuild does not call rbuild::sandbox_main() first thing in main"
    )]
    NoAnswer,
    /// The container runs not.
    #[error("the container is not running")]
    NotRunning,
    /// The process could not be started.
    #[error("cannot {}: {}", .0.action, .0.reason)]
    Start(StartFailure),
    /// What the supervisor answered.
    #[error("{0}")]
    Refused(String),
    /// A file of the container.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The conversation with the supervisor failed.
    #[error("cannot talk to the container's supervisor: {0}")]
    Io(#[from] io::Error),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The root filesystem could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] rbuild_snapshot::SnapshotError),
    /// A place in the root filesystem could not be made.
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
}

impl ContainerError {
    /// What is told of it: what failed, why, and the exit code that goes with it.
    pub(crate) fn failure(self) -> StartFailure {
        match self {
            ContainerError::Start(failure)
            | ContainerError::Sandbox(SandboxError::Start(failure)) => failure,
            other => StartFailure {
                action: "start the container".to_owned(),
                reason: other.to_string(),
                code: 125,
            },
        }
    }
}
