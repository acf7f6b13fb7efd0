//! What branches, tags and hashes stand for.

use rbuild_plan::op::{Git, Source};
use rbuild_types::Ctx;

use super::error::GitError;
use super::object::ObjectId;
use super::remote::Reference;
use crate::sources::remote::RemoteSources;

/// What a reference is now.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// `refs/…`; empty for a commit that was named by its hash.
    pub(super) name: String,
    /// The commit, or an annotated tag.
    pub(super) id: ObjectId,
    /// The commit behind the tag.
    pub(super) peeled: Option<ObjectId>,
}

impl Resolved {
    pub(super) fn commit(&self) -> ObjectId {
        self.peeled.unwrap_or(self.id)
    }
}

impl RemoteSources<'_> {
    /// What the source's reference stands for in this build.
    pub(super) fn resolved(
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
