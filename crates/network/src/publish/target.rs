//! Where published ports lead.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::spec::Protocol;
use crate::socket;

/// A container, as the proxy reaches it.
#[derive(Clone)]
pub struct Target {
    /// Its address, as the sockets below see it.
    pub address: IpAddr,
    /// Makes the sockets that are connected to it.
    pub sockets: Arc<dyn Sockets>,
}

impl Target {
    /// A container that the host's own network reaches, over a bridge or as one of its own
    /// processes.
    #[must_use]
    pub fn reached_from_here(address: IpAddr) -> Self {
        Self { address, sockets: Arc::new(HostSockets) }
    }
}

/// Makes sockets from which a container can be reached.
///
/// Asked on the thread that passes everything on, so it must not take long.
pub trait Sockets: Send + Sync {
    /// Gives a new socket of the address' family that is not connected.
    ///
    /// # Errors
    ///
    /// When there is none to give; the client is then sent away.
    fn socket(&self, address: &SocketAddr, protocol: Protocol) -> io::Result<OwnedFd>;
}

/// Sockets of the namespace that the proxy's thread is in.
#[derive(Debug)]
pub struct HostSockets;

impl Sockets for HostSockets {
    fn socket(&self, address: &SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
        Ok(socket::open(address, protocol.socket_type())?)
    }
}

impl Target {
    /// A socket that does not block and is connected to the port, or about to be.
    pub(super) fn connect(&self, port: u16, protocol: Protocol) -> io::Result<OwnedFd> {
        let address = SocketAddr::new(self.address, port);
        let socket = self.sockets.socket(&address, protocol)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(errno) => Err(errno.into()),
        }
    }
}
