//! Containers in the foreground: create, start, wait, delete.
//!
//! A container is a directory `containers/<id>` in the store: `fs` and `work` of its writable
//! layer, `pins` with the snapshots that it lies on, `volume-N` of its anonymous volumes, and
//! `lock`, which its process holds. A directory whose lock nobody holds belongs to a dead process;
//! the next engine that opens the store, or makes a container in it, removes it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_cache::{HeldVolume, SnapshotId};
use rbuild_image::ImageError;
use rbuild_image::index::is_for;
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_sandbox::linux::capabilities::CapabilitySet;
use rbuild_sandbox::{
    Exit, InjectedFile, Launch, Mount, MountSource, Network, Resources, Running, Spec, Stdio,
};
use rbuild_snapshot::Active;
use rbuild_types::{CancelToken, Ctx, Event, ImageConfig, Platform, Reference, Silent, Stream};

use crate::engine::random_id;
use crate::images::nameless;
use crate::sources::image::ImageSource;
use crate::volume::{self, Volume};
use crate::{BuildError, Engine, Pull};

/// The search path of a process whose image names none (Docker's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories that are made for what is mounted.
pub(crate) const NEW_DIRECTORIES: NewDirs = NewDirs { mode: 0o755, owner: Some((0, 0)) };

/// What runs in a container. [`Default`] is what the image says.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Replaces the image's `CMD` when it is not empty.
    pub argv: Vec<String>,
    /// Replaces the image's `ENTRYPOINT`; its `CMD` then does not count either.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Working directory, over the image's.
    pub cwd: Option<String>,
    /// User, over the image's.
    pub user: Option<String>,
    /// Host name; the beginning of the id when not given.
    pub hostname: Option<String>,
    /// The network.
    pub network: ContainerNetwork,
    /// What is mounted, besides the volumes that the image declares.
    pub volumes: Vec<Volume>,
    /// Paths where memory is mounted.
    pub tmpfs: Vec<String>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Whether the root filesystem may not be written.
    pub read_only: bool,
}

/// The network of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContainerNetwork {
    /// The host's: the default until containers have bridges.
    #[default]
    Host,
    /// Loopback only.
    None,
}

/// Where a container's standard input, output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerStdio {
    /// The caller's own.
    Inherit,
    /// Input is empty, the rest the caller's own.
    NoInput,
    /// Input is empty; output and error go to the function given to [`Container::wait`].
    Capture,
    /// A terminal made inside; see [`Container::terminal`].
    Terminal,
}

/// What a start needs; the root filesystem is mounted once, because a volatile overlay can be
/// mounted only once.
#[derive(Debug)]
struct Prepared {
    helper: PathBuf,
    spec: Spec,
    root: OwnedFd,
    mounts: Vec<OwnedFd>,
}

/// A container. Dropping it stops the process and removes everything.
#[derive(Debug)]
pub struct Container {
    id: String,
    /// Missing once it was removed.
    directory: Option<PathBuf>,
    active: Option<Active>,
    launch: Option<Prepared>,
    running: Option<Running>,
    /// What it mounts of the store's.
    volumes: Vec<HeldVolume>,
    /// Held as long as the container lives.
    _lock: fs_err::File,
}

impl Engine {
    /// Makes a container of an image, which is pulled if it is not in the store. `name` is the
    /// container's name in messages.
    pub fn create(
        &self,
        name: &str,
        image: &str,
        process: Process,
    ) -> Result<Container, BuildError> {
        self.create_reporting(
            name,
            image,
            process,
            Pull::Missing,
            None,
            Ctx::new(&Silent, &CancelToken::default()),
        )
    }

    /// [`Engine::create`] with progress, cancellation, a rule for pulling and a platform, of which the
    /// image has to be. One that came from a registry for another platform is asked for again there.
    pub fn create_reporting(
        &self,
        name: &str,
        image: &str,
        process: Process,
        pull: Pull,
        platform: Option<&Platform>,
        ctx: Ctx<'_>,
    ) -> Result<Container, BuildError> {
        let _lease = self.store.lease()?;
        let (config, chain) = self.image_of(image, pull, platform, ctx)?;
        let id = random_id()?;
        let containers = self.store.root().join("containers");
        let directory = containers.join(&id);
        let io = |what: &str| {
            let what = format!("{what} of container {name}");
            move |source| BuildError::Io { what, source }
        };
        fs_err::create_dir_all(&containers).map_err(io("make the directory"))?;
        let lock = {
            // Nobody else's sweep may see the directory before its lock is taken.
            let all = fs_err::File::open(&containers).map_err(io("open the directory"))?;
            all.file().lock().map_err(io("lock the directory"))?;
            sweep(&containers);
            fs_err::create_dir(&directory).map_err(io("make the directory"))?;
            let lock = fs_err::File::create(directory.join("lock")).map_err(io("make the lock"))?;
            lock.file().try_lock().map_err(|error| io("take the lock")(error.into()))?;
            lock
        };
        // From here on an error removes what was made.
        let mut container = Container {
            id,
            directory: Some(directory.clone()),
            active: None,
            launch: None,
            running: None,
            volumes: Vec::new(),
            _lock: lock,
        };
        let pins: String = chain.iter().map(|snapshot| format!("{snapshot}\n")).collect();
        fs_err::write(directory.join("pins"), pins).map_err(io("write the pins"))?;

        let snapshots = self.store.snapshots();
        let mut lowers = vec![self.empty_directory()?];
        lowers.extend(chain.iter().map(|snapshot| snapshots.path(snapshot).join("fs")));
        let active = Active::new(&directory, lowers)?;
        let root = Root::from_fd(active.mount()?);
        let mut spec = spec(&container.id, &config, &process, &self.resolv_conf())?;
        let volumes = volume::all(&process, &config);
        let (mounts, held) =
            self.mount_volumes(&volumes, &root, &directory, &mut spec, ctx.cancel)?;
        container.volumes = held;
        for target in &process.tmpfs {
            root.create_dir_all(target, NEW_DIRECTORIES)?;
            spec.mounts.push(Mount {
                target: target.clone(),
                source: MountSource::Tmpfs { size: None, mode: 0o1777 },
                read_only: false,
                no_suid: false,
                no_exec: false,
            });
        }
        for directory in ["/proc", "/sys", "/dev"] {
            root.create_dir_all(directory, NEW_DIRECTORIES)?;
        }
        for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
            placeholder(&root, file)?;
        }
        container.active = Some(active);
        container.launch =
            Some(Prepared { helper: self.helper(), spec, root: root.into(), mounts });
        Ok(container)
    }

    fn image_of(
        &self,
        image: &str,
        pull: Pull,
        platform: Option<&Platform>,
        ctx: Ctx<'_>,
    ) -> Result<(ImageConfig, Vec<SnapshotId>), BuildError> {
        let images = ImageSource::new(self, pull, ctx);
        // A name first; then the beginning of an id.
        let named = self.reference(image);
        let mut elsewhere = None;
        let mut reference = match (named, self.find_image(image)) {
            (named, Ok(found)) if pull != Pull::Always => {
                // By its name, and not by its id.
                let repository = found.reference.as_ref().map(Reference::repository);
                elsewhere = named.ok().filter(|name| Some(name.repository()) == repository);
                let name = found.reference.map_or_else(nameless, Ok)?;
                name.with_digest(found.manifest_digest)
            }
            (Ok(reference), _) => {
                if pull != Pull::Never {
                    let message = format!("pulling {}", reference.familiar());
                    ctx.report(Event::Notice { message });
                }
                reference
            }
            (Err(error), _) => {
                return Err(BuildError::Request { message: error.to_string() });
            }
        };
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let mut resolved = images.resolve(&reference, &wanted)?;
        if platform.is_some() && !is_for(&resolved.platform, &wanted) {
            if let Some(name) = elsewhere {
                resolved = images.resolve(&name, &wanted)?;
                reference = name;
            }
            if !is_for(&resolved.platform, &wanted) {
                let found = vec![resolved.platform.clone()];
                return Err(ImageError::NoPlatform { wanted, found }.into());
            }
        }
        let chain = images.unpack_image(&resolved, ctx)?;
        if reference.digest().is_none() {
            let digest = resolved.reference.digest();
            let bytes = digest.map(|digest| self.store.blobs().read_small(&digest, 4 << 20));
            if let (Some(digest), Some(bytes)) = (digest, bytes.transpose()?) {
                let media_type = resolved.manifest.media_type().to_owned();
                let size = bytes.len() as u64;
                self.store.tags().set(&reference, &digest, size, &media_type)?;
            }
        }
        Ok((resolved.config.clone(), chain))
    }
}

/// Removes the containers of dead processes, unless somebody is just making one and does it.
pub(crate) fn sweep_unless_busy(store: &Path) {
    let containers = store.join("containers");
    if let Ok(all) = fs_err::File::open(&containers)
        && all.file().try_lock().is_ok()
    {
        sweep(&containers);
    }
}

/// Removes the containers of dead processes. The caller holds the lock of the directory.
fn sweep(containers: &Path) {
    let Ok(entries) = fs_err::read_dir(containers) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let dead = match fs_err::File::open(path.join("lock")) {
            Ok(lock) => lock.file().try_lock().is_ok(),
            // It died before it had one, or is being removed by its owner.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if dead {
            // What cannot be removed now, the next one tries again.
            let _ = remove(&path);
        }
    }
}

/// An empty file to be mounted over, unless there is something.
pub(crate) fn placeholder(root: &Root, path: &str) -> Result<(), BuildError> {
    let resolved = root.resolve(path, Follow::Yes)?;
    if let Some(found) = resolved.found {
        if found.kind == FileKind::Directory {
            return Err(BuildError::Request {
                message: format!("{path} is a directory in the image: a file cannot be put there"),
            });
        }
        return Ok(());
    }
    if let Some(parent) = resolved.path.parent() {
        root.create_dir_all(parent, NEW_DIRECTORIES)?;
    }
    root.create_file(&resolved.path, 0o644)?;
    Ok(())
}

fn spec(
    id: &str,
    config: &ImageConfig,
    process: &Process,
    resolv_conf: &str,
) -> Result<Spec, BuildError> {
    let image = &config.config;
    let command = || image.cmd.clone().unwrap_or_default();
    let mut argv = match &process.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => image.entrypoint.clone().unwrap_or_default(),
    };
    match (&process.entrypoint, process.argv.is_empty()) {
        (_, false) => argv.extend(process.argv.iter().cloned()),
        (None, true) => argv.extend(command()),
        (Some(_), true) => {}
    }
    if argv.is_empty() {
        return Err(BuildError::Request {
            message: "the image names no command: give one after its name".to_owned(),
        });
    }
    let hostname = match &process.hostname {
        Some(hostname) => hostname.clone(),
        None => id.get(..12).unwrap_or(id).to_owned(),
    };
    let mut env: Vec<String> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut set = |variable: String| {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        match places.get(&name).and_then(|place| env.get_mut(*place)) {
            Some(there) => *there = variable,
            None => {
                places.insert(name, env.len());
                env.push(variable);
            }
        }
    };
    set(format!("PATH={DEFAULT_PATH}"));
    set(format!("HOSTNAME={hostname}"));
    if process.terminal {
        set("TERM=xterm".to_owned());
    }
    image.env.iter().chain(&process.env).cloned().for_each(&mut set);
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    );
    let cwd = process.cwd.clone().unwrap_or_else(|| image.working_dir.clone());
    Ok(Spec {
        argv,
        env,
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user: process.user.clone().unwrap_or_else(|| image.user.clone()),
        files: vec![
            InjectedFile::new("/etc/hosts", hosts, 0o644),
            InjectedFile::new("/etc/hostname", format!("{hostname}\n"), 0o644),
            InjectedFile::new("/etc/resolv.conf", resolv_conf, 0o644),
        ],
        hostname,
        network: match process.network {
            ContainerNetwork::Host => Network::Host,
            ContainerNetwork::None => Network::None,
        },
        terminal: process.terminal,
        capabilities: CapabilitySet::docker_default(),
        seccomp: true,
        groups: Vec::new(),
        devices: Vec::new(),
        mounts: Vec::new(),
        read_only: process.read_only,
        privileged: false,
        shm_size: None,
        rlimits: Vec::new(),
        resources: Resources::default(),
    })
}

impl Container {
    /// 64 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts the process.
    pub fn start(&mut self, stdio: ContainerStdio) -> Result<(), BuildError> {
        let started = || BuildError::Conflict { message: "the container was started".to_owned() };
        let Prepared { helper, spec, root, mounts } = self.launch.take().ok_or_else(started)?;
        let io = |source| BuildError::Io { what: "hand over standard input".to_owned(), source };
        let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(io);
        let stdio = match stdio {
            ContainerStdio::Capture => Stdio::Capture,
            ContainerStdio::Terminal => Stdio::Terminal,
            ContainerStdio::Inherit => Stdio::Given {
                stdin: own(std::io::stdin().as_fd())?,
                stdout: own(std::io::stdout().as_fd())?,
                stderr: own(std::io::stderr().as_fd())?,
            },
            ContainerStdio::NoInput => Stdio::Given {
                stdin: fs_err::File::open("/dev/null").map_err(io)?.into_file().into(),
                stdout: own(std::io::stdout().as_fd())?,
                stderr: own(std::io::stderr().as_fd())?,
            },
        };
        let launch = Launch { helper, spec, root, mounts, stdio };
        self.running = Some(launch.start()?);
        Ok(())
    }

    /// The master side of the terminal ([`ContainerStdio::Terminal`]).
    pub fn terminal(&mut self) -> Result<OwnedFd, BuildError> {
        Ok(self.started()?.terminal()?)
    }

    /// Sends a signal, by number, to the process.
    pub fn signal(&mut self, signal: i32) -> Result<(), BuildError> {
        let Some(signal) = rustix::process::Signal::from_named_raw(signal) else {
            return Err(BuildError::Request { message: format!("there is no signal {signal}") });
        };
        let failed = |source| BuildError::Io { what: "send a signal".to_owned(), source };
        self.started()?.signal(signal).map_err(failed)
    }

    /// Duplicates the line to the process, so that another thread may send it signals while this
    /// one waits.
    pub fn signaller(&mut self) -> Result<Signaller, BuildError> {
        let failed =
            |source| BuildError::Io { what: "open a line to the process".to_owned(), source };
        Ok(Signaller(self.started()?.signaller().map_err(failed)?))
    }

    /// Waits for the end of the process. When `cancel` is cancelled it is stopped: SIGTERM, and
    /// shortly after SIGKILL.
    pub fn wait(
        &mut self,
        cancel: &CancelToken,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit, BuildError> {
        self.started()?;
        match self.running.take() {
            Some(running) => Ok(running.wait(cancel, output)?),
            None => Err(BuildError::Conflict { message: "the container has ended".to_owned() }),
        }
    }

    fn started(&mut self) -> Result<&mut Running, BuildError> {
        let message = "the container is not running";
        self.running.as_mut().ok_or(BuildError::Conflict { message: message.to_owned() })
    }

    /// Stops the process if it runs, and removes everything that the container wrote.
    pub fn delete(mut self) -> Result<(), BuildError> {
        self.discard()
    }

    fn discard(&mut self) -> Result<(), BuildError> {
        self.running = None;
        self.launch = None;
        self.active = None;
        self.volumes.clear();
        match self.directory.take() {
            Some(directory) => remove(&directory),
            None => Ok(()),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next container.
        let _ = self.discard();
    }
}

/// Sends signals to a container's process.
#[derive(Debug)]
pub struct Signaller(rbuild_sandbox::Signaller);

impl Signaller {
    /// Sends a signal by number. One that does not exist, or a process that has ended, is no
    /// error.
    pub fn send(&self, signal: i32) {
        if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
            let _ = self.0.send(signal);
        }
    }
}

/// Removes a container's directory; nothing is mounted in it.
fn remove(directory: &Path) -> Result<(), BuildError> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(());
    };
    Ok(Root::open(parent)?.remove_all(name)?)
}
