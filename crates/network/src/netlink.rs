//! A blocking netlink socket. What goes out is whole messages, as many as the caller put together;
//! what comes back is handed on message by message.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::NetlinkBuffer;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send,
    socket_with, sockopt,
};

/// The kernel cuts what it lists to the size of the reader's buffer, up to this.
const BUFFER: usize = 32 * 1024;

/// The kernel answers before `send` returns, so this is only reached where something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What [`Netlink::receive`] does after a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Read,
    Stop,
}

#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread, where it stays.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Netlink> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = socket_with(AddressFamily::NETLINK, kind, flags, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// A number for the next message.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(crate) fn send(&self, messages: &[u8]) -> io::Result<()> {
        if messages.len() > BUFFER {
            // Refused without the right to, and then the kernel's own limit holds.
            let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, messages.len() * 2);
        }
        match send(&self.socket, messages, SendFlags::empty()) {
            Ok(sent) if sent == messages.len() => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads messages until `each` has enough of them.
    pub(crate) fn receive(
        &self,
        mut each: impl FnMut(&[u8]) -> io::Result<Next>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let (_, length) = rustix::io::retry_on_intr(|| {
                recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC)
            })?;
            let Some(mut rest) = buffer.get(..length) else {
                return Err(io::Error::other("an answer of the kernel is too long"));
            };
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                let length = message.length() as usize;
                if each(&rest[..length])? == Next::Stop {
                    return Ok(());
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}
