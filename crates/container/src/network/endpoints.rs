//! `endpoints/`: who is connected to a network.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rbuild_network::resolver::Names;
use serde::{Deserialize, Serialize};

use crate::{ContainerError, is_held};

/// A container that is connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// The container's directory, whose lock says whether it runs.
    pub directory: PathBuf,
    /// Its address.
    pub address: IpAddr,
    /// By which names others find it, the name of the container first.
    pub names: Vec<String>,
}

/// One network's directory, locked.
pub(super) struct Locked<'a> {
    directory: &'a Path,
    _lock: fs_err::File,
}

impl<'a> Locked<'a> {
    pub(super) fn wait(directory: &'a Path) -> Result<Self, ContainerError> {
        let failed = |source| failed("lock the network in", directory, source);
        // Not the network's own directory: one that was removed must not come back.
        match fs_err::create_dir(directory.join("endpoints")) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let lock = fs_err::File::create(directory.join("lock")).map_err(failed)?;
        lock.file().lock().map_err(failed)?;
        Ok(Self { directory, _lock: lock })
    }

    /// The addresses that are used. Those of the dead are free, and their files are removed.
    pub(super) fn used(&self) -> BTreeSet<IpAddr> {
        let mut used = BTreeSet::new();
        for (path, endpoint) in read(self.directory) {
            match is_held(&endpoint.directory) {
                Ok(true) => drop(used.insert(endpoint.address)),
                // What cannot be removed now, the next one tries again.
                _ => drop(fs_err::remove_file(path)),
            }
        }
        used
    }

    pub(super) fn add(&self, id: &str, endpoint: &Endpoint) -> Result<(), ContainerError> {
        let path = file(self.directory, id);
        let new = self.directory.join(format!("{id}.new"));
        let text = serde_json::to_vec(endpoint).map_err(io::Error::from);
        text.and_then(|text| fs_err::write(&new, text))
            .and_then(|()| fs_err::rename(&new, &path))
            .map_err(|source| failed("write", &path, source))
    }

    pub(super) fn remove(&self, id: &str) {
        // The lock of the container will say the same.
        let _ = fs_err::remove_file(file(self.directory, id));
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ContainerError {
    ContainerError::File { action, path: path.to_owned(), source }
}

fn file(network: &Path, id: &str) -> PathBuf {
    network.join("endpoints").join(id)
}

/// All endpoints of a network, also of the dead.
fn read(network: &Path) -> Vec<(PathBuf, Endpoint)> {
    let entries = fs_err::read_dir(network.join("endpoints")).into_iter().flatten().flatten();
    let endpoint = |path: PathBuf| {
        let text = fs_err::read(&path).ok()?;
        Some((path, serde_json::from_slice(&text).ok()?))
    };
    entries.filter_map(|entry| endpoint(entry.path())).collect()
}

/// Whether somebody who was connected to the network in `directory` was killed.
pub fn has_dead(directory: &Path) -> bool {
    let is_dead = |endpoint: &Endpoint| !is_held(&endpoint.directory).is_ok_and(|held| held);
    read(directory).iter().any(|(_, endpoint)| is_dead(endpoint))
}

/// The name of a running container that is connected to the network in `directory`, if there is one.
///
/// # Errors
///
/// [`ContainerError::File`] when the network cannot be locked.
pub fn in_use(directory: &Path) -> Result<Option<String>, ContainerError> {
    let network = Locked::wait(directory)?;
    network.used();
    let first = read(directory).into_iter().next();
    Ok(first.and_then(|(_, endpoint)| endpoint.names.into_iter().next()))
}

/// The names of all who are connected to some networks.
#[derive(Debug)]
pub(super) struct Known {
    /// Directories.
    pub networks: Vec<PathBuf>,
}

impl Known {
    /// Those who run.
    fn endpoints(&self) -> Vec<(String, Endpoint)> {
        let all = self.networks.iter().flat_map(|network| read(network));
        let running =
            all.filter(|(_, endpoint)| is_held(&endpoint.directory).is_ok_and(|held| held));
        let named = running.filter_map(|(path, endpoint)| {
            Some((path.file_name()?.to_str()?.to_owned(), endpoint))
        });
        named.collect()
    }
}

impl Names for Known {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let endpoints = self.endpoints();
        let is = |id: &str, endpoint: &Endpoint| {
            id == name
                || id.get(..12) == Some(name)
                || endpoint.names.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        let found: Vec<IpAddr> = endpoints
            .iter()
            .filter(|(id, endpoint)| is(id, endpoint))
            .map(|(_, endpoint)| endpoint.address)
            .collect();
        (!found.is_empty()).then_some(found)
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let found = self.endpoints().into_iter().find(|(_, it)| it.address == address)?;
        found.1.names.into_iter().next()
    }
}
