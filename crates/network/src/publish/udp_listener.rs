//! A published port of UDP.
//!
//! One that was opened for all addresses is told to which of them a datagram came, and answers from
//! there. Else the kernel would choose by the way to the client, which for a container that asks by
//! another address of the host than its bridge's is the wrong one, and who waits for an answer of
//! the one that it asked drops it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};

#[derive(Debug)]
pub(super) struct UdpListener {
    socket: UdpSocket,
    /// It has all addresses of its family.
    has_all: bool,
}

/// Who sent a datagram, and to which address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub address: SocketAddr,
    /// The device matters for link-local ones only.
    local: Option<(IpAddr, u32)>,
}

impl UdpListener {
    /// Takes a socket that is bound and does not block.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr()?.ip();
        match address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self { socket, has_all: address.is_unspecified() })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        if !self.has_all {
            let (count, address) = self.socket.recv_from(buffer)?;
            return Ok((count, Peer { address, local: None }));
        }
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(in6_pktinfo);
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let address =
            received.address.and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        let local = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let local = Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr));
                Some((local.into(), 0))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let device = if local.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                Some((local.into(), device))
            }
            _ => None,
        });
        Ok((received.bytes, Peer { address, local }))
    }

    /// Answers from the address that was asked.
    pub(super) fn send(&self, datagram: &[u8], peer: &Peer) -> io::Result<()> {
        let send = |control: &[ControlMessage<'_>]| {
            let parts = [IoSlice::new(datagram)];
            let address = SockaddrStorage::from(peer.address);
            let socket = self.socket.as_raw_fd();
            sendmsg(socket, &parts, control, MsgFlags::empty(), Some(&address))
        };
        match peer.local {
            None => self.socket.send_to(datagram, peer.address)?,
            Some((IpAddr::V4(local), _)) => {
                let address = in_addr { s_addr: local.to_bits().to_be() };
                let any = in_addr { s_addr: 0 };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: any };
                send(&[ControlMessage::Ipv4PacketInfo(&info)])?
            }
            Some((IpAddr::V6(local), device)) => {
                let address = in6_addr { s6_addr: local.octets() };
                let info = in6_pktinfo { ipi6_addr: address, ipi6_ifindex: device };
                send(&[ControlMessage::Ipv6PacketInfo(&info)])?
            }
        };
        Ok(())
    }
}

fn socket_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|four| SocketAddr::V4((*four).into()));
    four.or_else(|| address.as_sockaddr_in6().map(|six| SocketAddr::V6((*six).into())))
}
