//! Sources of `ADD` that lie elsewhere: what they have in common.
//!
//! A source is identified first, which makes its key; its tree is fetched only when a step needs
//! the files, or when there is no other way to know the content. Trees are snapshots with a
//! record, so that `du` shows them and `prune` takes them like any other result.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rbuild_cache::{CacheError, SnapshotId, Store};
use rbuild_plan::op::Source;
use rbuild_registry::{Registry, RegistryError};
use rbuild_solver::{Remotes, Secrets, StepError};
use rbuild_types::{Ctx, Digest};

use crate::{BuildError, Engine};

/// Looks remote sources up for one build.
pub(crate) struct RemoteSources<'a> {
    engine: &'a Engine,
    pub(super) secrets: &'a Secrets,
    /// Trees that identifying a source has found or made.
    trees: Mutex<HashMap<Source, SnapshotId>>,
}

impl<'a> RemoteSources<'a> {
    pub(crate) fn new(engine: &'a Engine, secrets: &'a Secrets) -> Self {
        Self { engine, secrets, trees: Mutex::default() }
    }

    pub(super) fn store(&self) -> &'a Store {
        &self.engine.store
    }

    pub(super) fn network(&self) -> Result<&'a Registry, RemoteError> {
        self.engine.registry().map_err(|error| RemoteError::Engine(Box::new(error)))
    }

    pub(super) fn remember(&self, source: &Source, tree: SnapshotId) {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), tree);
    }

    fn known(&self, source: &Source) -> Option<SnapshotId> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    /// A secret as one line of text.
    pub(super) fn secret(&self, name: &str) -> Option<String> {
        let value = String::from_utf8_lossy(self.secrets.get(name)?).into_owned();
        Some(value.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl Remotes for RemoteSources<'_> {
    fn identify(&self, source: &Source, ctx: Ctx<'_>) -> Result<serde_json::Value, StepError> {
        match source {
            Source::Http(http) => Ok(self.identify_http(source, http, ctx)?),
            Source::Git(_) | Source::Image { .. } => Err(misplaced()),
        }
    }

    fn fetch(&self, source: &Source, ctx: Ctx<'_>) -> Result<SnapshotId, StepError> {
        if let Some(tree) = self.known(source) {
            return Ok(tree);
        }
        match source {
            Source::Http(http) => Ok(self.fetch_http(http, ctx)?),
            Source::Git(_) | Source::Image { .. } => Err(misplaced()),
        }
    }
}

fn misplaced() -> StepError {
    StepError::Missing("ADD of a git repository is not supported yet".to_owned())
}

/// Why a remote source could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Other bytes than `--checksum` names.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    Digest { url: String, found: Digest, expected: Digest },
    /// The server cannot be asked whether what the store has is still right.
    #[error(
        "{source}; the store has what {url} was before: with --checksum={known} the server need \
         not be asked"
    )]
    Unreachable { url: String, known: Digest, source: Box<RegistryError> },
    /// A 304 to a request without a condition.
    #[error("{url} is said not to be modified (304), but nothing of it was there before")]
    NotModified { url: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Engine(Box<BuildError>),
    #[error(transparent)]
    Store(#[from] CacheError),
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    #[error("cannot write a file of {url}: {source}")]
    Write { url: String, source: std::io::Error },
}

impl From<RemoteError> for StepError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Registry(RegistryError::Cancelled(cancelled)) => cancelled.into(),
            RemoteError::Store(error) => error.into(),
            other => Self::Remote(Box::new(other)),
        }
    }
}
