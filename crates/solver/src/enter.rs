//! Entering a step afterwards: another process in the surroundings of a `RUN`.
//!
//! It gets what the step got, made ready by the same code, upon a writable layer that goes when the
//! process ends. Secrets and agents are given only where the caller brings them; devices are not.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_cache::{Scratch, SnapshotId, Store};
use rbuild_plan::mount::{MountKind, MountRoot};
use rbuild_plan::op::{Device, Op, Run, Source};
use rbuild_rooted::{Follow, Root};
use rbuild_sandbox::linux::binfmt::Emulators;
use rbuild_sandbox::{Launch, Resources, Running, Stdio};
use rbuild_snapshot::Active;
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Reference};
use serde_json::Value;

use crate::device::{DeviceEdits, Devices};
use crate::error::StepError;
use crate::key;
use crate::network::StepNetworks;
use crate::same::Cutoff;
use crate::secrets::Secrets;
use crate::ssh_agent::SshAgents;
use crate::steps::Job;
use crate::steps::active::stubs;
use crate::steps::mounts::Mounts;
use crate::steps::mounts::cache::volume_info;
use crate::steps::mounts::context::Shown;
use crate::steps::run::{Prepared, check_platform};
use crate::world::{Context, Images, Remotes, World};

/// Shells that are looked for when no command is given.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// The instruction of a step that ran, as a record has it: proxies and the addresses of extra hosts
/// are in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What it ran.
    pub run: Run,
    /// The keys of all its inputs.
    pub input_keys: Vec<Digest>,
}

impl Recorded {
    /// Reads what went into a key; `None` when that is not the key of a `RUN`.
    pub fn of(inputs: &Value) -> Option<Self> {
        let mut run: Run =
            serde_json::from_value(inputs.get(key::STEP)?.get("run")?.clone()).ok()?;
        run.extra_hosts.retain(|host| !host.address.is_empty());
        let content = serde_json::from_value(inputs.get("content")?.clone());
        Some(Self { run, input_keys: content.unwrap_or_default() })
    }
}

/// Everything that entering needs.
pub struct Entry<'a> {
    /// Where the files are. The caller holds a lease on it.
    pub store: &'a Store,
    /// For copies of the context.
    pub pool: &'a rayon::ThreadPool,
    /// The program to start as the sandbox helper.
    pub helper: &'a Path,
    /// The network of steps that do not say which, as in [`World`].
    pub network: Option<&'a dyn StepNetworks>,
    /// What the process sees as `/etc/resolv.conf` on the host's network.
    pub resolv_conf: &'a str,
    /// What runs the programs of other processors.
    pub emulators: &'a Emulators,
    /// Values of secrets by id.
    pub secrets: &'a Secrets,
    /// SSH agents by id.
    pub ssh: &'a SshAgents,
    /// The build context as it is now, if it is there.
    pub context: Option<&'a Context>,
    /// The surroundings; `argv` counts only when it is not empty, else a shell is looked for.
    pub step: Recorded,
    /// The root filesystem, bottom first.
    pub layers: Vec<SnapshotId>,
    /// Those that mounts show, by the numbers of the step's inputs.
    pub inputs: Vec<Option<Vec<SnapshotId>>>,
}

/// A process in the surroundings of a step.
#[derive(Debug)]
pub struct Entered {
    /// The process.
    pub running: Running,
    /// What must stay until it has ended.
    pub held: Held,
    /// What the step had and the process has not, a sentence each.
    pub missing: Vec<String>,
}

/// Files and locks of a process.
pub struct Held {
    _mounts: Mounts,
    _scratch: Scratch,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Entry<'_> {
    /// Starts the process. Waits for cache mounts that others have for themselves, until `cancel`
    /// is cancelled.
    ///
    /// # Errors
    ///
    /// [`StepError::Missing`] when there is no shell; what [`Launch::start`] fails with.
    pub fn start(
        mut self,
        terminal: bool,
        stdio: Stdio,
        cancel: &CancelToken,
    ) -> Result<Entered, StepError> {
        let missing = self.leave_out();
        let scratch = self.store.scratch("enter")?;
        let (named, resources) = (BTreeMap::new(), Resources::default());
        let world = self.world(&named, &resources);
        let mut lowers = vec![stubs(self.store)?];
        lowers.extend(world.layer_paths(&self.layers));
        let active = Active::new(scratch.path(), lowers)?;
        let root = Root::from_fd(active.mount()?);
        let mut run = self.step.run.clone();
        if run.argv.is_empty() {
            run.argv = vec![shell(&root)?];
        }
        check_platform(&world, &run)?;
        let op = Op::Run(run.clone());
        let job = Job {
            world,
            op: &op,
            inputs: self.inputs.iter().cloned().map(Option::unwrap_or_default).collect(),
            input_keys: self.step.input_keys.clone(),
            selection: None,
            shown: Shown::default(),
            place: None,
            earlier: None,
            cancel,
            output: &|_, _| {},
            log_name: String::new(),
            no_cache: false,
        };
        let Prepared { mut spec, mounts, network, .. } = Prepared::new(&job, &run, &root)?;
        spec.terminal = terminal;
        let launch = Launch {
            helper: self.helper.to_owned(),
            spec,
            root: root.into(),
            mounts: mounts.detached()?,
            stdio,
            network,
        };
        let running = launch.start()?;
        Ok(Entered { running, held: Held { _mounts: mounts, _scratch: scratch }, missing })
    }

    /// Takes away what cannot be had, and says so.
    fn leave_out(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        let (secrets, ssh, inputs) = (self.secrets, self.ssh, &self.inputs);
        let (volumes, input_keys) = (self.store.volumes(), &self.step.input_keys);
        let has_context = self.context.is_some();
        let has_input = |root: &MountRoot| match root {
            MountRoot::Input { input } => inputs.get(*input).is_some_and(Option::is_some),
            MountRoot::Context { context } => context.is_none() && has_context,
            MountRoot::Empty => true,
        };
        self.step.run.mounts.retain(|mount| {
            let target = mount.target.as_deref().unwrap_or_default();
            match &mount.kind {
                MountKind::Secret(secret) if secrets.get(&secret.id).is_none() => {
                    let id = &secret.id;
                    missing.push(format!("secret {id} is not given: ask for it with --secret"));
                    false
                }
                MountKind::Ssh(agent) if ssh.get(&agent.id).is_none() => {
                    let id = &agent.id;
                    missing.push(format!("SSH agent {id} is not given: ask for it with --ssh"));
                    false
                }
                MountKind::Bind(source) if !has_input(&source.root) => {
                    missing.push(format!("what was mounted at {target} is not here any more"));
                    false
                }
                // Made now it would stay empty, for builds too.
                MountKind::Cache(cache)
                    if cache.seed.as_ref().is_some_and(|seed| !has_input(seed))
                        && !volumes
                            .path(&volume_info(input_keys, cache).volume_name())
                            .exists() =>
                {
                    missing.push(format!(
                        "the cache mount at {target} is not here: what it starts with is gone"
                    ));
                    false
                }
                _ => true,
            }
        });
        for Device { name, .. } in self.step.run.devices.drain(..) {
            missing.push(format!("device {name} is not given"));
        }
        missing
    }

    fn world<'a>(
        &'a self,
        named: &'a BTreeMap<String, Context>,
        resources: &'a Resources,
    ) -> World<'a> {
        World {
            store: self.store,
            pool: self.pool,
            images: &Nothing,
            remotes: &Nothing,
            imports: None,
            exports: None,
            devices: &Nothing,
            context: self.context,
            named,
            helper: self.helper,
            network: self.network,
            resolv_conf: self.resolv_conf,
            secrets: self.secrets,
            ssh: self.ssh,
            resources,
            emulators: self.emulators,
            ttl: None,
            cutoff: Cutoff::default(),
            project: "",
            log_directory: "",
            finished: None,
        }
    }
}

/// The image's own shell.
fn shell(root: &Root) -> Result<String, StepError> {
    for path in SHELLS {
        let found = root.resolve(path, Follow::Yes)?.found;
        if found.is_some_and(|found| found.is_file() && found.mode & 0o111 != 0) {
            return Ok(path.to_owned());
        }
    }
    let message = "there is no shell in this root filesystem (neither /bin/bash nor /bin/sh): name a \
                   program of it behind `--`, or look at it from outside with `rbuild cp`";
    Err(StepError::Missing(message.to_owned()))
}

/// Nobody fetches anything to enter a step.
struct Nothing;

impl Nothing {
    fn refuse<T>() -> Result<T, StepError> {
        Err(StepError::Missing("nothing is fetched to enter a step".to_owned()))
    }
}

impl Images for Nothing {
    fn diff_ids(&self, _: &Reference, _: &Platform) -> Result<Vec<Digest>, StepError> {
        Self::refuse()
    }

    fn unpack(
        &self,
        _: &Reference,
        _: &Platform,
        _: Ctx<'_>,
    ) -> Result<Vec<SnapshotId>, StepError> {
        Self::refuse()
    }
}

impl Remotes for Nothing {
    fn identify(&self, _: &Source, _: Ctx<'_>) -> Result<Value, StepError> {
        Self::refuse()
    }

    fn fetch(&self, _: &Source, _: Ctx<'_>) -> Result<SnapshotId, StepError> {
        Self::refuse()
    }
}

impl Devices for Nothing {
    fn edits(&self, _: &[Device]) -> Result<DeviceEdits, StepError> {
        Ok(DeviceEdits::default())
    }
}
