//! What `RUN --mount` asks for, made ready as detached mounts.

pub(crate) mod cache;
pub(crate) mod context;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rbuild_cache::{HeldVolume, Hold, Scratch};
use rbuild_plan::mount::{MountKind, MountRoot, MountSource, Sharing, SshMount};
use rbuild_plan::op::Run;
use rbuild_rooted::{FileKind, Follow, Root};
use rbuild_sandbox::InjectedFile;
use rbuild_snapshot::Active;
use rbuild_types::Digest;

use self::cache::{cache_directory, volume_info};
use self::context::copy_of_context;
use crate::device::HostMount;
use crate::error::StepError;
use crate::ssh_agent::Forwarding;
use crate::steps::Job;
use crate::steps::active::nothing;

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
    /// What was really read of the context, in the order of [`context::context_digests`].
    context: Vec<Digest>,
    held: Held,
}

impl Mounts {
    /// Makes what `op` asks for upon `root` ready, and after it `host`, which its devices bring.
    pub(crate) fn prepare(
        job: &Job<'_>,
        op: &Run,
        root: &Root,
        host: &[HostMount],
    ) -> Result<Self, StepError> {
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
                    let mode = tmpfs_mode(root, target)?;
                    let source = rbuild_sandbox::MountSource::Tmpfs {
                        size: *size,
                        mode,
                        owner: (0, 0),
                        files: None,
                    };
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
                        all.make_room(target);
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

    /// A later mount takes the place of an earlier one at the same path, as in BuildKit.
    fn make_room(&mut self, target: &str) {
        if let Some(at) = self.mounts.iter().position(|mount| mount.target == target) {
            self.mounts.remove(at);
            self.directories.remove(at);
        }
        self.files.retain(|file| file.path != target);
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
        self.make_room(target);
        self.mounts.push(rbuild_sandbox::Mount {
            target: target.to_owned(),
            no_suid: matches!(source, rbuild_sandbox::MountSource::Tmpfs { .. }),
            source,
            read_only,
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
                fs_err::set_permissions(&files, Permissions::from_mode(0o755))?;
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

/// A socket of our own that leads to the caller's agent; `None` when there is none and the step
/// A directory that is there keeps its mode under a tmpfs, as with runc; a new one is everybody's.
fn tmpfs_mode(root: &Root, target: Option<&str>) -> Result<u32, StepError> {
    let found = match target {
        Some(target) => root.stat(target, Follow::Yes)?,
        None => None,
    };
    Ok(found.filter(|found| found.is_dir()).map_or(0o1777, |found| found.mode))
}

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

/// What lives as long as the process runs.
struct Held {
    /// Before the directories that their sockets lie in.
    agents: Vec<Forwarding>,
    scratch: Vec<Scratch>,
    /// By name: two mounts of a process may show one directory.
    volumes: BTreeMap<String, HeldVolume>,
}

impl Held {
    /// Has caches elsewhere fill the cache mounts, and waits for the volumes of all of them, in the same order whatever their order in the
    /// Dockerfile, so that no two steps wait for each other.
    fn lock(job: &Job<'_>, op: &Run) -> Result<Self, StepError> {
        let mut wanted: BTreeMap<String, BTreeSet<Sharing>> = BTreeMap::new();
        for mount in &op.mounts {
            if let MountKind::Cache(cache) = &mount.kind {
                let info = volume_info(&job.input_keys, cache);
                if let Some(imports) = job.world.imports.filter(|_| !job.no_cache) {
                    imports.restore(&info, job.cancel);
                }
                let name = info.volume_name();
                wanted.entry(name).or_default().insert(cache.sharing);
            }
        }
        let of_store = job.world.store.volumes();
        let mut volumes = BTreeMap::new();
        for (name, sharing) in wanted {
            let held = if sharing.contains(&Sharing::Locked) {
                Some(of_store.take(&name, Hold::Alone, job.cancel)?)
            } else if sharing.contains(&Sharing::Shared) {
                Some(of_store.take(&name, Hold::Shared, job.cancel)?)
            } else {
                of_store.try_take(&name, Hold::Alone)?
            };
            volumes.extend(held.map(|held| (name, held)));
        }
        Ok(Self { agents: Vec::new(), scratch: Vec::new(), volumes })
    }
}
