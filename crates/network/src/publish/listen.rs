//! Listening at the host's ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::sockopt;

use super::error::PublishError;
use super::holder::Holder;
use super::port_set::HostPorts;
use super::proxy::Serving;
use super::spec::{PortBinding, Protocol};
use super::target::Target;
use super::udp_listener::UdpListener;
use crate::socket;

/// Connections that wait to be accepted. The kernel takes `net.core.somaxconn` where that is less.
const BACKLOG: i32 = 4096;

/// How often another free port is tried, when one that is free for IPv4 is not for IPv6.
const ATTEMPTS: u32 = 100;

/// Ports of the host that are ours. They are free again when this is dropped.
#[derive(Debug)]
pub struct Published {
    listeners: Arc<[Listener]>,
}

/// One socket of the host, and the container's port behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// Where it is reached on the host: a port of its own, never 0.
    pub host: SocketAddr,
    /// The container's port.
    pub container_port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub socket: ListeningSocket,
    pub port: PublishedPort,
}

#[derive(Debug)]
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Udp(UdpListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Udp(listener) => listener.socket().as_fd(),
        }
    }
}

impl Published {
    /// Listens for all `bindings`, or for none. Those that ask for one port come first, then
    /// ranges, then those that take any.
    ///
    /// # Errors
    ///
    /// When a port is taken or may not be had.
    pub fn open(bindings: &[PortBinding]) -> Result<Self, PublishError> {
        let mut order: Vec<usize> = (0..bindings.len()).collect();
        order.sort_by_key(|at| match bindings[*at].host_ports {
            HostPorts::One(_) => 0,
            HostPorts::FirstFree { .. } => 1,
            HostPorts::Any => 2,
        });
        let mut opened = Vec::new();
        for at in order {
            opened.push((at, listen(&bindings[at])?));
        }
        opened.sort_by_key(|(at, _)| *at);
        Ok(Self { listeners: opened.into_iter().flat_map(|(_, listeners)| listeners).collect() })
    }

    /// What was opened, in the order of the bindings: a binding without an address has one for
    /// each family that the host has, with the same port.
    pub fn ports(&self) -> impl Iterator<Item = PublishedPort> {
        self.listeners.iter().map(|listener| listener.port)
    }

    #[cfg(test)]
    pub(super) fn listeners(&self) -> Arc<[Listener]> {
        Arc::clone(&self.listeners)
    }

    /// Passes on all that comes until the guard is dropped; with it end the connections.
    ///
    /// # Errors
    ///
    /// When the kernel gives no more threads or descriptors.
    pub fn serve(&self, target: Target) -> Result<Serving, PublishError> {
        Serving::start(Arc::clone(&self.listeners), target)
            .map_err(|source| PublishError::Serve { source })
    }
}

fn listen(binding: &PortBinding) -> Result<Vec<Listener>, PublishError> {
    let protocol = binding.protocol;
    match binding.host_ports {
        HostPorts::One(port) => listen_at(binding, port),
        HostPorts::FirstFree { first, last } => {
            first_free(first..=last, |port| listen_at(binding, port))?
                .ok_or(PublishError::RangeAllocated { ports: binding.host_ports, protocol })
        }
        HostPorts::Any => first_free(0..ATTEMPTS, |_| listen_at(binding, 0))?
            .ok_or(PublishError::NoneFree { protocol }),
    }
}

/// The first that is not allocated.
fn first_free<P, T>(
    choices: impl IntoIterator<Item = P>,
    listen: impl Fn(P) -> Result<T, PublishError>,
) -> Result<Option<T>, PublishError> {
    for choice in choices {
        match listen(choice) {
            Err(PublishError::Allocated { .. }) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// Listens at the same port of all addresses of the binding.
fn listen_at(binding: &PortBinding, port: u16) -> Result<Vec<Listener>, PublishError> {
    const ALL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let one = binding.host_address.map(|address| [address]);
    let addresses = one.as_ref().map_or(&ALL[..], |one| &one[..]);
    let mut listeners: Vec<Listener> = Vec::new();
    for address in addresses {
        let port = listeners.first().map_or(port, |first| first.port.host.port());
        let address = SocketAddr::new(*address, port);
        match open(address, binding.protocol) {
            Ok((socket, host)) => {
                let port = PublishedPort {
                    host,
                    container_port: binding.container_port,
                    protocol: binding.protocol,
                };
                listeners.push(Listener { socket, port });
            }
            // A kernel without IPv6; nobody asked for it by name.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if !listeners.is_empty() => {}
            Err(errno) => {
                let choice = binding.host_ports;
                return Err(refusal(address, binding.protocol, choice, errno));
            }
        }
    }
    Ok(listeners)
}

fn refusal(
    address: SocketAddr,
    protocol: Protocol,
    choice: HostPorts,
    errno: Errno,
) -> PublishError {
    match errno {
        Errno::ADDRINUSE => {
            // Who has one of many does not matter, and is not asked.
            let is_one = matches!(choice, HostPorts::One(_));
            let holder = is_one.then(|| Holder::of(address, protocol)).flatten();
            PublishError::Allocated { address, protocol, holder }
        }
        Errno::ACCESS => PublishError::Privileged { address, protocol },
        Errno::ADDRNOTAVAIL => PublishError::NotOurAddress { address, protocol },
        _ => PublishError::Listen { address, protocol, source: errno.into() },
    }
}

fn open(address: SocketAddr, protocol: Protocol) -> Result<(ListeningSocket, SocketAddr), Errno> {
    let socket = socket::open(&address, protocol.socket_type())?;
    if address.is_ipv6() {
        // IPv4 has a listener of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Not to share it: connections of a container that just ended hold it for a minute.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    let socket = match protocol {
        Protocol::Tcp => {
            rustix::net::listen(&socket, BACKLOG)?;
            ListeningSocket::Tcp(socket.into())
        }
        Protocol::Udp => ListeningSocket::Udp(UdpListener::new(socket).map_err(errno)?),
    };
    let host = match &socket {
        ListeningSocket::Tcp(socket) => socket.local_addr(),
        ListeningSocket::Udp(listener) => listener.socket().local_addr(),
    };
    Ok((socket, host.map_err(errno)?))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
