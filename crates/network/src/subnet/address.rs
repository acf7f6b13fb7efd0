//! Subnets, and addresses in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::SubnetError;

/// A subnet: an address whose last bits are zero, and how many the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of that length that `address` is in; none when the length is more than it has.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Subnet> {
        let free = width(address).checked_sub(prefix)?;
        let bits = to_bits(address);
        let network = bits.checked_shr(free.into()).map_or(0, |bits| bits << free);
        Some(Subnet { network: from_bits(network, address), prefix })
    }

    /// Its first address, which is its own.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits are the subnet's.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is one of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// The address for everybody on it, where there is one.
    pub fn broadcast(&self) -> Option<IpAddr> {
        (self.network.is_ipv4() && self.prefix < 31).then(|| self.last())
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Subnet::around(address, self.prefix).is_some_and(|around| around.network == self.network)
    }

    /// Whether all of `other` is in it.
    pub fn covers(&self, other: &Subnet) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }

    /// Whether an address is in both.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.covers(other) || other.covers(self)
    }

    fn last(&self) -> IpAddr {
        let free = width(self.network).saturating_sub(self.prefix);
        let ones = u128::MAX.checked_shr(128 - u32::from(free)).unwrap_or(0);
        from_bits(to_bits(self.network) | ones, self.network)
    }

    pub(super) fn first_bits(&self) -> u128 {
        to_bits(self.network)
    }

    pub(super) fn last_bits(&self) -> u128 {
        to_bits(self.last())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let malformed = || SubnetError::Malformed { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| is_number).ok_or_else(malformed)?;
        let subnet = Subnet::around(address, prefix).ok_or_else(malformed)?;
        match subnet.network == address {
            true => Ok(subnet),
            false => Err(SubnetError::HostBits { text: text.to_owned(), subnet }),
        }
    }
}

/// An address and the subnet it is in, as a device has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    pub(super) address: IpAddr,
    pub(super) subnet: Subnet,
}

impl InterfaceAddress {
    /// The address `address` in the subnet of that length around it; none when the length is more
    /// than it has.
    pub fn new(address: IpAddr, prefix: u8) -> Option<InterfaceAddress> {
        Some(InterfaceAddress { address, subnet: Subnet::around(address, prefix)? })
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits are the subnet's.
    pub fn prefix(&self) -> u8 {
        self.subnet.prefix
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.subnet.prefix)
    }
}

/// Bits of an address.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of these bits, of the family of `like`.
pub(super) fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}
