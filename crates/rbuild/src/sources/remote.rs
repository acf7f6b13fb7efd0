//! Sources of `ADD` and contexts that lie elsewhere: what they have in common.
//!
//! A source is identified first, which makes its key; its tree is fetched only when a step needs
//! the files, or when there is no other way to know the content. Trees are snapshots with a
//! record, so that `du` shows them and `prune` takes them like any other result.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use rbuild_cache::{CacheError, SnapshotId, Store};
use rbuild_image::ImageError;
use rbuild_plan::op::{Git, Http, Source};
use rbuild_registry::{Registry, RegistryError};
use rbuild_solver::{Remotes, Secrets, SshAgents, StepError};
use rbuild_types::{Ctx, Digest};

use super::git::Resolved;
use crate::lock_file::{Lock, LockError};
use crate::{BuildError, BuildRequest, Engine};

/// Looks remote sources up for one build.
pub(crate) struct RemoteSources<'a> {
    pub(super) engine: &'a Engine,
    secrets: &'a Secrets,
    /// Who signs where a server asks for a key.
    pub(super) agents: &'a SshAgents,
    /// What sources are held to that do not name their content themselves.
    pub(super) lock: Option<Arc<Lock>>,
    /// Trees that identifying a source has found or made.
    trees: Mutex<HashMap<Source, SnapshotId>>,
    /// What URLs gave in this build.
    contents: Mutex<HashMap<Source, Digest>>,
    /// What references of git repositories stand for in this build.
    references: Mutex<HashMap<Source, Resolved>>,
}

/// What a source is now that does not say so itself.
pub(crate) enum Pin<'s> {
    /// A URL and the digest of its content.
    Url(&'s str, Digest),
    /// A reference of a repository.
    Git(&'s Git, Resolved),
}

/// The files of a source.
pub(super) struct FetchedTree {
    /// What decides over them.
    pub(super) identity: serde_json::Value,
    /// Their directory in the store.
    pub(super) path: PathBuf,
}

impl<'a> RemoteSources<'a> {
    pub(crate) fn new(engine: &'a Engine, request: &'a BuildRequest) -> Self {
        let BuildRequest { secrets, ssh: agents, .. } = request;
        let (trees, contents) = (Mutex::default(), Mutex::default());
        let references = Mutex::default();
        Self { engine, secrets, agents, lock: None, trees, contents, references }
    }

    /// Holds sources to what a lock file names.
    pub(crate) fn with_lock(self, lock: Option<Arc<Lock>>) -> Self {
        Self { lock, ..self }
    }

    pub(super) fn store(&self) -> &'a Store {
        &self.engine.store
    }

    /// The way to servers; `missing` is what is not there without them.
    pub(super) fn network(
        &self,
        missing: impl FnOnce() -> String,
    ) -> Result<&'a Registry, RemoteError> {
        self.engine.registry(missing).map_err(|error| RemoteError::Engine(Box::new(error)))
    }

    pub(super) fn remember(&self, source: &Source, tree: SnapshotId) {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(source.clone(), tree);
    }

    fn known(&self, source: &Source) -> Option<SnapshotId> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    pub(super) fn remember_content(&self, source: &Source, content: Digest) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.insert(source.clone(), content);
    }

    /// The content of a URL that this build has looked at.
    pub(crate) fn content(&self, source: &Source) -> Option<Digest> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    /// The commit that a source of this build stands for, in hexadecimal digits.
    pub(crate) fn commit(&self, source: &Source) -> Option<String> {
        self.known_reference(source).map(|resolved| resolved.commit().to_string())
    }

    pub(super) fn remember_reference(&self, source: &Source, resolved: Resolved) {
        let mut references = self.references.lock().unwrap_or_else(PoisonError::into_inner);
        references.insert(source.clone(), resolved);
    }

    pub(super) fn known_reference(&self, source: &Source) -> Option<Resolved> {
        self.references.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned()
    }

    /// The files of a source as they are now; `subject` is what errors call it.
    pub(super) fn tree(
        &self,
        source: &Source,
        subject: &str,
        ctx: Ctx<'_>,
    ) -> Result<FetchedTree, BuildError> {
        let failed = |error| BuildError::of_fetch(subject.to_owned(), error);
        let identity = self.identify(source, ctx).map_err(failed)?;
        let tree = self.fetch(source, ctx).map_err(failed)?;
        Ok(FetchedTree { identity, path: self.store().snapshots().path(&tree).join("fs") })
    }

    /// The time of a source in seconds since 1970: that of a commit, or of a file as its server
    /// says it, or of the newest file of an archive whose server says nothing. `subject` is what
    /// errors call it.
    pub(super) fn time(
        &self,
        source: &Source,
        subject: &str,
        ctx: Ctx<'_>,
    ) -> Result<Option<i64>, BuildError> {
        let failed = |error| BuildError::of_fetch(subject.to_owned(), error);
        match source {
            Source::Http(http) => {
                let time = self.held(http).and_then(|http| self.time_of_http(&http, ctx));
                time.map_err(|error| failed(error.into()))
            }
            Source::Git(git) => {
                let time = self.time_of_commit(source, git, ctx);
                time.map(Some).map_err(|error| failed(error.into()))
            }
            Source::Image { .. } => Err(failed(misplaced())),
        }
    }

    /// What a source is now; nothing for one that names its content itself. `subject` is what
    /// errors call it.
    pub(crate) fn pin<'s>(
        &self,
        source: &'s Source,
        subject: &str,
        ctx: Ctx<'_>,
    ) -> Result<Option<Pin<'s>>, BuildError> {
        let failed = |error| BuildError::of_fetch(subject.to_owned(), error);
        match source {
            Source::Http(http) if http.checksum.is_none() => {
                let now = self.revalidate(http, ctx).map_err(|error| failed(error.into()))?;
                Ok(Some(Pin::Url(&http.url, now.0)))
            }
            Source::Git(git) => {
                let resolved = self.resolved(source, git, ctx);
                let resolved = resolved.map_err(|error| failed(error.into()))?;
                Ok((!resolved.name.is_empty()).then_some(Pin::Git(git, resolved)))
            }
            Source::Http(_) | Source::Image { .. } => Ok(None),
        }
    }

    /// A URL with the content that it is held to.
    fn held<'h>(&self, http: &'h Http) -> Result<Cow<'h, Http>, RemoteError> {
        match (&self.lock, http.checksum) {
            (Some(lock), None) => {
                let checksum = Some(lock.url(&http.url)?);
                Ok(Cow::Owned(Http { checksum, ..http.clone() }))
            }
            _ => Ok(Cow::Borrowed(http)),
        }
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
            Source::Http(http) => Ok(self.identify_http(source, &*self.held(http)?, ctx)?),
            Source::Git(git) => Ok(self.identify_git(source, git, ctx)?),
            Source::Image { .. } => Err(misplaced()),
        }
    }

    fn fetch(&self, source: &Source, ctx: Ctx<'_>) -> Result<SnapshotId, StepError> {
        if let Some(tree) = self.known(source) {
            return Ok(tree);
        }
        match source {
            Source::Http(http) => Ok(self.fetch_http(&*self.held(http)?, ctx)?),
            Source::Git(git) => Ok(self.fetch_git(source, git, ctx)?),
            Source::Image { .. } => Err(misplaced()),
        }
    }
}

/// As the header of a password wants it (RFC 4648, 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn misplaced() -> StepError {
    StepError::Missing("an image is no source that is fetched".to_owned())
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
    Lock(#[from] LockError),
    #[error(transparent)]
    Store(#[from] CacheError),
    #[error(transparent)]
    Rooted(#[from] rbuild_rooted::RootedError),
    #[error("cannot read what {url} gave: {source}")]
    Archive { url: String, source: Box<ImageError> },
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
