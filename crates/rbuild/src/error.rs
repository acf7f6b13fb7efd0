//! What can go wrong, by what a caller can do about it.

use std::path::PathBuf;

use rbuild_cache::CacheError;
use rbuild_container::ContainerError;
use rbuild_image::ImageError;
use rbuild_registry::RegistryError;
use rbuild_sandbox::SandboxError;
use rbuild_snapshot::SnapshotError;
use rbuild_solver::{SolveError, StepError, StepFailure};
use rbuild_types::{Cancelled, Diagnostic};

use crate::LockError;

/// Why a call of the engine failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Dockerfile is wrong, or does not fit the request.
    #[error("{name}: {}", .diagnostics.iter().find(|one| one.is_error()).map_or("cannot be built", |one| &one.message))]
    Dockerfile {
        /// Its name in messages.
        name: String,
        /// Its text, which the spans of the diagnostics point into.
        source_text: String,
        /// What is wrong, the first to fix first.
        diagnostics: Vec<Diagnostic>,
    },
    /// A step failed.
    #[error("{}: {}", .failure.name, .failure.source)]
    Step {
        /// Name of the Dockerfile in messages.
        name: String,
        /// Its text.
        source_text: String,
        /// Which step and how.
        failure: Box<StepFailure>,
    },
    /// The Dockerfile or context is not there or cannot be read.
    #[error("{what} {}: {source}", path.display())]
    Input {
        /// What was being done: `read the Dockerfile`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The request contradicts itself or holds something unreadable.
    #[error("{message}")]
    Request {
        /// What is wrong with it and the way out.
        message: String,
    },
    /// No image of that name is in the store.
    #[error("no such image: {name}")]
    NoSuchImage {
        /// The name or id as given.
        name: String,
    },
    /// No container has that name or id.
    #[error("no such container: {name}")]
    NoSuchContainer {
        /// The name or id as given.
        name: String,
    },
    /// No network has that name or id.
    #[error("no such network: {name}: `rbuild network ls` lists them")]
    NoSuchNetwork {
        /// The name or id as given.
        name: String,
    },
    /// No volume has that name.
    #[error("no such volume: {name}: `rbuild volume ls` lists them")]
    NoSuchVolume {
        /// The name as given.
        name: String,
    },
    /// No step of a past build has that name.
    #[error("no such step: {name}: {hint}")]
    NoSuchStep {
        /// The name as given.
        name: String,
        /// What there is.
        hint: String,
    },
    /// No cache mount has this id.
    #[error("no cache mount has the id {id:?}: `rbuild cache ls` lists them")]
    NoSuchCache {
        /// The id, or the start of a name.
        id: String,
    },
    /// An image or a container is in use, or a name is taken.
    #[error("{message}")]
    Conflict {
        /// By what, and the way out.
        message: String,
    },
    /// A process could not be run.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A container could not be started, or not be reached.
    #[error(transparent)]
    Container(ContainerError),
    /// What a build is made from lies elsewhere and could not be had.
    #[error("cannot load {subject}: {source}")]
    Fetch {
        /// `the build context URL`.
        subject: String,
        /// Why not.
        source: Box<StepError>,
    },
    /// An image could not be read or written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A registry could not give what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The lock file is of no use, or does not name what it must.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A server would have to be asked, which [`crate::EngineOptions::offline`] forbids.
    #[error("{missing}, and offline no server is asked: do it once without --offline")]
    Offline {
        /// What is not there: `x is not in the store`.
        missing: String,
    },
    /// An image could not be pushed. No name in the registry moved to it.
    #[error("cannot push {name}: {source}")]
    Push {
        /// The name, or that of the repository.
        name: String,
        /// Why not.
        source: Box<RegistryError>,
    },
    /// A cache elsewhere could not be written, and the request says that it must be.
    #[error("cannot write {name}: {problem}")]
    CacheExport {
        /// The cache.
        name: String,
        /// Why not.
        problem: String,
    },
    /// A root filesystem could not be mounted.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(CacheError),
    /// A path in a root filesystem could not be opened.
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    /// Something else in the system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The call was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<ContainerError> for BuildError {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::Start(failure) => SandboxError::Start(failure).into(),
            ContainerError::Sandbox(error) => error.into(),
            ContainerError::Snapshot(error) => error.into(),
            ContainerError::Rooted(error) => error.into(),
            ContainerError::NotRunning => Self::Conflict { message: error.to_string() },
            error => Self::Container(error),
        }
    }
}

impl From<CacheError> for BuildError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Store(other),
        }
    }
}

impl BuildError {
    /// Says what could not be fetched.
    pub(crate) fn of_fetch(subject: String, error: StepError) -> Self {
        match error {
            StepError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            StepError::Store(error) => error.into(),
            other => Self::Fetch { subject, source: Box::new(other) },
        }
    }

    /// Says what could not be pushed.
    pub(crate) fn of_push(name: String, error: RegistryError) -> Self {
        match error {
            RegistryError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Push { name, source: Box::new(other) },
        }
    }

    /// Puts the Dockerfile beside a failed step, so that a terminal can show the place.
    pub(crate) fn of_solve(error: SolveError, name: &str, source_text: &str) -> Self {
        match error {
            SolveError::Step(failure) => {
                Self::Step { name: name.to_owned(), source_text: source_text.to_owned(), failure }
            }
            SolveError::Store(error) => error.into(),
            SolveError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Request { message: other.to_string() },
        }
    }
}
