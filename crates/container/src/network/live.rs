//! A container's connection while its supervisor lives.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_network::link::{Bridge, Endpoint as Devices, Links};
use rbuild_network::nat::{Nat, NatError, Rules};
use rbuild_network::publish::{PortBinding, Published, Serving, Target};
use rbuild_network::resolv_conf::RESOLVER;
use rbuild_network::resolver::{Options, Resolver};
use rbuild_network::subnet::{InterfaceAddress, Pool, Subnet};
use rbuild_network::{forwarding, netns};

use super::endpoints::{Endpoint, Known, Locked};
use super::{Connect, Connected, Joining, OpenPort, Place};
use crate::ContainerError;

/// Where the resolver listens, as in Docker.
const LISTENS: SocketAddr = SocketAddr::new(IpAddr::V4(RESOLVER), 53);
/// How long a bridge without containers is waited for: the kernel clears a namespace away when it
/// finds the time.
const CLEARING: Duration = Duration::from_secs(2);

/// What makes a container, or the steps of a build, reachable. What is in the kernel goes with it, and
/// with the process.
pub struct Live {
    id: String,
    joined: Vec<Joining>,
    connected: Connected,
    serving: Option<Serving>,
    published: Published,
    resolver: Resolver,
    nat: Nat,
    netns: OwnedFd,
}

fn refused(error: impl std::fmt::Display) -> ContainerError {
    ContainerError::Refused(error.to_string())
}

impl Live {
    /// Connects who is called `id`, whose directory is given, and in it a file `lock` that is held as
    /// long as it is there. Ports come first: that one is taken is what goes wrong most often.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Refused`] says what the kernel, or another process, does not allow.
    pub fn connect(
        id: &str,
        directory: PathBuf,
        connect: &Connect,
    ) -> Result<Self, ContainerError> {
        let mut bindings = Vec::new();
        for port in &connect.ports {
            bindings.extend(PortBinding::parse(port).map_err(refused)?);
        }
        let published = Published::open(&bindings).map_err(refused)?;
        let netns = netns::create().map_err(refused)?;
        let mut places = Places { id, directory, joined: Vec::new(), devices: Vec::new() };
        let mut connected = Connected::default();
        for joining in &connect.networks {
            connected.networks.push(places.join(joining, netns.as_fd())?);
        }
        forwarding::forward_ipv4().map_err(refused)?;
        let ports: Vec<_> = published.ports().collect();
        let rules = Rules { endpoints: std::mem::take(&mut places.devices), ports };
        let nat = translate(id.get(..12).unwrap_or(id), &rules)?;
        let resolver = resolve(netns.as_fd(), connect)?;
        let reached = connected.networks.first().filter(|_| !rules.ports.is_empty());
        let serving = reached
            .map(|place| published.serve(Target::reached_from_here(place.address)))
            .transpose()
            .map_err(refused)?;
        connected.ports = rules
            .ports
            .iter()
            .map(|port| OpenPort {
                host: port.host,
                container_port: port.container_port,
                protocol: port.protocol.to_string(),
            })
            .collect();
        Ok(Self {
            id: id.to_owned(),
            joined: places.keep(),
            connected,
            serving,
            published,
            resolver,
            nat,
            netns,
        })
    }

    /// The namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// How it is connected.
    pub(crate) fn connected(&self) -> &Connected {
        &self.connected
    }

    /// Ends it. Ports are free and networks are left when this returns; what it answers is to be
    /// called when there is time. The kernel takes some for what it removes, and bridges go that
    /// nobody needs any more.
    pub fn leave(self) -> impl FnOnce() + Send {
        let Self { id, joined, serving, published, resolver, nat, netns, connected: _ } = self;
        drop((serving, published));
        leave(&id, &joined);
        move || {
            drop((resolver, netns, nat));
            for joining in &joined {
                remove_bridge(joining);
            }
        }
    }
}

/// The networks that were joined so far; they are left again if something fails.
struct Places<'a> {
    id: &'a str,
    directory: PathBuf,
    joined: Vec<Joining>,
    devices: Vec<Devices>,
}

impl Places<'_> {
    fn join(&mut self, joining: &Joining, netns: BorrowedFd<'_>) -> Result<Place, ContainerError> {
        let subnet: Subnet = joining.subnet.parse().map_err(refused)?;
        let pool = Pool::new(subnet, Some(joining.gateway), None).map_err(refused)?;
        let network = Locked::wait(&joining.directory)?;
        // What a supervisor of the same container left that was killed.
        network.remove(self.id);
        let used = network.used();
        let own = match joining.address {
            None => pool.next(&used),
            Some(address) => pool.claim(address, &used),
        };
        let own: InterfaceAddress = own.map_err(refused)?;
        let endpoint = Endpoint {
            directory: self.directory.clone(),
            address: own.address(),
            names: joining.names.clone(),
        };
        network.add(self.id, &endpoint)?;
        self.joined.push(joining.clone());
        let mut links = Links::open().map_err(refused)?;
        let bridge = Bridge { name: joining.bridge.clone(), gateways: vec![pool.gateway()] };
        links.ensure_bridge(&bridge).map_err(refused)?;
        let devices = Devices {
            bridge: joining.bridge.clone(),
            addresses: vec![own],
            gateways: vec![joining.gateway],
        };
        let port = links.connect(netns, &devices).map_err(refused)?;
        self.devices.push(devices);
        Ok(Place {
            network: joining.network.clone(),
            address: own.address(),
            prefix: own.prefix(),
            gateway: joining.gateway,
            hardware_address: port.hardware_address,
            names: joining.names.clone(),
        })
    }

    fn keep(mut self) -> Vec<Joining> {
        std::mem::take(&mut self.joined)
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        leave(self.id, &self.joined);
    }
}

fn leave(id: &str, joined: &[Joining]) {
    for joining in joined {
        if let Ok(network) = Locked::wait(&joining.directory) {
            network.remove(id);
        }
    }
}

/// Removes a bridge once the kernel has cleared the last container's namespace away, unless somebody
/// joins meanwhile.
fn remove_bridge(joining: &Joining) {
    let deadline = Instant::now() + CLEARING;
    while Instant::now() < deadline {
        let Ok(network) = Locked::wait(&joining.directory) else { return };
        if !network.used().is_empty() {
            return;
        }
        // What cannot be removed is removed by the next who leaves.
        let removed = Links::open().and_then(|mut links| links.remove_bridge(&joining.bridge));
        if removed.is_ok_and(|gone| gone) {
            return;
        }
        drop(network);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sets the rules. The supervisor of the container's last run may still be about to end.
fn translate(id: &str, rules: &Rules) -> Result<Nat, ContainerError> {
    let deadline = Instant::now() + CLEARING;
    loop {
        match Nat::open(id, rules) {
            Err(NatError::Held { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.map_err(refused),
        }
    }
}

/// Starts the container's resolver, at sockets of its namespace.
fn resolve(netns: BorrowedFd<'_>, connect: &Connect) -> Result<Resolver, ContainerError> {
    let sockets = || Ok((UdpSocket::bind(LISTENS)?, TcpListener::bind(LISTENS)?));
    let sockets: std::io::Result<_> = netns::within(netns, sockets).map_err(refused)?;
    let (udp, tcp) = sockets?;
    let mut options = Options::new(connect.servers.clone());
    options.forwards_single_labels = connect.forwards_single_labels;
    options.suffixes = connect.networks.iter().map(|joining| joining.network.clone()).collect();
    let networks = connect.networks.iter().map(|joining| joining.directory.clone()).collect();
    Ok(Resolver::start(udp, tcp, options, Arc::new(Known { networks }))?)
}
