//! RUN: a process in a sandbox on top of its root filesystem.

use std::os::fd::{AsFd as _, OwnedFd};

use rbuild_cache::SnapshotId;
use rbuild_plan::op::{Network, Run, Security};
use rbuild_plan::{ExtraHost, HOST_GATEWAY, Ulimit};
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_sandbox::linux::binfmt::{self, Support};
use rbuild_sandbox::linux::capabilities::CapabilitySet;
use rbuild_sandbox::{Exit, InjectedFile, Launch, Rlimit, SharedNamespaces, Spec, Stdio};

use crate::copy::Listing;
use crate::error::StepError;
use crate::network::StepNetwork;
use crate::steps::active::{Writing, stubs};
use crate::steps::mounts::Mounts;
use crate::steps::{Executed, Failed, Job, Log};
use crate::world::World;

/// Names that a sandbox lays files of its own over.
const INJECTED: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Whether it makes sense to run anything of the step's base image.
pub(crate) fn check_platform(world: &World<'_>, op: &Run) -> Result<(), StepError> {
    let Some(platform) = &op.platform else { return Ok(()) };
    match world.emulators.support(platform) {
        Support::Missing => {
            let problem = match platform.os.as_str() {
                "linux" => {
                    let (architecture, directory) = (&platform.architecture, binfmt::DIRECTORY);
                    format!("no emulator for {architecture} is registered in {directory}")
                }
                other => format!("it has no kernel of {other}"),
            };
            Err(StepError::Platform { platform: platform.clone(), problem })
        }
        _ => Ok(()),
    }
}

/// An emulator that the kernel does not hold open must be in the root filesystem.
fn check_interpreter(world: &World<'_>, op: &Run, root: &Root) -> Result<(), StepError> {
    let Some(platform) = &op.platform else { return Ok(()) };
    let Support::NeedsInterpreter(path) = world.emulators.support(platform) else { return Ok(()) };
    if root.resolve(&path, Follow::Yes)?.found.is_some() {
        return Ok(());
    }
    let problem = format!("{path} is registered without the flag F, and is not in the image");
    Err(StepError::Platform { platform: platform.clone(), problem })
}

pub(crate) fn execute(job: &Job<'_>, op: &Run, chain: &[SnapshotId]) -> Result<Executed, Failed> {
    let world = &job.world;
    let writing = Writing::start(
        world,
        "run",
        chain,
        stubs(world.store).map_err(StepError::from)?,
        job.cancel,
    )?;
    let root = writing.mount()?;
    let Prepared { spec, mounts, placeholders, network } = Prepared::new(job, op, &root)?;
    let launch = Launch {
        helper: world.helper.to_owned(),
        spec,
        root: root.as_fd().try_clone_to_owned().map_err(StepError::from)?,
        mounts: mounts.detached().map_err(StepError::from)?,
        stdio: Stdio::Capture { stdin: None },
        network,
    };
    let mut log = Log::new(job);
    let ended = launch.start().and_then(|running| {
        running.wait(job.cancel, &mut |stream, bytes| log.write(stream, bytes))
    });
    let failure = match ended {
        Ok(Exit::Code(0)) => None,
        Ok(Exit::OutOfMemory(code)) => {
            let memory = world.resources.memory.unwrap_or_default();
            Some(StepError::OutOfMemory { process: op.argv.join(" "), code, memory })
        }
        Ok(exit) => Some(StepError::Exit { process: op.argv.join(" "), code: exit.code() }),
        Err(error) => Some(error.into()),
    };
    if let Some(source) = failure {
        let kept = match source {
            StepError::Cancelled(_) => None,
            _ => {
                let cleared = placeholders.remove();
                drop((mounts, root));
                // A failure to keep it is not what the caller asks about.
                cleared.and_then(|()| writing.keep_failed(world, log.path())).ok()
            }
        };
        return Err(Failed { source: Box::new(source), log_tail: log.into_tail(), kept });
    }
    placeholders.remove()?;
    drop(root);
    let changed = mounts.into_context();
    if changed.as_ref() == Some(&job.shown.digests) {
        // A later miss is explained with it.
        writing.keep(&Listing::of_files(&job.shown.files))?;
    }
    let log = log.finish()?;
    Ok(Executed { made: writing.publish(job)?, log, changed })
}

/// What a process needs besides its root filesystem.
pub(crate) struct Prepared<'a> {
    pub(crate) spec: Spec,
    pub(crate) mounts: Mounts,
    /// Its network namespace, if it is neither its own nor the host's.
    pub(crate) network: Option<OwnedFd>,
    placeholders: Placeholders<'a>,
}

impl<'a> Prepared<'a> {
    /// Makes it ready upon `root`.
    pub(crate) fn new(job: &Job<'_>, op: &Run, root: &'a Root) -> Result<Self, StepError> {
        let world = &job.world;
        check_interpreter(world, op, root)?;
        // These stay in the image when it lacked them, as with every other builder.
        for directory in ["/proc", "/sys", "/dev"] {
            if root.stat(directory, Follow::No)?.is_none() {
                let new = NewDirs { mode: 0o755, owner: Some((0, 0)) };
                root.create_dir_all(directory, new)?;
            }
        }
        let devices = world.devices.edits(&op.devices)?;
        let mounts = Mounts::prepare(job, op, root, &devices.mounts)?;
        let mut placeholders = Placeholders::new(root)?;
        for path in INJECTED {
            placeholders.file(path)?;
        }
        for (path, is_directory) in mounts.targets() {
            if is_directory { placeholders.directory(path)? } else { placeholders.file(path)? }
        }
        // `/dev` is not that of the root filesystem.
        for node in devices.nodes.iter().filter(|node| !node.path.starts_with("/dev/")) {
            placeholders.file(&node.path)?;
        }
        let network = match (op.network, world.network) {
            (Network::Default, Some(network)) => Some(network.join()?),
            _ => None,
        };
        let mut spec = spec(job, op, network.as_ref());
        spec.env.extend(mounts.env.iter().cloned());
        set_variables(&mut spec.env, devices.env);
        spec.groups = devices.groups.iter().map(u32::to_string).collect();
        spec.devices = devices.nodes;
        spec.files.extend(mounts.files.iter().cloned());
        spec.mounts = mounts.mounts.clone();
        let network = network.map(|network| network.namespace);
        Ok(Self { spec, mounts, network, placeholders })
    }
}

fn spec(job: &Job<'_>, op: &Run, joined: Option<&StepNetwork>) -> Spec {
    let network = match (op.network, joined) {
        (Network::Default, Some(_)) => rbuild_sandbox::Network::Given,
        (Network::Default | Network::Host, _) => rbuild_sandbox::Network::Host,
        (Network::None, _) => rbuild_sandbox::Network::None,
    };
    let hostname = &op.hostname;
    let mut hosts = format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback {hostname}\n"
    );
    for ExtraHost { name, address } in &op.extra_hosts {
        let gateway = joined.map_or("127.0.0.1", |joined| &joined.gateway);
        let address = if address == HOST_GATEWAY { gateway } else { address };
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let insecure = op.security == Security::Insecure;
    let rlimit =
        |limit: &Ulimit| Rlimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
    let resolv_conf = joined.map_or(job.world.resolv_conf, |joined| &joined.resolv_conf);
    let mut files = vec![
        InjectedFile::new("/etc/hosts", hosts, 0o644),
        InjectedFile::new("/etc/hostname", format!("{hostname}\n"), 0o644),
        InjectedFile::new("/etc/resolv.conf", resolv_conf, 0o644),
    ];
    let script = |script: &rbuild_plan::op::Script| {
        InjectedFile::new(script.path.as_str(), script.content.as_str(), 0o755)
    };
    files.extend(op.scripts.iter().map(script));
    Spec {
        argv: op.argv.clone(),
        env: op.env.iter().chain(&op.proxy_env).cloned().collect(),
        cwd: op.cwd.clone(),
        user: op.user.clone(),
        hostname: hostname.clone(),
        network,
        terminal: false,
        capabilities: match insecure {
            true => CapabilitySet::all(),
            false => CapabilitySet::docker_default(),
        },
        seccomp: !insecure,
        filter: None,
        no_new_privileges: false,
        groups: Vec::new(),
        devices: Vec::new(),
        mounts: Vec::new(),
        files,
        read_only: false,
        privileged: insecure,
        unmasked: false,
        init: false,
        shared: SharedNamespaces::default(),
        domainname: String::new(),
        sysctls: Default::default(),
        shm_size: op.shm_size,
        rlimits: op.ulimits.iter().map(rlimit).collect(),
        oom_score_adj: None,
        resources: job.world.resources.clone(),
    }
}

/// Puts variables in the place of those that have their names.
fn set_variables(env: &mut Vec<String>, new: Vec<String>) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in new {
        let set = name(&variable);
        env.retain(|old| name(old) != set);
        env.push(variable);
    }
}

/// Files and directories made in the root filesystem only to be mounted over.
struct Placeholders<'a> {
    root: &'a Root,
    /// Real paths in the order in which they were made.
    made: Vec<(std::path::PathBuf, FileKind)>,
}

impl<'a> Placeholders<'a> {
    fn new(root: &'a Root) -> Result<Self, StepError> {
        Ok(Self { root, made: Vec::new() })
    }

    fn directory(&mut self, path: &str) -> Result<(), StepError> {
        let new = NewDirs { mode: 0o755, owner: Some((0, 0)) };
        let made = self.root.create_dir_all(path, new)?;
        self.made.extend(made.created.into_iter().map(|path| (path, FileKind::Directory)));
        Ok(())
    }

    fn file(&mut self, path: &str) -> Result<(), StepError> {
        let resolved = self.root.resolve(path, Follow::Yes)?;
        if resolved.found.is_some() {
            return Ok(());
        }
        if let Some(parent) = resolved.path.parent().and_then(|parent| parent.to_str()) {
            self.directory(parent)?;
        }
        self.root.create_file(&resolved.path, 0o644)?;
        self.made.push((resolved.path, FileKind::Regular));
        Ok(())
    }

    /// Takes away what the step left as it was: an empty file, an empty directory.
    fn remove(self) -> Result<(), StepError> {
        for (path, kind) in self.made.iter().rev() {
            let Some(found) = self.root.stat(path, Follow::No)? else { continue };
            match kind {
                FileKind::Directory if found.is_dir() => {
                    // Something was put in it: it stays.
                    let _ = self.root.remove_dir(path);
                }
                FileKind::Regular if found.is_file() && found.size == 0 => {
                    self.root.remove(path)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
