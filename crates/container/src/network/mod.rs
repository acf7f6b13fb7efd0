//! How a container is connected: what the supervisor is told, and what it makes of it.
//!
//! A network is a directory `networks/<name>/` of the store, which the engine makes. Here, two
//! things in it are used: `lock`, a kernel lock on who joins and leaves, and `endpoints/<id>`, one
//! file for each container that is connected, with its addresses and names. The file of a container
//! whose supervisor was killed is taken for none, by that one's lock, and removed by the next who
//! joins.

mod endpoints;
mod live;

pub use endpoints::{has_dead, in_use};
pub use live::{Live, forget, forget_dead};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a container is connected to networks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Connect {
    /// The networks, the first of which leads everywhere.
    pub networks: Vec<Joining>,
    /// Published ports, in the words of `-p`.
    pub ports: Vec<String>,
    /// Servers that know the names that the networks do not.
    pub servers: Vec<SocketAddr>,
    /// Whether names of one label are asked of them too.
    pub forwards_single_labels: bool,
}

/// A network that a container joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// Its name.
    pub network: String,
    /// Its directory.
    pub directory: PathBuf,
    /// The bridge on the host.
    pub bridge: String,
    /// Its subnet, as in `172.17.0.0/16`.
    pub subnet: String,
    /// The bridge's address.
    pub gateway: IpAddr,
    /// By which names others find the container.
    pub names: Vec<String>,
    /// The address that it is to have; any when not given.
    pub address: Option<IpAddr>,
}

/// How a container is connected now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Its places in networks.
    pub networks: Vec<Place>,
    /// Where its ports are to be reached on the host.
    pub ports: Vec<OpenPort>,
}

/// A place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The network's name.
    pub network: String,
    /// The container's address.
    pub address: IpAddr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: IpAddr,
    /// The container's hardware address.
    pub hardware_address: String,
    /// By which names others find it.
    pub names: Vec<String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// Where it is to be reached on the host.
    pub host: SocketAddr,
    /// The container's port.
    pub container_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}
