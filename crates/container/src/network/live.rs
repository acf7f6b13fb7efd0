//! A container's connection while its supervisor lives.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_network::link::{Bridge, Endpoint as Devices, Links, Port};
use rbuild_network::nat::{Nat, NatError, Rules};
use rbuild_network::publish::{PortBinding, Published, PublishedPort, Serving, Target};
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
    members: Members,
    connect: Connect,
    serving: Option<Serving>,
    published: Published,
    resolver: Option<Resolver>,
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
        let mut members = Members { id: id.to_owned(), directory, all: Vec::new() };
        for joining in &connect.networks {
            members.join(joining, netns.as_fd())?;
        }
        forwarding::forward_ipv4().map_err(refused)?;
        let rules = rules(&members, &published);
        let nat = translate(id.get(..12).unwrap_or(id), &rules)?;
        let connect = connect.clone();
        let mut live =
            Self { members, connect, serving: None, published, resolver: None, nat, netns };
        live.serve()?;
        live.resolve()?;
        Ok(live)
    }

    /// The namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// How it is connected.
    pub(crate) fn connected(&self) -> Connected {
        let open = |port: PublishedPort| OpenPort {
            host: port.host,
            container_port: port.container_port,
            protocol: port.protocol.to_string(),
        };
        Connected {
            networks: self.members.all.iter().map(|member| member.place.clone()).collect(),
            ports: self.published.ports().map(open).collect(),
        }
    }

    /// Joins one more network.
    pub(crate) fn join(&mut self, joining: &Joining) -> Result<(), ContainerError> {
        if self.members.all.iter().any(|member| member.joining.network == joining.network) {
            return Err(refused(format!("it is connected to {} already", joining.network)));
        }
        self.members.join(joining, self.netns.as_fd())?;
        let settled = self.settle();
        if settled.is_err() {
            // The first error is the one to tell.
            let _ = self.part(&joining.network);
        }
        settled
    }

    /// Leaves a network; one that it is not in is none to leave.
    pub(crate) fn part(&mut self, network: &str) -> Result<(), ContainerError> {
        let is = |member: &Member| member.joining.network == network;
        let Some(at) = self.members.all.iter().position(is) else { return Ok(()) };
        let member = self.members.all.remove(at);
        leave(&self.members.id, std::slice::from_ref(&member.joining));
        let mut links = Links::open().map_err(refused)?;
        links.disconnect(&member.port).map_err(refused)?;
        remove_bridge(&member.joining);
        self.settle()
    }

    /// Brings everything in line with the networks that it is in now.
    fn settle(&mut self) -> Result<(), ContainerError> {
        self.nat.replace(&rules(&self.members, &self.published)).map_err(refused)?;
        self.serve()?;
        self.resolve()
    }

    /// Passes on what comes to the published ports, to the container's first address.
    fn serve(&mut self) -> Result<(), ContainerError> {
        self.serving = None;
        if let Some(first) = self.members.all.first()
            && self.published.ports().next().is_some()
        {
            let target = Target::reached_from_here(first.place.address);
            self.serving = Some(self.published.serve(target).map_err(refused)?);
        }
        Ok(())
    }

    /// Starts the container's resolver, at sockets of its namespace.
    fn resolve(&mut self) -> Result<(), ContainerError> {
        // It has the sockets.
        self.resolver = None;
        let sockets = || Ok((UdpSocket::bind(LISTENS)?, TcpListener::bind(LISTENS)?));
        let sockets: std::io::Result<_> =
            netns::within(self.netns.as_fd(), sockets).map_err(refused)?;
        let (udp, tcp) = sockets?;
        let mut options = Options::new(self.connect.servers.clone());
        options.forwards_single_labels = self.connect.forwards_single_labels;
        let joined = || self.members.all.iter().map(|member| &member.joining);
        options.suffixes = joined().map(|joining| joining.network.clone()).collect();
        let networks = joined().map(|joining| joining.directory.clone()).collect();
        self.resolver = Some(Resolver::start(udp, tcp, options, Arc::new(Known { networks }))?);
        Ok(())
    }

    /// Ends it. Ports are free and networks are left when this returns; what it answers is to be
    /// called when there is time. The kernel takes some for what it removes, and bridges go that
    /// nobody needs any more.
    pub fn leave(self) -> impl FnOnce() + Send {
        let Self { mut members, serving, published, resolver, nat, netns, connect: _ } = self;
        drop((serving, published));
        let all = std::mem::take(&mut members.all);
        let joined: Vec<Joining> = all.into_iter().map(|member| member.joining).collect();
        leave(&members.id, &joined);
        move || {
            drop((resolver, netns, nat));
            for joining in &joined {
                remove_bridge(joining);
            }
        }
    }
}

/// The networks that a container is in; they are left when this goes.
struct Members {
    id: String,
    directory: PathBuf,
    all: Vec<Member>,
}

/// A container in a network.
struct Member {
    joining: Joining,
    devices: Devices,
    port: Port,
    place: Place,
}

impl Members {
    fn join(&mut self, joining: &Joining, netns: BorrowedFd<'_>) -> Result<(), ContainerError> {
        let subnet: Subnet = joining.subnet.parse().map_err(refused)?;
        let pool = Pool::new(subnet, Some(joining.gateway), None).map_err(refused)?;
        let network = Locked::wait(&joining.directory)?;
        // What a supervisor of the same container left that was killed.
        network.remove(&self.id);
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
        network.add(&self.id, &endpoint)?;
        match plug(joining, own, pool.gateway(), netns) {
            Ok((devices, port)) => {
                let place = Place {
                    network: joining.network.clone(),
                    address: own.address(),
                    prefix: own.prefix(),
                    gateway: joining.gateway,
                    hardware_address: port.hardware_address.clone(),
                    names: joining.names.clone(),
                };
                self.all.push(Member { joining: joining.clone(), devices, port, place });
                Ok(())
            }
            Err(error) => {
                network.remove(&self.id);
                Err(error)
            }
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &self.all {
            leave(&self.id, std::slice::from_ref(&member.joining));
        }
    }
}

/// Connects the namespace to the network's bridge, which is made if it is not there.
fn plug(
    joining: &Joining,
    own: InterfaceAddress,
    gateway: InterfaceAddress,
    netns: BorrowedFd<'_>,
) -> Result<(Devices, Port), ContainerError> {
    let mut links = Links::open().map_err(refused)?;
    let bridge = Bridge { name: joining.bridge.clone(), gateways: vec![gateway] };
    links.ensure_bridge(&bridge).map_err(refused)?;
    let devices = Devices {
        bridge: joining.bridge.clone(),
        addresses: vec![own],
        gateways: vec![joining.gateway],
    };
    let port = links.connect(netns, &devices).map_err(refused)?;
    Ok((devices, port))
}

fn rules(members: &Members, published: &Published) -> Rules {
    Rules {
        endpoints: members.all.iter().map(|member| member.devices.clone()).collect(),
        ports: published.ports().collect(),
    }
}

/// Removes what the supervisor of a container that was killed has left in a network.
pub fn forget(id: &str, joining: &Joining) {
    leave(id, std::slice::from_ref(joining));
    remove_bridge(joining);
}

/// Removes what all who were killed have left in a network.
pub fn forget_dead(joining: &Joining) {
    remove_bridge(joining);
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
        let network = Locked::wait(&joining.directory);
        let needed = match &network {
            Ok(network) => !network.used().is_empty(),
            // Nobody joins a network that was removed.
            Err(_) => joining.directory.exists(),
        };
        if needed {
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
