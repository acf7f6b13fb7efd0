//! What can go wrong while a graph is solved.

use rbuild_cache::{CacheError, SnapshotId};
use rbuild_plan::VertexId;
use rbuild_sandbox::SandboxError;
use rbuild_snapshot::SnapshotError;
use rbuild_types::{Cancelled, Platform, Span};

use crate::copy::CopyError;

/// Why a graph could not be solved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// A step failed.
    #[error("{}: {}", .0.name, .0.source)]
    Step(Box<StepFailure>),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] CacheError),
    /// The call was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Nothing runs and the target is not done: a mistake in the scheduler.
    #[error("the build came to a halt before its target was done; please report this Dockerfile")]
    Stuck,
    /// A thread panicked: a mistake in the engine.
    #[error("a thread of the build panicked; please report this Dockerfile")]
    Panicked,
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// One failed step.
#[derive(Debug)]
pub struct StepFailure {
    /// Which.
    pub vertex: VertexId,
    /// Its name, such as `[build 2/4] RUN make`.
    pub name: String,
    /// The instruction in the Dockerfile.
    pub span: Option<Span>,
    /// What happened.
    pub source: StepError,
    /// The end of what it wrote, at most [`LOG_TAIL`] bytes.
    pub log_tail: Vec<u8>,
    /// Its root filesystem as it was then, where that is kept.
    pub kept: Option<SnapshotId>,
}

/// How much of a failed step's output travels with the error; the whole is in the log file.
pub const LOG_TAIL: usize = 64 * 1024;

/// What happened to a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The process ran and did not end well.
    #[error("process {process:?} did not complete successfully: exit code: {code}")]
    Exit {
        /// The argument vector, joined with blanks, as BuildKit shows it.
        process: String,
        /// The shell's number: the exit code, or 128 and the signal.
        code: i32,
    },
    /// The kernel killed the process, or one that it had started, because the memory that steps
    /// may use was used up.
    #[error(
        "process {process:?} did not complete successfully: exit code: {code}: out of memory \
         (steps are limited to {memory} bytes)"
    )]
    OutOfMemory {
        /// As for `Exit`.
        process: String,
        /// As for `Exit`.
        code: i32,
        /// The limit in bytes.
        memory: u64,
    },
    /// The process was not run, because nothing runs programs of its platform.
    #[error("programs of {platform} do not run on this machine: {problem}")]
    Platform {
        /// What the base image is for.
        platform: Platform,
        /// What is missing.
        problem: String,
    },
    /// The process could not be run.
    #[error(transparent)]
    Sandbox(SandboxError),
    /// Files could not be copied.
    #[error(transparent)]
    Copy(CopyError),
    /// A root filesystem could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A path in a root filesystem could not be made or read.
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    /// A layer could not be read or written.
    #[error(transparent)]
    Layer(#[from] rbuild_image::ImageError),
    /// A base image could not be had.
    #[error(transparent)]
    Image(Box<dyn std::error::Error + Send + Sync>),
    /// A file behind a URL or a git repository could not be had.
    #[error(transparent)]
    Remote(Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be used.
    #[error(transparent)]
    Store(CacheError),
    /// A log or temporary file could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The step asks for something that this engine was not given: a context, a secret.
    #[error("{0}")]
    Missing(String),
    /// The call was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl StepError {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Platform { platform, .. } if platform.os != "linux" => Some(
                "only Linux programs can be run: do it in a stage `FROM --platform=$BUILDPLATFORM` \
                 and copy what it makes"
                    .to_owned(),
            ),
            Self::Platform { platform, .. } => Some(format!(
                "install an emulator (Debian's qemu-user-static, or `docker run --privileged --rm \
                 tonistiigi/binfmt --install {}`), or compile for it in a stage \
                 `FROM --platform=$BUILDPLATFORM`",
                platform.architecture
            )),
            _ => None,
        }
    }
}

impl From<CacheError> for StepError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Store(other),
        }
    }
}

impl From<SandboxError> for StepError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Sandbox(other),
        }
    }
}
