//! Networks of containers: `networks/<name>/` of the store.
//!
//! `config.json` in it says what a network is. What else is there, who is connected and the lock of
//! those who join and leave, belongs to the supervisors (`rbuild-container`), and so does the bridge
//! on the host: it is there while somebody needs it. Whoever makes or removes networks holds a
//! kernel lock on the directory of all.
//!
//! The default network, `bridge`, is made when somebody first asks for it. Its device has a name of
//! its own in every store, so that several stores of one machine do not meet.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rbuild_cache::Store;
use rbuild_container::events::Event;
use rbuild_container::network::{Joining, forget_dead, has_dead, in_use};
use rbuild_network::BRIDGE_PREFIX;
use rbuild_network::link::Links;
use rbuild_network::subnet::{Pool, Subnet, choose_default, choose_for_user};
use serde::{Deserialize, Serialize};

use crate::engine::random_id;
use crate::{BuildError, Engine};

/// The network of containers that name none.
pub const DEFAULT_NETWORK: &str = "bridge";

/// Before the names under which builds are connected.
pub(crate) const OF_BUILD: &str = "build-";

/// Names that are no networks of ours.
const RESERVED: [&str; 4] = ["host", "none", "default", "container"];
/// The file that says what a network is.
const FILE: &str = "config.json";

/// What a network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// The bridge on the host, while it is needed.
    pub bridge: String,
    /// Its addresses, as in `172.18.0.0/20`.
    pub subnet: String,
    /// The bridge's address.
    pub gateway: IpAddr,
    /// Given to it.
    pub labels: BTreeMap<String, String>,
}

/// A network that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// Its name.
    pub name: String,
    /// Its addresses; a range that nobody uses when not given.
    pub subnet: Option<String>,
    /// The bridge's address; the first of the subnet when not given.
    pub gateway: Option<IpAddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

fn event_of(network: &NetworkRecord, action: &str) -> Event {
    Event::now("network", action, &network.id).with("name", &network.name).with("type", "bridge")
}

fn refused(error: impl std::fmt::Display) -> BuildError {
    BuildError::Request { message: error.to_string() }
}

fn all(store: &Store) -> PathBuf {
    store.root().join("networks")
}

/// Where a network's files are.
pub(crate) fn directory(store: &Store, name: &str) -> PathBuf {
    all(store).join(name)
}

/// The lock of all networks.
fn lock(store: &Store) -> Result<fs_err::File, BuildError> {
    let path = all(store);
    let io = |source| BuildError::Io { what: "lock the networks".to_owned(), source };
    fs_err::create_dir_all(&path).map_err(io)?;
    let file = fs_err::File::open(&path).map_err(io)?;
    file.file().lock().map_err(io)?;
    Ok(file)
}

fn read(directory: &Path) -> Result<Option<NetworkRecord>, BuildError> {
    let path = directory.join(FILE);
    let io = |source| BuildError::Io { what: format!("read {}", path.display()), source };
    match fs_err::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| io(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// All networks, by name.
fn list(store: &Store) -> Result<Vec<NetworkRecord>, BuildError> {
    let io = |source| BuildError::Io { what: "list the networks".to_owned(), source };
    let entries = match fs_err::read_dir(all(store)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut records = Vec::new();
    for entry in entries {
        records.extend(read(&entry.map_err(io)?.path())?);
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// The network with this name, id, or beginning of an id. The default one is made when it is not
/// there.
pub(crate) fn find(store: &Store, name: &str) -> Result<NetworkRecord, BuildError> {
    if name == DEFAULT_NETWORK || name == "default" {
        if let Some(record) = read(&directory(store, DEFAULT_NETWORK))? {
            return Ok(record);
        }
        let _lock = lock(store)?;
        if let Some(record) = read(&directory(store, DEFAULT_NETWORK))? {
            return Ok(record);
        }
        let name = DEFAULT_NETWORK.to_owned();
        return make(store, NetworkOptions { name, ..NetworkOptions::default() });
    }
    let none = || BuildError::NoSuchNetwork { name: name.to_owned() };
    let records = list(store)?;
    if let Some(record) = records.iter().find(|record| record.name == name) {
        return Ok(record.clone());
    }
    let is = |record: &&NetworkRecord| !name.is_empty() && record.id.starts_with(name);
    let mut by_id = records.iter().filter(is);
    match (by_id.next(), by_id.next()) {
        (Some(record), None) => Ok(record.clone()),
        _ => Err(none()),
    }
}

/// How somebody with these names joins a network.
pub(crate) fn joining(
    store: &Store,
    network: NetworkRecord,
    names: Vec<String>,
    address: Option<IpAddr>,
) -> Joining {
    Joining {
        directory: directory(store, &network.name),
        network: network.name,
        bridge: network.bridge,
        subnet: network.subnet,
        gateway: network.gateway,
        names,
        address,
    }
}

/// Removes what supervisors and builds that were killed have left in networks.
pub(crate) fn sweep(store: &Store) {
    for entry in fs_err::read_dir(all(store)).into_iter().flatten().flatten() {
        if has_dead(&entry.path())
            && let Ok(Some(record)) = read(&entry.path())
        {
            forget_dead(&joining(store, record, Vec::new(), None));
        }
    }
}

/// Makes a network; the caller holds the lock.
fn make(store: &Store, options: NetworkOptions) -> Result<NetworkRecord, BuildError> {
    let mut taken = Links::open().and_then(|mut links| links.networks()).map_err(refused)?;
    let others: Vec<Subnet> =
        list(store)?.iter().filter_map(|record| record.subnet.parse().ok()).collect();
    taken.extend(&others);
    let subnet: Subnet = match &options.subnet {
        Some(subnet) => {
            let subnet = subnet.parse().map_err(refused)?;
            if let Some(other) = others.iter().find(|other| other.overlaps(&subnet)) {
                return Err(refused(format!(
                    "the subnet {subnet} overlaps {other} of another network: give another one"
                )));
            }
            subnet
        }
        None if options.name == DEFAULT_NETWORK => choose_default(&taken).map_err(refused)?,
        None => choose_for_user(&taken).map_err(refused)?,
    };
    let pool = Pool::new(subnet, options.gateway, None).map_err(refused)?;
    let id = random_id()?;
    let record = NetworkRecord {
        bridge: format!("{BRIDGE_PREFIX}-{}", &id[..8]),
        created: crate::containers::now(),
        subnet: subnet.to_string(),
        gateway: pool.gateway().address(),
        labels: options.labels,
        name: options.name,
        id,
    };
    let directory = directory(store, &record.name);
    let io = |source| BuildError::Io { what: format!("make network {}", record.name), source };
    fs_err::create_dir_all(&directory).map_err(io)?;
    let text = serde_json::to_vec(&record).map_err(|error| io(error.into()))?;
    let new = directory.join("config.json.new");
    fs_err::write(&new, text).map_err(io)?;
    fs_err::rename(new, directory.join(FILE)).map_err(io)?;
    Ok(record)
}

impl Engine {
    /// All networks, by name; the default one once it was used.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>, BuildError> {
        list(&self.store)
    }

    /// A network by its name, its id, or the beginning of its id.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchNetwork`].
    pub fn network(&self, name: &str) -> Result<NetworkRecord, BuildError> {
        find(&self.store, name)
    }

    /// Makes a network.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when there is one of that name; [`BuildError::Request`] for names
    /// and subnets that cannot be.
    pub fn create_network(&self, options: NetworkOptions) -> Result<NetworkRecord, BuildError> {
        let name = &options.name;
        crate::containers::check_name("network", name)?;
        if RESERVED.contains(&name.as_str()) {
            return Err(refused(format!("a network cannot have the name {name}")));
        }
        let _lock = lock(&self.store)?;
        if *name == DEFAULT_NETWORK || read(&directory(&self.store, name))?.is_some() {
            let message = format!("there is a network {name} already: choose another name");
            return Err(BuildError::Conflict { message });
        }
        let made = make(&self.store, options)?;
        self.happened(event_of(&made, "create"));
        Ok(made)
    }

    /// Removes a network that no running container is connected to.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchNetwork`]; [`BuildError::Conflict`] when it is in use;
    /// [`BuildError::Request`] for the default one.
    pub fn remove_network(&self, name: &str) -> Result<NetworkRecord, BuildError> {
        let _lock = lock(&self.store)?;
        let record = match name {
            DEFAULT_NETWORK | "default" | "host" | "none" => {
                return Err(refused(format!("{name} is there always and cannot be removed")));
            }
            name => find(&self.store, name)?,
        };
        let directory = directory(&self.store, &record.name);
        if let Some(user) = in_use(&directory)? {
            let name = &record.name;
            let message = match user.starts_with(OF_BUILD) && self.container(&user).is_err() {
                true => format!("network {name} is in use by a build: wait for its end"),
                false => {
                    format!("network {name} is in use by container {user}: stop that one first")
                }
            };
            return Err(BuildError::Conflict { message });
        }
        Links::open().and_then(|mut links| links.remove_bridge(&record.bridge)).map_err(refused)?;
        // It goes at once: who leaves the network late finds none, and makes nothing in it.
        let scratch = self.store.scratch("network")?;
        fs_err::rename(&directory, scratch.path().join("gone")).map_err(|source| {
            BuildError::Io { what: format!("remove network {}", record.name), source }
        })?;
        self.happened(event_of(&record, "destroy"));
        Ok(record)
    }
}
