//! What branches, tags and hashes stand for.

use rbuild_cache::StepRecord;
use rbuild_plan::op::{Git, Source};
use rbuild_types::{Ctx, Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::error::GitError;
use super::object::ObjectId;
use super::remote::Reference;
use crate::sources::remote::RemoteSources;

/// What a reference is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// `refs/…`; empty for a commit that was named by its hash.
    pub(crate) name: String,
    /// The commit, or an annotated tag.
    pub(crate) id: ObjectId,
    /// The commit behind the tag.
    pub(crate) peeled: Option<ObjectId>,
}

impl Resolved {
    pub(crate) fn commit(&self) -> ObjectId {
        self.peeled.unwrap_or(self.id)
    }
}

impl RemoteSources<'_> {
    /// What the source's reference stands for in this build.
    pub(in crate::sources) fn resolved(
        &self,
        source: &Source,
        git: &Git,
        ctx: Ctx<'_>,
    ) -> Result<Resolved, GitError> {
        if let Some(resolved) = self.known_reference(source) {
            return Ok(resolved);
        }
        let resolved = self.resolve(git, ctx)?;
        self.remember_reference(source, resolved.clone());
        Ok(resolved)
    }

    /// Finds the commit, asking the server only when its hash was not given.
    fn resolve(&self, git: &Git, ctx: Ctx<'_>) -> Result<Resolved, GitError> {
        let pinned = match &git.checksum {
            Some(checksum) if git.fetch_by_commit => ObjectId::from_hex(checksum.as_bytes()),
            _ => ObjectId::from_hex(git.reference.as_bytes()),
        };
        if let Some(id) = pinned {
            return Ok(Resolved { name: String::new(), id, peeled: None });
        }
        if git.reference.len() == 64 && hex::decode(&git.reference).is_ok() {
            return Err(GitError::Unsupported("a repository with SHA-256 names".to_owned()));
        }
        let resolved = match &self.lock {
            Some(lock) => Some(lock.repository(&git.remote, &git.reference)?),
            None if self.engine.options.offline => self.recall(git)?,
            None => None,
        };
        let resolved = match resolved {
            Some(resolved) => resolved,
            None => self.ask(git, ctx)?,
        };
        if let Some(expected) = &git.checksum {
            let expected = expected.to_lowercase();
            let mut hashes = vec![resolved.id.hex()];
            hashes.extend(resolved.peeled.map(|id| id.hex()));
            if !hashes.iter().any(|hash| hash.starts_with(&expected)) {
                return Err(GitError::Checksum { expected, found: hashes.join(" or ") });
            }
        }
        Ok(resolved)
    }

    /// Asks the server what a reference stands for, and keeps the answer.
    fn ask(&self, git: &Git, ctx: Ctx<'_>) -> Result<Resolved, GitError> {
        let remote = self.greet(&git.remote, ctx)?;
        let candidates = candidates(&git.reference);
        let references = remote.references(&candidates)?;
        let found = candidates
            .iter()
            .find_map(|name| references.iter().find(|reference| reference.name == *name));
        let Some(Reference { name, id, peeled }) = found.cloned() else {
            let reference = match git.reference.as_str() {
                "" => "HEAD".to_owned(),
                other => format!("{other:?}"),
            };
            return Err(GitError::Reference { remote: remote.name, reference });
        };
        let resolved = Resolved { name, id, peeled };
        self.keep_answer(git, &resolved)?;
        Ok(resolved)
    }

    /// What the reference stood for when its server was asked last.
    fn recall(&self, git: &Git) -> Result<Option<Resolved>, GitError> {
        let record = self.store().records().get(&answer_key(git))?;
        Ok(record.and_then(|record| serde_json::from_value(record.inputs).ok()))
    }

    fn keep_answer(&self, git: &Git, resolved: &Resolved) -> Result<(), GitError> {
        let answer = serde_json::to_value(resolved).unwrap_or_default();
        let key = answer_key(git);
        let records = self.store().records();
        if records.get(&key)?.is_some_and(|known| known.inputs == answer) {
            return Ok(());
        }
        let name = format!("{}#{}", rbuild_plan::without_passwords(&git.remote), git.reference);
        Ok(records.put(&StepRecord::new(key, "git", &name, answer))?)
    }
}

/// Where the answer of a server is kept.
fn answer_key(git: &Git) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field("rbuild git reference 1").field(&git.remote).field(&git.reference);
    hasher.finish()
}

/// The names that a reference may have in full, as git prefers them.
fn candidates(reference: &str) -> Vec<String> {
    if reference.is_empty() {
        return vec!["HEAD".to_owned()];
    }
    let full =
        |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference));
    vec![full("refs/"), full("refs/heads/"), full("refs/tags/")]
}
