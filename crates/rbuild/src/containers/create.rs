//! `create`: everything about a container but its process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rbuild_cache::{SnapshotId, Store};
use rbuild_container::events;
use rbuild_container::logs::LogOptions;
use rbuild_container::{Restart, Stop};
use rbuild_image::ImageError;
use rbuild_image::index::is_for;
use rbuild_network::publish::{PortBinding, PortSpecError};
use rbuild_rooted::Root;
use rbuild_types::{
    CancelToken, Ctx, Event, HealthConfig, ImageConfig, Platform, Reference, Silent, signal_number,
};

use super::directory::{Locked, NAME, PASSING, sweep};
use super::health;
use super::process::spec;
use super::{Connection, Container, ContainerNetwork, ContainerRecord, Process};
use crate::engine::random_id;
use crate::images::nameless;
use crate::sources::image::{ImageSource, Resolved};
use crate::{BuildError, Engine, Pull, networks, volume};

/// A container that is to be made.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// Its name; one is made up when not given.
    pub name: Option<String>,
    /// The image: a name, or the beginning of an id.
    pub image: String,
    /// When a registry is asked for it.
    pub pull: Pull,
    /// What the image has to be for; one that came from a registry for another platform is asked
    /// for again there. This machine's when not given, or what there is.
    pub platform: Option<Platform>,
    /// What runs in it.
    pub process: Process,
    /// Ports that it listens on besides those that the image exposes: `80/tcp`, or a range.
    pub exposed: Vec<String>,
    /// Whether it is removed when it ends.
    pub auto_remove: bool,
    /// Whether it ends, and is removed, with the [`Container`] that made it.
    pub tied: bool,
    /// When it is started again after it ended by itself.
    pub restart: Restart,
    /// The signal that stops it, as Docker takes it; the image's or SIGTERM when not given.
    pub stop_signal: Option<String>,
    /// How long it may take to stop before it is killed, in seconds; negative is for ever.
    pub stop_timeout: i64,
    /// How its output is kept.
    pub log: LogOptions,
    /// How its health is checked, over what the image says: what is empty or 0 here is the
    /// image's, and `["NONE"]` is no test.
    pub health: HealthConfig,
    /// Besides the image's.
    pub labels: BTreeMap<String, String>,
}

impl ContainerOptions {
    /// What Docker does when nothing else is said.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            name: None,
            image: image.into(),
            pull: Pull::Missing,
            platform: None,
            process: Process::default(),
            exposed: Vec::new(),
            auto_remove: false,
            tied: false,
            restart: Restart::No,
            stop_signal: None,
            stop_timeout: 10,
            log: LogOptions::default(),
            health: HealthConfig::default(),
            labels: BTreeMap::new(),
        }
    }
}

impl Engine {
    /// Makes a container of an image, which is pulled if it is not in the store. It ends with the
    /// [`Container`] and leaves nothing behind.
    ///
    /// # Errors
    ///
    /// As [`Engine::create_container`].
    pub fn create(
        &self,
        name: &str,
        image: &str,
        process: Process,
    ) -> Result<Container, BuildError> {
        let options = ContainerOptions {
            name: Some(name.to_owned()),
            process,
            tied: true,
            ..ContainerOptions::new(image)
        };
        self.create_container(options, Ctx::new(&Silent, &CancelToken::default()))
    }

    /// Makes a container, with progress and cancellation. One that is not tied stays until
    /// somebody removes it.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when another has its name; [`BuildError::NoSuchImage`] and those of
    /// pulling; [`BuildError::Request`] for what cannot be.
    pub fn create_container(
        &self,
        options: ContainerOptions,
        ctx: Ctx<'_>,
    ) -> Result<Container, BuildError> {
        if let Some(name) = &options.name {
            check_name("container", name)?;
        }
        let _lease = self.store.lease()?;
        let (resolved, chain) = self.image_of(&options, ctx)?;
        let config = &resolved.config;
        let id = random_id()?;
        let spec = spec(&id, config, &options.process)?;
        let stop = stop(&options, config)?;
        let health = health::checks(&options.health, config)?;
        let mut exposed = ports_of(&options.exposed, PortBinding::exposed)?;
        let connection = match &options.process.network {
            ContainerNetwork::Connected(connection) => {
                Some(checked(connection, config, &mut exposed, &self.store)?)
            }
            ContainerNetwork::Host | ContainerNetwork::None => None,
        };
        // From here on an error removes what was made.
        let reserved = self.reserve(&id, &options)?;
        let directory = &reserved.directory;
        let io = |source| BuildError::Io { what: "write the container's pins".to_owned(), source };
        let pins: String = chain.iter().map(|snapshot| format!("{snapshot}\n")).collect();
        fs_err::write(directory.join("pins"), pins).map_err(io)?;
        let volumes = volume::all(&options.process, config);
        // Held until the container, which keeps its volumes, is written down.
        let (mounts, _held) = match volumes.is_empty() {
            true => (Vec::new(), Vec::new()),
            false => {
                let root =
                    Root::from_fd(rbuild_snapshot::view(&super::lowers(&self.store, &chain)?)?);
                self.make_volumes(&volumes, &root, directory, ctx.cancel)?
            }
        };
        let mut labels = config.config.labels.clone();
        labels.extend(options.labels);
        let record = ContainerRecord {
            name: reserved.name.clone(),
            created: now(),
            image: options.image,
            image_id: resolved.manifest.config.digest,
            spec,
            privileges: options.process.privileges,
            mounts,
            exposed,
            connection,
            dns: options.process.dns,
            hosts: options.process.hosts,
            layers: chain,
            open_stdin: options.process.open_stdin,
            auto_remove: options.auto_remove || options.tied,
            tied: options.tied,
            restart: options.restart,
            stop,
            log: options.log,
            health,
            labels,
            id,
        };
        record.write(directory)?;
        let (directory, lock) = reserved.keep();
        // One that is not tied stays, whatever becomes of the handle.
        let lock = lock.filter(|_| record.tied);
        let mut container = Container::new(self, directory, lock, record);
        container.supervisor = self.supervisor();
        container.happened("create");
        Ok(container)
    }

    fn image_of(
        &self,
        options: &ContainerOptions,
        ctx: Ctx<'_>,
    ) -> Result<(Arc<Resolved>, Vec<SnapshotId>), BuildError> {
        let ContainerOptions { image, pull, platform, .. } = options;
        let (pull, platform) = (*pull, platform.as_ref());
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
        Ok((resolved, chain))
    }

    /// Gives a container another name, whether it runs or not.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchContainer`]; [`BuildError::Conflict`] when another has the name.
    pub fn rename_container(&self, container: &str, name: &str) -> Result<(), BuildError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        check_name("container", name)?;
        let all = Locked::wait(self.store.root())?;
        let container = self.container(container)?;
        check_free(name, &all.names()?)?;
        let io = |source| BuildError::Io { what: "rename a container".to_owned(), source };
        let (new, path) =
            (container.directory().join("name.new"), container.directory().join(NAME));
        fs_err::write(&new, name).map_err(io)?;
        fs_err::rename(new, path).map_err(io)?;
        let renamed = events::Event::of_container(container.directory(), "rename");
        let renamed = renamed.with("oldName", container.name());
        self.happened(renamed.or_all(&container.record().attributes()));
        Ok(())
    }

    /// Takes a name and makes the container's directory, locked.
    fn reserve(&self, id: &str, options: &ContainerOptions) -> Result<Reserved, BuildError> {
        let io =
            |source| BuildError::Io { what: "make a container's directory".to_owned(), source };
        let all = Locked::wait(self.store.root())?;
        sweep(&all);
        let names = all.names()?;
        let name = match &options.name {
            Some(name) => {
                check_free(name, &names)?;
                name.clone()
            }
            None => free_name(|name| names.iter().all(|(taken, _)| taken != name), id),
        };
        let directory = all.path().join(id);
        fs_err::create_dir(&directory).map_err(io)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs_err::set_permissions(&directory, private).map_err(io)?;
        let lock = fs_err::File::create(directory.join("lock")).map_err(io)?.into_file();
        lock.try_lock().map_err(|error| io(error.into()))?;
        fs_err::write(directory.join(NAME), &name).map_err(io)?;
        if options.tied || options.auto_remove {
            fs_err::write(directory.join(PASSING), []).map_err(io)?;
        }
        Ok(Reserved { name, directory, lock: Some(lock) })
    }
}

/// A container that is being made: an error removes it.
struct Reserved {
    name: String,
    directory: PathBuf,
    /// Missing once it was made.
    lock: Option<File>,
}

impl Reserved {
    fn keep(mut self) -> (PathBuf, Option<File>) {
        (std::mem::take(&mut self.directory), self.lock.take())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // What cannot be removed now is swept by the next container.
            let _ = rbuild_container::remove(&self.directory);
        }
    }
}

/// Refuses a name that another has; `taken` are names and ids.
fn check_free(name: &str, taken: &[(String, String)]) -> Result<(), BuildError> {
    let Some((_, holder)) = taken.iter().find(|(taken, _)| taken == name) else { return Ok(()) };
    let short = holder.get(..12).unwrap_or(holder);
    let message = format!(
        "the name {name} is in use by container {short}: remove that one (rbuild rm {name}) or \
         choose another name"
    );
    Err(BuildError::Conflict { message })
}

/// Refuses what is no name, in Docker's words.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), BuildError> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && name.len() > 1 && name.bytes().all(letter) {
        true => Ok(()),
        false => Err(BuildError::Request {
            message: format!(
                "invalid {kind} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two \
                 at least"
            ),
        }),
    }
}

fn stop(options: &ContainerOptions, config: &ImageConfig) -> Result<Stop, BuildError> {
    let signal = match (&options.stop_signal, config.config.stop_signal.as_str()) {
        (Some(signal), _) => signal,
        (None, "") => "SIGTERM",
        (None, signal) => signal,
    };
    let number = signal_number(signal).ok_or_else(|| BuildError::Request {
        message: format!("{signal} is no signal: give one such as SIGTERM"),
    })?;
    let patience = options.stop_timeout.try_into().ok().map(Duration::from_secs);
    Ok(Stop { signal: number, patience })
}

/// The container's ports of which `texts` speak, as `80/tcp`.
fn ports_of<'a>(
    texts: impl IntoIterator<Item = &'a String>,
    read: impl Fn(&str) -> Result<Vec<PortBinding>, PortSpecError>,
) -> Result<BTreeSet<String>, BuildError> {
    let mut ports = BTreeSet::new();
    for text in texts {
        let bindings =
            read(text).map_err(|error| BuildError::Request { message: error.to_string() })?;
        let port = |it: PortBinding| format!("{}/{}", it.container_port, it.protocol);
        ports.extend(bindings.into_iter().map(port));
    }
    Ok(ports)
}

/// The connection with the exposed ports, if it wants them; those that it publishes are exposed too.
/// What cannot be is told now, and not at the start.
fn checked(
    connection: &Connection,
    config: &ImageConfig,
    exposed: &mut BTreeSet<String>,
    store: &Store,
) -> Result<Connection, BuildError> {
    let mut connection = connection.clone();
    for membership in &mut connection.networks {
        // By its name, however it was named.
        membership.network = networks::find(store, &membership.network)?.name;
    }
    let published = ports_of(&connection.ports, PortBinding::parse)?;
    if connection.publish_all {
        let of_image = ports_of(config.config.exposed_ports.keys(), PortBinding::exposed)?;
        let wanted = of_image.union(exposed).filter(|port| !published.contains(*port));
        connection.ports.extend(wanted.cloned());
    }
    exposed.extend(published);
    Ok(connection)
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// A name for who gave none, made of its id.
fn free_name(is_free: impl Fn(&str) -> bool, id: &str) -> String {
    const MANNERS: [&str; 32] = [
        "brave", "bright", "calm", "clever", "eager", "gentle", "happy", "keen", "kind", "lively",
        "merry", "proud", "quick", "quiet", "steady", "witty", "agile", "bold", "candid", "deft",
        "earnest", "fair", "frank", "glad", "hardy", "jolly", "lucid", "nimble", "patient",
        "sober", "tidy", "wise",
    ];
    const PEOPLE: [&str; 32] = [
        "babbage",
        "curie",
        "dijkstra",
        "euler",
        "fermat",
        "gauss",
        "hopper",
        "kepler",
        "lovelace",
        "mirzakhani",
        "noether",
        "perlman",
        "ramanujan",
        "shannon",
        "turing",
        "wirth",
        "banach",
        "cantor",
        "darwin",
        "erdos",
        "faraday",
        "galois",
        "hilbert",
        "jacobi",
        "kovalevskaya",
        "laplace",
        "meitner",
        "newton",
        "pascal",
        "riemann",
        "torvalds",
        "volta",
    ];
    let seed = id.get(..8).and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let name = format!("{}_{}", MANNERS[seed % 32], PEOPLE[seed / 32 % 32]);
    match is_free(&name) {
        true => name,
        false => format!("{name}_{}", id.get(8..14).unwrap_or_default()),
    }
}
