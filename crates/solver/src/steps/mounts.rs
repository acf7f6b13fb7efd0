//! What `RUN --mount` asks for, made ready as detached mounts.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rbuild_cache::{Scratch, StepLock};
use rbuild_plan::mount::{CacheMount, MountKind, MountRoot, MountSource, Sharing, SshMount};
use rbuild_plan::op::{ContextName, Copy, CopySource, Run};
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_sandbox::InjectedFile;
use rbuild_snapshot::Active;
use rbuild_types::{CancelToken, Digest, Hasher};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::copy::{literal, shown_by_mount};
use crate::device::HostMount;
use crate::error::StepError;
use crate::ssh_agent::Forwarding;
use crate::steps::Job;
use crate::steps::active::nothing;
use crate::steps::copy::Trees;
use crate::world::World;

/// The mounts of one process.
pub(crate) struct Mounts {
    /// In order; detached ones by number.
    pub(crate) mounts: Vec<rbuild_sandbox::Mount>,
    /// Files given by content.
    pub(crate) files: Vec<InjectedFile>,
    /// Variables given.
    pub(crate) env: Vec<String>,
    descriptors: Vec<OwnedFd>,
    /// Whether each of `mounts` is a directory.
    directories: Vec<bool>,
    /// What was really read of the context, in the order of [`context_digests`].
    context: Vec<Digest>,
    held: Held,
}

impl Mounts {
    /// Makes what `op` asks for ready, and after it `host`, which its devices bring.
    pub(crate) fn prepare(job: &Job<'_>, op: &Run, host: &[HostMount]) -> Result<Self, StepError> {
        let held = Held::lock(job, op)?;
        let mut all = Self {
            mounts: Vec::new(),
            files: Vec::new(),
            env: Vec::new(),
            descriptors: Vec::new(),
            directories: Vec::new(),
            context: Vec::new(),
            held,
        };
        for mount in &op.mounts {
            let target = mount.target.as_deref();
            match &mount.kind {
                MountKind::Tmpfs { size } => {
                    let source = rbuild_sandbox::MountSource::Tmpfs { size: *size, mode: 0o1777 };
                    all.add(target, source, mount.read_only, FileKind::Directory);
                }
                MountKind::Bind(source) => {
                    let source = all.bind(job, source, mount.read_only)?;
                    all.detach(target, source, mount.read_only);
                }
                MountKind::Cache(cache) => {
                    let source = cache_directory(job, cache, &mut all.held)?;
                    all.detach(target, source, mount.read_only);
                }
                MountKind::Secret(secret) => {
                    let Some(value) = job.world.secrets.get(&secret.id) else {
                        if secret.required {
                            let message = format!("secret {}: not found", secret.id);
                            return Err(StepError::Missing(message));
                        }
                        continue;
                    };
                    if let Some(name) = &secret.env {
                        let value = String::from_utf8(value.clone()).map_err(|_| {
                            let message = format!("secret {} is not text", secret.id);
                            StepError::Missing(message)
                        })?;
                        all.env.push(format!("{name}={value}"));
                    }
                    if let Some(target) = target {
                        all.files.push(InjectedFile {
                            owner: (secret.uid, secret.gid),
                            read_only: true,
                            required: true,
                            ..InjectedFile::new(target, value.clone(), secret.mode)
                        });
                    }
                }
                MountKind::Ssh(ssh) => {
                    if let Some(target) = target.filter(|_| ssh.export) {
                        all.env.push(format!("SSH_AUTH_SOCK={target}"));
                    }
                    if let Some(socket) = agent_socket(job, ssh, &mut all.held)? {
                        all.detach(target, socket, mount.read_only);
                    }
                }
            }
        }
        for mount in host {
            all.host(mount)?;
        }
        Ok(all)
    }

    fn host(&mut self, mount: &HostMount) -> Result<(), StepError> {
        let is_directory = fs_err::metadata(&mount.source)?.is_dir();
        let kind = if is_directory { FileKind::Directory } else { FileKind::Regular };
        let shown = Shown::of(rbuild_snapshot::bind(&mount.source)?, Path::new("/"), kind)?;
        self.detach(Some(&mount.target), shown, mount.read_only);
        if let Some(added) = self.mounts.last_mut() {
            (added.no_suid, added.no_exec) = (mount.no_suid, mount.no_exec);
        }
        Ok(())
    }

    /// Ends the mounts: what was read of the context, if anything.
    pub(crate) fn into_context(self) -> Option<Vec<Digest>> {
        if self.context.is_empty() { None } else { Some(self.context) }
    }

    /// Where things are mounted, and whether each is a directory.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&str, bool)> {
        let mounts = self.mounts.iter().map(|mount| mount.target.as_str());
        let files = self.files.iter().map(|file| (file.path.as_str(), false));
        mounts.zip(self.directories.iter().copied()).chain(files)
    }

    /// The descriptors, for the sandbox.
    pub(crate) fn detached(&self) -> io::Result<Vec<OwnedFd>> {
        self.descriptors.iter().map(|fd| fd.as_fd().try_clone_to_owned()).collect()
    }

    fn detach(&mut self, target: Option<&str>, shown: Shown, read_only: bool) {
        let number = self.descriptors.len();
        self.descriptors.push(shown.mount);
        let source = rbuild_sandbox::MountSource::Detached { number, path: shown.path };
        self.add(target, source, read_only, shown.kind);
    }

    fn add(
        &mut self,
        target: Option<&str>,
        source: rbuild_sandbox::MountSource,
        read_only: bool,
        kind: FileKind,
    ) {
        let Some(target) = target else { return };
        self.mounts.push(rbuild_sandbox::Mount {
            target: target.to_owned(),
            source,
            read_only,
            no_suid: false,
            no_exec: false,
        });
        self.directories.push(kind == FileKind::Directory);
    }

    fn bind(
        &mut self,
        job: &Job<'_>,
        source: &MountSource,
        read_only: bool,
    ) -> Result<Shown, StepError> {
        let world = &job.world;
        let lowers = match &source.root {
            MountRoot::Empty => vec![nothing(world.store)?],
            MountRoot::Input { input } => {
                let chain = job.inputs.get(*input).cloned().unwrap_or_default();
                let mut lowers = vec![nothing(world.store)?];
                lowers.extend(world.layer_paths(&chain));
                lowers
            }
            MountRoot::Context { context } => {
                let scratch = world.store.scratch("context")?;
                let files = scratch.path().join("fs");
                fs_err::create_dir(&files)?;
                let into = Root::open(&files)?;
                self.context.push(copy_of_context(
                    world,
                    context,
                    &source.path,
                    &into,
                    job.cancel,
                )?);
                self.held.scratch.push(scratch);
                vec![nothing(world.store)?, files]
            }
        };
        let whole = if read_only {
            Root::from_fd(rbuild_snapshot::view(&lowers)?)
        } else {
            let scratch = world.store.scratch("bind")?;
            let active = Active::new(scratch.path(), lowers)?;
            let root = Root::from_fd(active.mount()?);
            self.held.scratch.push(scratch);
            root
        };
        let resolved = whole.resolve(&source.path, Follow::Yes)?;
        let Some(found) = resolved.found else {
            return Err(StepError::Missing(format!(
                "failed to calculate checksum of ref: {:?}: not found",
                source.path
            )));
        };
        Shown::of(whole.into(), &resolved.path, found.kind)
    }
}

/// A path in a detached mount.
struct Shown {
    mount: OwnedFd,
    /// Real, without links; the sandbox takes it out of the mount.
    path: String,
    kind: FileKind,
}

impl Shown {
    fn of(mount: OwnedFd, path: &Path, kind: FileKind) -> Result<Self, StepError> {
        let Some(path) = path.to_str() else {
            let message = format!("{path:?} is not UTF-8 and cannot be mounted");
            return Err(StepError::Missing(message));
        };
        let path = format!("/{}", path.trim_start_matches('/'));
        Ok(Self { mount, path, kind })
    }
}

/// Whether a process is shown files of the context.
pub(crate) fn shows_context(op: &Run) -> bool {
    context_paths(op).next().is_some()
}

fn context_paths(op: &Run) -> impl Iterator<Item = (&ContextName, &str)> {
    op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind(MountSource { root: MountRoot::Context { context }, path }) => {
            Some((context, path.as_str()))
        }
        _ => None,
    })
}

/// The digests of what each bind mount of the context shows.
pub(crate) fn context_digests(
    world: &World<'_>,
    op: &Run,
    cancel: &CancelToken,
) -> Result<Vec<Digest>, StepError> {
    let trees = Trees::mount(*world, &shown_by_mount(&None, ""), &[])?;
    let digest =
        |(context, path)| Ok(trees.select(&shown_by_mount(context, path), cancel)?.digest());
    context_paths(op).map(digest).collect()
}

/// Copies what the ignore rules leave of `path` to the same path in an empty tree.
fn copy_of_context(
    world: &World<'_>,
    context: &ContextName,
    path: &str,
    into: &Root,
    cancel: &CancelToken,
) -> Result<Digest, StepError> {
    let op = shown_by_mount(context, path);
    let trees = Trees::mount(*world, &op, &[])?;
    let selection = trees.select(&op, cancel)?;
    trees.apply(&op, &selection, into, cancel)
}

/// The directory of a cache mount; made with its first use.
///
/// `locked` waits for the other user, `private` takes an empty directory of its own while there
/// is one. With `--no-cache` the directory starts anew and stays the one that is used.
fn cache_directory(job: &Job<'_>, cache: &CacheMount, held: &mut Held) -> Result<Shown, StepError> {
    let store = job.world.store;
    // The id is a stranger's text and never becomes a path.
    let id = cache_id(job, cache);
    let mut directory = store.root().join("volumes").join(format!("cache-{}", id.hex()));
    match cache.sharing {
        Sharing::Shared | Sharing::Locked => {}
        Sharing::Private => {
            if let Entry::Vacant(lock) = held.locks.entry(id) {
                if let Some(taken) = store.try_step_lock(&id)? {
                    lock.insert(taken);
                } else {
                    let scratch = store.scratch("cache")?;
                    directory = scratch.path().join("fs");
                    held.scratch.push(scratch);
                }
            }
        }
    }
    if job.no_cache && directory.exists() {
        let old = store.scratch("cache")?;
        fs_err::rename(&directory, old.path().join("fs"))?;
    }
    if !directory.exists() {
        new_cache_directory(job, cache, &directory)?;
    }
    let root = Root::open(&directory)?;
    let inside = root.resolve(&cache.path, Follow::Yes)?;
    if inside.found.is_none() {
        let new = NewDirs { mode: cache.mode, owner: Some((cache.uid, cache.gid)) };
        root.create_dir_all(&inside.path, new)?;
    }
    Shown::of(rbuild_snapshot::bind(&directory)?, &inside.path, FileKind::Directory)
}

/// A socket of our own that leads to the caller's agent; `None` when there is none and the step
/// can do without.
fn agent_socket(
    job: &Job<'_>,
    ssh: &SshMount,
    held: &mut Held,
) -> Result<Option<Shown>, StepError> {
    let Some(agent) = job.world.ssh.get(&ssh.id) else {
        if ssh.required {
            let message = format!("no SSH key {:?} forwarded from the client", ssh.id);
            return Err(StepError::Missing(message));
        }
        return Ok(None);
    };
    let scratch = job.world.store.scratch("ssh")?;
    let path = scratch.path().join("agent");
    held.agents.push(Forwarding::start(&path, agent)?);
    let root = Root::open(scratch.path())?;
    root.set_owner("agent", ssh.uid, ssh.gid)?;
    root.set_mode("agent", ssh.mode)?;
    held.scratch.push(scratch);
    Shown::of(rbuild_snapshot::bind(&path)?, Path::new("/"), FileKind::Regular).map(Some)
}

/// Makes the directory of a cache mount. It appears whole: a step that shares it may be about to
/// mount it, and a seed that was copied by half would stay so.
fn new_cache_directory(
    job: &Job<'_>,
    cache: &CacheMount,
    directory: &Path,
) -> Result<(), StepError> {
    let scratch = job.world.store.scratch("cache")?;
    let new = scratch.path().join("fs");
    fs_err::create_dir(&new)?;
    let root = Root::open(&new)?;
    root.set_owner("", cache.uid, cache.gid)?;
    root.set_mode("", cache.mode)?;
    if let Some(MountRoot::Input { input }) = &cache.seed {
        seed(job, *input, &cache.path, &root)?;
    }
    if let Some(parent) = directory.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match renameat_with(CWD, &new, CWD, directory, RenameFlags::NOREPLACE) {
        // Somebody else was faster.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno).into()),
    }
}

/// Copies what an input has at `path` to the same path in a new cache directory. An input that
/// has nothing there gives an empty directory, as without a seed.
fn seed(job: &Job<'_>, input: usize, path: &str, into: &Root) -> Result<(), StepError> {
    let op = Copy {
        sources: vec![CopySource::Input { input, path: literal(path) }],
        ..shown_by_mount(&None, path)
    };
    let trees = Trees::mount(job.world, &op, &job.inputs)?;
    let Some(root) = trees.root(input) else { return Ok(()) };
    let Some(found) = root.resolve(path, Follow::Yes)?.found else { return Ok(()) };
    if !found.is_dir() {
        let message = format!("a cache mount cannot start from {path:?}: it is not a directory");
        return Err(StepError::Missing(message));
    }
    let selection = trees.select(&op, job.cancel)?;
    trees.apply(&op, &selection, into, job.cancel)?;
    // A copy gives the directory that was named a mode of its own.
    into.set_owner(path, found.uid, found.gid)?;
    Ok(into.set_mode(path, found.mode)?)
}

/// Names a cache mount's directory and lock. Mode and owner belong to it: a step that asks for
/// others must not get this one's directory. So does what it starts from, as in BuildKit: with
/// another seed it is another directory.
fn cache_id(job: &Job<'_>, cache: &CacheMount) -> Digest {
    let CacheMount { id, mode, uid, gid, path, .. } = cache;
    match &cache.seed {
        Some(MountRoot::Input { input }) => {
            let from = job.input_keys.get(*input).map(ToString::to_string).unwrap_or_default();
            let mut hasher = Hasher::new();
            hasher.field(format!("seeded cache mount {mode:o} {uid} {gid}"));
            hasher.field(from).field(path).field(id);
            hasher.finish()
        }
        _ => Digest::of(format!("cache mount {mode:o} {uid} {gid} {id}")),
    }
}

/// What lives as long as the process runs.
struct Held {
    /// Before the directories that their sockets lie in.
    agents: Vec<Forwarding>,
    scratch: Vec<Scratch>,
    /// By the id of the cache mount: two mounts of a process may show one directory.
    locks: BTreeMap<Digest, StepLock>,
}

impl Held {
    /// Waits for all locked cache mounts, in the same order whatever their order in the
    /// Dockerfile, so that no two steps wait for each other.
    fn lock(job: &Job<'_>, op: &Run) -> Result<Self, StepError> {
        let ids: BTreeSet<_> = op
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Cache(cache) if cache.sharing == Sharing::Locked => {
                    Some(cache_id(job, cache))
                }
                _ => None,
            })
            .collect();
        let mut locks = BTreeMap::new();
        for id in ids {
            locks.insert(id, job.world.store.step_lock(&id, job.cancel)?);
        }
        Ok(Self { agents: Vec::new(), scratch: Vec::new(), locks })
    }
}
