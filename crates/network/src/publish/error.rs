//! Why a port cannot be published.

use std::io;
use std::net::SocketAddr;

use super::holder::Holder;
use super::port_set::HostPorts;
use super::spec::Protocol;

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Somebody else has it.
    #[error(
        "cannot publish {address}/{protocol}: port is already allocated{}; stop that, or publish \
         at another port",
        by(holder.as_ref())
    )]
    Allocated {
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        protocol: Protocol,
        /// Who has it, where that can be seen.
        holder: Option<Holder>,
    },
    /// All ports of a range are taken.
    #[error(
        "cannot publish {ports}/{protocol}: all ports of the range are already allocated; publish \
         at a larger range"
    )]
    RangeAllocated {
        /// The range.
        ports: HostPorts,
        /// What is spoken there.
        protocol: Protocol,
    },
    /// No port was free for all addresses.
    #[error("cannot publish at a free {protocol} port: none was found; name one")]
    NoneFree {
        /// What is spoken there.
        protocol: Protocol,
    },
    /// Low ports are the administrator's.
    #[error(
        "cannot publish {address}/{protocol}: ports below net.ipv4.ip_unprivileged_port_start \
         (1024) are for root; publish at a higher port, lower that number, or run as root"
    )]
    Privileged {
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        protocol: Protocol,
    },
    /// The host does not have the address.
    #[error(
        "cannot publish {address}/{protocol}: no device of this host has that address; leave it \
         out to publish at all"
    )]
    NotOurAddress {
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        protocol: Protocol,
    },
    /// Another failure of the kernel.
    #[error("cannot publish {address}/{protocol}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that passes on could not be started.
    #[error("cannot serve published ports")]
    Serve {
        /// Why.
        source: io::Error,
    },
}

fn by(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) if holder.is_this_process() => " by another -p of the same container".into(),
        Some(holder) => format!(" by process {} ({})", holder.pid, holder.command),
        None => String::new(),
    }
}
