//! Git repositories: one commit, without its history and without any helper program.
//!
//! A reference is resolved in every build, which takes two small requests; a commit that is named
//! by its hash takes none. The commit is the key, together with what is taken of it, so that a
//! commit that was fetched once is not fetched again. What a reference stood for is kept in a
//! record, which is what counts offline.

mod checkout;
mod database;
mod delta;
mod entry;
mod error;
mod git_dir;
mod loose;
mod memory;
mod object;
mod pack;
mod packet;
mod reference;
mod remote;
mod submodule;
mod web;
mod wire;

use rbuild_cache::{Scratch, SnapshotId, SnapshotMeta, StepRecord};
use rbuild_plan::git_ref::CheckoutTime;
use rbuild_plan::op::{Git, Source};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Digest, Hasher};
use serde_json::{Value, json};

use self::database::Database;
use self::error::GitError;
use self::object::Kind;
pub(crate) use self::object::ObjectId;
pub(crate) use self::reference::Resolved;
use self::remote::{Credentials, Remote};
use super::remote::RemoteSources;

/// Submodules inside one another.
const MAX_NESTING: usize = 16;

/// A commit's tree.
struct CheckedOut {
    tree: SnapshotId,
    /// The committer's time, seconds since 1970.
    committed: i64,
}

/// Where a tree's record has the time of its commit.
const COMMITTED: &str = "committed";

/// One repository on its way into a tree.
struct Job<'a> {
    sources: &'a RemoteSources<'a>,
    scratch: &'a Scratch,
    ctx: Ctx<'a>,
}

impl RemoteSources<'_> {
    pub(super) fn identify_git(
        &self,
        source: &Source,
        git: &Git,
        ctx: Ctx<'_>,
    ) -> Result<Value, GitError> {
        let identity = identity(git, &self.resolved(source, git, ctx)?);
        if let Some(tree) = self.store().snapshots().by_chain_id(&tree_id(&identity))? {
            self.remember(source, tree);
        }
        Ok(identity)
    }

    pub(super) fn fetch_git(
        &self,
        source: &Source,
        git: &Git,
        ctx: Ctx<'_>,
    ) -> Result<SnapshotId, GitError> {
        let resolved = self.resolved(source, git, ctx)?;
        let identity = identity(git, &resolved);
        let tree_id = tree_id(&identity);
        // Two builds that need the same commit fetch it once.
        let _lock = self.store().step_lock(&tree_id, ctx.cancel)?;
        match self.store().snapshots().by_chain_id(&tree_id)? {
            Some(tree) => Ok(tree),
            None => Ok(self.check_out(git, &resolved, ctx)?.tree),
        }
    }

    /// The committer's time, seconds since 1970.
    pub(super) fn time_of_commit(
        &self,
        source: &Source,
        git: &Git,
        ctx: Ctx<'_>,
    ) -> Result<i64, GitError> {
        let resolved = self.resolved(source, git, ctx)?;
        let tree_id = tree_id(&identity(git, &resolved));
        let _lock = self.store().step_lock(&tree_id, ctx.cancel)?;
        // A tree may have lost its record with the index.
        let record = self.store().records().get(&tree_id)?;
        match record.and_then(|record| record.inputs.get(COMMITTED)?.as_i64()) {
            Some(time) => Ok(time),
            None => Ok(self.check_out(git, &resolved, ctx)?.committed),
        }
    }

    /// Makes the tree of a commit, and its record.
    fn check_out(
        &self,
        git: &Git,
        resolved: &Resolved,
        ctx: Ctx<'_>,
    ) -> Result<CheckedOut, GitError> {
        let mut identity = identity(git, resolved);
        let tree_id = tree_id(&identity);
        let new = self.store().snapshots().allocate("git", ctx.cancel)?;
        let path = new.path().join("fs");
        // The umask is not asked.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::create_dir(&path).and_then(|()| fs_err::set_permissions(&path, mode))?;
        let scratch = self.store().scratch("git")?;
        let job = Job { sources: self, scratch: &scratch, ctx };
        let committed = job.check_out(git, resolved, &Root::open(&path)?)?;
        let meta = SnapshotMeta { chain_id: Some(tree_id), ..SnapshotMeta::default() };
        let tree = self.store().snapshots().publish(new, meta)?;
        let name = format!("{}#{}", rbuild_plan::without_passwords(&git.remote), resolved.commit());
        // No part of the key: the commit decides over it.
        identity[COMMITTED] = json!(committed);
        let mut record = StepRecord::new(tree_id, "git", &name, identity);
        record.snapshot = Some(tree.clone());
        self.store().records().put(&record)?;
        Ok(CheckedOut { tree, committed })
    }

    fn greet<'s>(&'s self, url: &str, ctx: Ctx<'s>) -> Result<Remote<'s>, GitError> {
        self.greet_as(url, self.git_authorization(url), ctx)
    }

    fn greet_as<'s>(
        &'s self,
        url: &str,
        authorization: Option<String>,
        ctx: Ctx<'s>,
    ) -> Result<Remote<'s>, GitError> {
        let credentials = Credentials { authorization, agents: self.agents };
        let network = self.network(|| {
            let url = rbuild_plan::without_passwords(url);
            format!("what is asked of the repository {url} is not in the store")
        })?;
        Remote::greet(network, url, credentials, ctx)
    }

    /// The first of BuildKit's secrets for a host that is there.
    fn git_authorization(&self, url: &str) -> Option<String> {
        let host = super::http::authority(url);
        let token = |name: &str| {
            let pair = format!("x-access-token:{}", self.secret(name)?);
            Some(format!("basic {}", super::remote::base64(pair.as_bytes())))
        };
        self.secret(&format!("GIT_AUTH_HEADER.{host}"))
            .or_else(|| token(&format!("GIT_AUTH_TOKEN.{host}")))
            .or_else(|| self.secret("GIT_AUTH_HEADER"))
            .or_else(|| token("GIT_AUTH_TOKEN"))
    }
}

impl Job<'_> {
    /// Writes what the Dockerfile asks for; gives the commit's time.
    fn check_out(&self, git: &Git, resolved: &Resolved, root: &Root) -> Result<i64, GitError> {
        let remote = self.sources.greet(&git.remote, self.ctx)?;
        let keeps = git.keep_git_dir && git.subdir.is_empty();
        let (name, peeled) = (resolved.name.as_str(), resolved.peeled);
        let place = Place { url: &git.remote, name, peeled, keeps };
        // The tag, not the commit behind it: older servers give what they have a name for.
        self.write(git, &remote, &resolved.id, &place, root, 0)
    }

    /// Writes one commit, and the submodules in it; gives its time.
    fn write(
        &self,
        git: &Git,
        remote: &Remote<'_>,
        wanted: &ObjectId,
        place: &Place<'_>,
        root: &Root,
        depth: usize,
    ) -> Result<i64, GitError> {
        let database = Database::new(remote, self.scratch, self.ctx);
        database.fetch(wanted)?;
        let (id, commit) = database.commit(wanted)?;
        // The tree is kept under the commit's name: nothing else may get there.
        if place.peeled.is_some_and(|peeled| peeled != id) {
            return Err(GitError::object(*wanted, "it is another tag than the server said"));
        }
        let subdir = if depth == 0 { git.subdir.as_str() } else { "" };
        let tree = checkout::find_tree(&database, &commit.tree, subdir)?;
        let written = checkout::write_tree(&database, &tree, root, self.ctx)?;
        if place.keeps {
            let reference = Some((place.name, *wanted)).filter(|(name, _)| !name.is_empty());
            let shown = rbuild_plan::without_passwords(place.url);
            let head = git_dir::Head { remote: &shown, reference, id, commit: &commit };
            git_dir::write(&database, &head, &written, root, self.ctx)?;
        }
        if git.submodules && written.submodules().next().is_some() {
            let modules = self.submodules(&database, &commit.tree)?;
            for (path, id) in written.submodules() {
                let path = String::from_utf8_lossy(path).into_owned();
                let whole =
                    if subdir.is_empty() { path.clone() } else { format!("{subdir}/{path}") };
                // As git: what the file does not name stays an empty directory.
                let Some(module) = modules.iter().find(|one| one.path == whole) else { continue };
                let wrong = |problem| GitError::Submodule { path: whole.clone(), problem };
                if depth == MAX_NESTING {
                    return Err(wrong("too many submodules inside one another".to_owned()));
                }
                let url = submodule::resolve(place.url, module)?;
                // Credentials were given for the repository that the Dockerfile names. What an
                // agent signs is of use to nobody but the server that asked.
                let same = super::http::authority(&url) == super::http::authority(&git.remote)
                    && url.split(':').next() == git.remote.split(':').next();
                let authorization =
                    if same { self.sources.git_authorization(&git.remote) } else { None };
                let remote = self
                    .sources
                    .greet_as(&url, authorization, self.ctx)
                    .map_err(|error| wrong(error.to_string()))?;
                let place = Place { url: &url, name: "", peeled: None, keeps: place.keeps };
                let inner = root.open_real_dir(std::path::Path::new("/").join(&path))?;
                self.write(git, &remote, id, &place, &inner, depth + 1)?;
            }
        }
        if git.mtime == CheckoutTime::Commit {
            written.set_times(root, commit.time)?;
        }
        Ok(commit.time)
    }

    fn submodules(
        &self,
        database: &Database<'_>,
        tree: &ObjectId,
    ) -> Result<Vec<submodule::Submodule>, GitError> {
        let entries = checkout::entries(database, tree)?;
        let Some(file) = entries.iter().find(|entry| entry.name == b".gitmodules") else {
            return Ok(Vec::new());
        };
        let text = database.read_as(Kind::Blob, &file.id)?;
        Ok(submodule::parse(&String::from_utf8_lossy(&text)))
    }
}

/// Where a repository is, and what becomes of it.
struct Place<'a> {
    url: &'a str,
    /// The reference in full, if there was one.
    name: &'a str,
    /// The commit that the server says is behind the reference's tag.
    peeled: Option<ObjectId>,
    /// Whether `.git` is written.
    keeps: bool,
}

/// What decides over the tree: the commit, and what is taken of it.
fn identity(git: &Git, resolved: &Resolved) -> Value {
    let keeps = git.keep_git_dir && git.subdir.is_empty();
    let mut identity = json!({
        "source": "git",
        "commit": resolved.commit().hex(),
        "subdir": git.subdir,
        "submodules": git.submodules,
        "mtime": git.mtime,
    });
    if keeps && let Value::Object(fields) = &mut identity {
        // These are written into `.git`.
        let remote = rbuild_plan::without_passwords(&git.remote);
        fields.insert("git_dir".to_owned(), json!([remote, resolved.name, resolved.id.hex()]));
    }
    identity
}

fn tree_id(identity: &Value) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field("rbuild git tree 1").field(identity.to_string());
    hasher.finish()
}
