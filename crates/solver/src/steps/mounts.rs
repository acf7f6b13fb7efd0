//! What `RUN --mount` asks for, made ready as detached mounts.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_cache::Scratch;
use rbuild_plan::mount::{CacheMount, MountKind, MountRoot, MountSource};
use rbuild_plan::op::Run;
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_sandbox::InjectedFile;
use rbuild_snapshot::Active;
use rbuild_types::Digest;

use crate::error::StepError;
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
    /// Uppers of writable binds: thrown away.
    _scratch: Vec<Scratch>,
}

impl Mounts {
    pub(crate) fn prepare(job: &Job<'_>, op: &Run) -> Result<Self, StepError> {
        let mut all = Self {
            mounts: Vec::new(),
            files: Vec::new(),
            env: Vec::new(),
            descriptors: Vec::new(),
            directories: Vec::new(),
            _scratch: Vec::new(),
        };
        for mount in &op.mounts {
            let target = mount.target.as_deref();
            match &mount.kind {
                MountKind::Tmpfs { size } => {
                    let source = rbuild_sandbox::MountSource::Tmpfs { size: *size, mode: 0o1777 };
                    all.add(target, source, mount.read_only, FileKind::Directory);
                }
                MountKind::Bind(source) => {
                    let (fd, kind) = all.bind(job, source, mount.read_only)?;
                    all.detach(target, fd, kind, mount.read_only);
                }
                MountKind::Cache(cache) => {
                    let fd = cache_directory(job, cache)?;
                    all.detach(target, fd, FileKind::Directory, mount.read_only);
                }
                MountKind::Secret(secret) => {
                    let Some(value) = job.world.secrets.get(&secret.id) else {
                        if secret.required {
                            let message = format!("secret {}: not found", secret.id);
                            return Err(StepError::Missing(message));
                        }
                        continue;
                    };
                    let text = || String::from_utf8(value.clone());
                    if let Some(name) = &secret.env {
                        let value = text().map_err(|_| {
                            StepError::Missing(format!("secret {} is not text", secret.id))
                        })?;
                        all.env.push(format!("{name}={value}"));
                    }
                    if let Some(target) = target {
                        let content = text().map_err(|_| {
                            StepError::Missing(format!("secret {} is not text", secret.id))
                        })?;
                        let path = target.to_owned();
                        all.files.push(InjectedFile {
                            path,
                            content,
                            mode: secret.mode,
                            owner: (secret.uid, secret.gid),
                        });
                    }
                }
                MountKind::Ssh(_) => {
                    let message = "RUN --mount=type=ssh is not supported yet";
                    return Err(StepError::Missing(message.to_owned()));
                }
            }
        }
        Ok(all)
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

    fn detach(&mut self, target: Option<&str>, fd: OwnedFd, kind: FileKind, read_only: bool) {
        let source = rbuild_sandbox::MountSource::Detached(self.descriptors.len());
        self.descriptors.push(fd);
        self.add(target, source, read_only, kind);
    }

    fn add(
        &mut self,
        target: Option<&str>,
        source: rbuild_sandbox::MountSource,
        read_only: bool,
        kind: FileKind,
    ) {
        let Some(target) = target else { return };
        self.mounts.push(rbuild_sandbox::Mount { target: target.to_owned(), source, read_only });
        self.directories.push(kind == FileKind::Directory);
    }

    fn bind(
        &mut self,
        job: &Job<'_>,
        source: &MountSource,
        read_only: bool,
    ) -> Result<(OwnedFd, FileKind), StepError> {
        let world = &job.world;
        let lowers = match &source.root {
            MountRoot::Empty => vec![nothing(world.store)?],
            MountRoot::Input { input } => {
                let chain = job.inputs.get(*input).cloned().unwrap_or_default();
                let mut lowers = vec![nothing(world.store)?];
                lowers.extend(world.layer_paths(&chain));
                lowers
            }
            MountRoot::Context => {
                let context = world.context.ok_or_else(|| {
                    StepError::Missing("there is no build context to mount".to_owned())
                })?;
                if !context.ignore.is_empty() {
                    let message = "RUN --mount=type=bind of a context with a .dockerignore is not \
                                   supported yet: COPY the files instead";
                    return Err(StepError::Missing(message.to_owned()));
                }
                vec![nothing(world.store)?, context.path.clone()]
            }
        };
        let whole = if read_only {
            Root::from_fd(rbuild_snapshot::view(&lowers)?)
        } else {
            let scratch = world.store.scratch("bind")?;
            let active = Active::new(scratch.path(), lowers)?;
            let root = Root::from_fd(active.mount()?);
            self._scratch.push(scratch);
            root
        };
        let resolved = whole.resolve(&source.path, Follow::Yes)?;
        let Some(found) = resolved.found else {
            return Err(StepError::Missing(format!(
                "failed to calculate checksum of ref: {:?}: not found",
                source.path
            )));
        };
        let fd = rbuild_snapshot::subtree(whole.as_fd(), &resolved.path)?;
        Ok((fd, found.kind))
    }
}

/// The directory of a cache mount; made with its first use.
fn cache_directory(job: &Job<'_>, cache: &CacheMount) -> Result<OwnedFd, StepError> {
    // The id is a stranger's text and never becomes a path.
    let name = format!("cache-{}", Digest::of(&cache.id).hex());
    let volumes = Root::open(job.world.store.root().join("volumes"))?;
    if volumes.stat(&name, Follow::No)?.is_none() {
        let new = NewDirs { mode: cache.mode, owner: Some((cache.uid, cache.gid)) };
        volumes.create_dir_all(&name, new)?;
    }
    Ok(rbuild_snapshot::bind(&job.world.store.root().join("volumes").join(name))?)
}
