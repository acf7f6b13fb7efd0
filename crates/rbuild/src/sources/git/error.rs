//! What can go wrong with a git repository.

use rbuild_cache::CacheError;
use rbuild_registry::RegistryError;
use rbuild_solver::StepError;
use rbuild_types::Cancelled;

use super::object::ObjectId;
use crate::lock_file::LockError;
use crate::sources::remote::RemoteError;

/// Longest piece of a server's own words that an error repeats, in characters.
const MAX_QUOTED: usize = 300;

/// Why a repository could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    #[error("repository {remote} does not contain ref {reference}; check its branches and tags")]
    Reference { remote: String, reference: String },
    #[error("expected checksum to match {expected}, got {found}")]
    Checksum { expected: String, found: String },
    /// Unusable answers.
    #[error("{remote} is no git repository that can be read: {problem}")]
    Protocol { remote: String, problem: String },
    /// The server says so.
    #[error("{remote} refuses: {message:?}")]
    Refused { remote: String, message: String },
    #[error("{problem}; a private repository needs the secret GIT_AUTH_TOKEN")]
    Unauthorized { problem: Box<RegistryError> },
    #[error("git object {id}: {problem}")]
    Object { id: ObjectId, problem: String },
    #[error("bad git pack: {0}")]
    Pack(String),
    #[error("invalid subdir {subdir}: {problem}")]
    Subdir { subdir: String, problem: &'static str },
    #[error("submodule {path:?}: {problem}")]
    Submodule { path: String, problem: String },
    #[error("{0} is not supported yet")]
    Unsupported(String),
    #[error(transparent)]
    Registry(Box<RegistryError>),
    #[error(transparent)]
    Remote(Box<RemoteError>),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] CacheError),
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    #[error("cannot read or write files of a git repository: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl GitError {
    /// A server's own words, shortened.
    pub(super) fn refused(remote: &str, message: &[u8]) -> Self {
        let message = String::from_utf8_lossy(message);
        let message = message.trim().chars().take(MAX_QUOTED).collect();
        Self::Refused { remote: remote.to_owned(), message }
    }

    pub(super) fn protocol(remote: &str, problem: impl Into<String>) -> Self {
        Self::Protocol { remote: remote.to_owned(), problem: problem.into() }
    }

    pub(super) fn object(id: ObjectId, problem: impl Into<String>) -> Self {
        Self::Object { id, problem: problem.into() }
    }
}

impl From<RegistryError> for GitError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Cancelled(cancelled) => cancelled.into(),
            RegistryError::Status { ref answer, .. } if matches!(answer.status, 401 | 403) => {
                Self::Unauthorized { problem: Box::new(error) }
            }
            other => Self::Registry(Box::new(other)),
        }
    }
}

impl From<RemoteError> for GitError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(Box::new(error))
    }
}

impl From<GitError> for StepError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Cancelled(cancelled) => cancelled.into(),
            GitError::Store(error) => error.into(),
            other => Self::Remote(Box::new(other)),
        }
    }
}
