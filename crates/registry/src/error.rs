//! What can go wrong with a registry, by what the caller can do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_types::{Cancelled, Digest, Reference};
use reqwest::StatusCode;

/// Why a call to a registry failed.
///
/// `subject` is what was asked for (a reference, or a blob of one), `host` who was asked. Text
/// from a registry is escaped and shortened already.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The caller's token was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// An option cannot work.
    #[error("registry option `{option}` has the value {value:?}: {reason}")]
    Options {
        /// Name of the field of `RegistryOptions`.
        option: &'static str,
        /// The value, unless it may be secret.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// [`RegistryOptions::problem`](crate::RegistryOptions::problem).
    #[error("no registry is asked: {problem}")]
    Unusable {
        /// What it says.
        problem: String,
    },
    /// The network thread does not work.
    #[error("cannot run the network thread")]
    Runtime {
        /// The cause.
        source: std::io::Error,
    },
    /// A configuration with credentials cannot be used.
    #[error("cannot use the credentials in {path}: {reason}")]
    Config {
        /// The file, or what a text is called.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file about registries cannot be used.
    #[error("cannot use what {file} says of registries: {reason}")]
    Registries {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine's files forbid to speak to a registry.
    #[error(
        "{subject} is in a registry that {file} blocks; whoever may change that file can allow it"
    )]
    Blocked {
        /// The repository.
        subject: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// A credential helper failed.
    #[error(
        "credential helper docker-credential-{helper} failed for {host}: {reason}; repair it, or \
         remove it from credHelpers and credsStore in Docker's config.json"
    )]
    Helper {
        /// Name without `docker-credential-`.
        helper: String,
        /// The registry.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("the request to {host} for {subject} failed: {reason}")]
    Connection {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The innermost cause and, where known, a way out.
        reason: String,
    },
    /// The answer did not come, or came too slowly.
    #[error("the request to {host} for {subject} made no progress for {} s", .waited.as_secs())]
    Stalled {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// How long was waited.
        waited: Duration,
    },
    /// 401, or 403: credentials are missing, wrong or not enough.
    #[error("{host} refuses access to {subject}: {answer}; {hint}")]
    Unauthorized {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The registry's answer.
        answer: Answer,
        /// A way out.
        hint: String,
    },
    /// A login that a registry does not take.
    #[error("{host} does not let {user} in: {answer}; check the user name and the password")]
    LoginRefused {
        /// The registry.
        host: String,
        /// The user's name, escaped.
        user: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// What a login is for is no registry's name.
    #[error("{server:?} is no registry's name: one has a dot or a port, as in r.example:5000")]
    Server {
        /// What was given.
        server: String,
    },
    /// 404: no such repository, tag, manifest or blob.
    #[error("{host} does not have {subject}: {answer}; check the name and the tag")]
    NotFound {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// 429, and the tries are used up or the wait would be too long.
    #[error("{host} limits the rate of requests for {subject}: {answer}{}; wait, or log in to \
             raise the limit", wait_text(.retry_after))]
    RateLimited {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The registry's answer.
        answer: Answer,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// Any other status that is not a success.
    #[error("{host} answers a request for {subject} with {answer}")]
    Status {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The registry's answer.
        answer: Answer,
    },
    /// The token server was refused before anything was sent to it, or answers nonsense.
    #[error("cannot get a token for {host}: {reason}")]
    Token {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects the request for {subject} in a way that is not followed: {reason}")]
    Redirect {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// Why it is not followed.
        reason: String,
    },
    /// Other bytes than the digest names.
    #[error("{host} sends wrong bytes for {subject}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{host} sends {subject} with a wrong size: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// Bytes by the descriptor.
        expected: u64,
        /// Bytes received or announced.
        actual: u64,
    },
    /// A document above the limit.
    #[error("{host} sends {subject} with more than {limit} bytes, which no sane document has")]
    TooLarge {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A manifest that is not one, or two things at once.
    #[error("{host} sends an unusable manifest for {subject}: {reason}")]
    Manifest {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of tags or referrers that is not one, or has no end.
    #[error("{host} sends an unusable list of {subject}: {reason}")]
    Listing {
        /// What was asked for.
        subject: String,
        /// Who was asked.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry stored other bytes than it was sent.
    #[error("{host} says that it stored {subject} as {actual}, which is not what was sent")]
    Stored {
        /// What was sent.
        subject: String,
        /// The registry.
        host: String,
        /// The digest that the registry names.
        actual: Digest,
    },
    /// An object in a bucket could not be read or written.
    #[error("bucket {bucket}, {object}: {reason}")]
    Bucket {
        /// The bucket.
        bucket: String,
        /// Which object.
        object: String,
        /// Why not.
        reason: String,
    },
    /// A registry does not do what an upload needs.
    #[error("{host} does not take {subject} as registries do: {reason}")]
    Upload {
        /// What was to be sent.
        subject: String,
        /// The registry.
        host: String,
        /// What is odd.
        reason: &'static str,
    },
    /// The bytes to be sent could not be read.
    #[error("cannot read {subject} to send it")]
    Source {
        /// What was to be sent.
        subject: String,
        /// The reader's error.
        source: std::io::Error,
    },
    /// The caller's sink refused bytes.
    #[error("cannot store {subject}")]
    Sink {
        /// What was asked for.
        subject: String,
        /// The sink's error.
        source: std::io::Error,
    },
    /// An SSH server that may be another than it says.
    #[error("the SSH server {host} is not trusted: {reason}")]
    HostKey {
        /// The server, as `known_hosts` would name it.
        host: String,
        /// Why not, and a way out.
        reason: String,
    },
    /// An SSH server lets nobody in.
    #[error("cannot log in to {host} as {user}: {reason}; keys are given with --ssh")]
    Login {
        /// The server.
        host: String,
        /// The user's name there.
        user: String,
        /// Why not.
        reason: String,
    },
    /// Mirrors and the registry itself failed.
    #[error("cannot fetch {subject} from any of its {} places{}", .failures.len(), list(.failures))]
    Places {
        /// The reference.
        subject: String,
        /// Each place in the order tried.
        failures: Vec<PlaceFailure>,
    },
}

/// How one of several places failed.
#[derive(Debug)]
pub struct PlaceFailure {
    /// `host[:port]`.
    pub place: String,
    /// Its error.
    pub error: RegistryError,
}

/// A registry's answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The registry's own code and message, escaped; may be empty.
    pub detail: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let status = StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        Ok(())
    }
}

impl RegistryError {
    /// Whether other places cannot help.
    pub(crate) fn ends_the_call(&self) -> bool {
        matches!(
            self,
            Self::Cancelled(_) | Self::Options { .. } | Self::Runtime { .. } | Self::Sink { .. }
        )
    }

    /// One place's error as it is, several as a list.
    pub(crate) fn from_places(reference: &Reference, mut failures: Vec<PlaceFailure>) -> Self {
        match failures.pop() {
            Some(only) if failures.is_empty() => only.error,
            last => {
                failures.extend(last);
                Self::Places { subject: reference.to_string(), failures }
            }
        }
    }
}

fn list(failures: &[PlaceFailure]) -> String {
    failures.iter().map(|failure| format!("; {}: {}", failure.place, failure.error)).collect()
}

fn wait_text(wait: &Option<Duration>) -> String {
    match wait {
        Some(wait) => format!("; it asks to wait {} s", wait.as_secs()),
        None => String::new(),
    }
}
