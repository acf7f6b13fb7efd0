//! The addresses of one network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::address::{InterfaceAddress, Subnet, from_bits};
use super::error::SubnetError;

/// What `--subnet`, `--gateway` and `--ip-range` say of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    subnet: Subnet,
    gateway: IpAddr,
    range: Subnet,
}

impl Pool {
    /// A network's addresses. Without a gateway it is the first of the subnet, and without a range
    /// all of it is given.
    pub fn new(
        subnet: Subnet,
        gateway: Option<IpAddr>,
        range: Option<Subnet>,
    ) -> Result<Pool, SubnetError> {
        let range = range.unwrap_or(subnet);
        if subnet.last_bits() - subnet.first_bits() < 3 {
            return Err(SubnetError::TooSmall { subnet });
        }
        if !subnet.covers(&range) {
            let value = range.to_string();
            return Err(SubnetError::Outside { what: "the range", value, subnet });
        }
        let first = from_bits(subnet.first_bits() + 1, subnet.network());
        let pool = Pool { subnet, gateway: gateway.unwrap_or(first), range };
        pool.in_the_subnet("the gateway", pool.gateway)?;
        match pool.own_meaning(pool.gateway) {
            Some(is) => Err(SubnetError::Reserved { address: pool.gateway, is, subnet }),
            None => Ok(pool),
        }
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The bridge's address.
    pub fn gateway(&self) -> InterfaceAddress {
        self.on_the_subnet(self.gateway)
    }

    /// The lowest address that is neither used nor reserved.
    pub fn next(&self, used: &BTreeSet<IpAddr>) -> Result<InterfaceAddress, SubnetError> {
        let range = self.range.first_bits()..=self.range.last_bits();
        // No more are passed over than are used, and the few that have a meaning of their own.
        range
            .map(|bits| from_bits(bits, self.subnet.network()))
            .find(|address| self.reserved(*address).is_none() && !used.contains(address))
            .map(|address| self.on_the_subnet(address))
            .ok_or(SubnetError::Exhausted { range: self.range })
    }

    /// An address that somebody asked for (`--ip`). It may lie outside of the range that addresses
    /// are given from by themselves.
    pub fn claim(
        &self,
        address: IpAddr,
        used: &BTreeSet<IpAddr>,
    ) -> Result<InterfaceAddress, SubnetError> {
        self.in_the_subnet("the address", address)?;
        if let Some(is) = self.reserved(address) {
            return Err(SubnetError::Reserved { address, is, subnet: self.subnet });
        }
        if used.contains(&address) {
            return Err(SubnetError::Taken { address });
        }
        Ok(self.on_the_subnet(address))
    }

    fn in_the_subnet(&self, what: &'static str, address: IpAddr) -> Result<(), SubnetError> {
        let subnet = self.subnet;
        match subnet.contains(address) {
            true => Ok(()),
            false => Err(SubnetError::Outside { what, value: address.to_string(), subnet }),
        }
    }

    fn reserved(&self, address: IpAddr) -> Option<&'static str> {
        if address == self.gateway { Some("gateway") } else { self.own_meaning(address) }
    }

    fn own_meaning(&self, address: IpAddr) -> Option<&'static str> {
        if address == self.subnet.network() {
            return Some("address of the network itself");
        }
        (Some(address) == self.subnet.broadcast()).then_some("broadcast address")
    }

    fn on_the_subnet(&self, address: IpAddr) -> InterfaceAddress {
        InterfaceAddress { address, subnet: self.subnet }
    }
}
