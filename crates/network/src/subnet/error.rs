//! What is wrong with a subnet or an address.

use std::net::IpAddr;

use super::address::Subnet;

/// Why there is no such subnet or address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetError {
    /// The text is none.
    #[error("{text:?} is no subnet; write it as 172.28.0.0/16 or fd00:28::/64")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// The address is one in the subnet, not that of the subnet.
    #[error("{text} is an address in a subnet; the subnet is {subnet}")]
    HostBits {
        /// What was written.
        text: String,
        /// What was probably meant.
        subnet: Subnet,
    },
    /// No gateway and container fit into it.
    #[error("the subnet {subnet} is too small for a gateway and a container")]
    TooSmall {
        /// The subnet.
        subnet: Subnet,
    },
    /// A part is not a part.
    #[error("{what} {value} is outside of the subnet {subnet}")]
    Outside {
        /// What it was to be.
        what: &'static str,
        /// The address or range.
        value: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address has a meaning of its own.
    #[error("{address} cannot be given: it is the {is} of {subnet}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// What it is.
        is: &'static str,
        /// The subnet.
        subnet: Subnet,
    },
    /// Somebody has the address.
    #[error("the address {address} is in use")]
    Taken {
        /// The address.
        address: IpAddr,
    },
    /// Everybody has one.
    #[error(
        "no address of {range} is free; remove a container from the network, or make one with a \
         larger --subnet"
    )]
    Exhausted {
        /// Where was looked.
        range: Subnet,
    },
    /// Every subnet that might have been chosen overlaps with another.
    #[error(
        "no subnet of {pools} is free of the host's routes and other networks; name one with \
         --subnet, or remove networks that are not used"
    )]
    NoneFree {
        /// Where was looked.
        pools: String,
    },
}
