//! What can go wrong around a sandboxed process.

use std::io;

use rbuild_types::Cancelled;

use crate::StartFailure;

/// Why a process could not be run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The helper could not be started.
    #[error("cannot start the sandbox helper {helper}: {source}")]
    Helper {
        /// The program.
        helper: String,
        /// Why.
        source: io::Error,
    },
    /// The helper does not answer: the program that embeds the engine does not call
    /// `sandbox_main` first thing in `main`.
    #[error(
        "the sandbox helper {helper} did not answer; a program that embeds rbuild must call \
         rbuild::sandbox_main() first thing in main, or name an rbuild binary as the helper"
    )]
    NoAnswer {
        /// The program.
        helper: String,
    },
    /// The surroundings could not be set up or changed, or the program could not be executed.
    #[error("cannot {}: {}", .0.action, .0.reason)]
    Start(StartFailure),
    /// The engine's end of the conversation failed.
    #[error("cannot talk to the sandbox: {0}")]
    Io(#[from] io::Error),
    /// The call was cancelled and the process is gone.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}
