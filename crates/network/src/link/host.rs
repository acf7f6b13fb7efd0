//! What the host's own routes and addresses take up, so that a new network is put elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::error::LinkError;
use super::links::Links;
use crate::subnet::Subnet;

impl Links {
    /// The subnets that addresses and routes of this namespace name.
    pub fn networks(&mut self) -> Result<Vec<Subnet>, LinkError> {
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let routes = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let mut told = self.list("list the host's addresses", &addresses)?;
        told.extend(self.list("list the host's routes", &routes)?);
        let networks: BTreeSet<_> = told.into_iter().filter_map(network).collect();
        Ok(networks.into_iter().collect())
    }
}

fn network(message: RouteNetlinkMessage) -> Option<Subnet> {
    match message {
        RouteNetlinkMessage::NewAddress(message) => {
            let prefix = message.header.prefix_len;
            // Of a point-to-point link `Address` is the other side.
            let is_ours =
                |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(_));
            let ours = message.attributes.iter().find(|attribute| is_ours(attribute));
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            match ours {
                Some(AddressAttribute::Local(address)) => Subnet::around(*address, prefix),
                _ => Subnet::around(any?, prefix),
            }
        }
        RouteNetlinkMessage::NewRoute(message) => {
            // Those of other kinds are the addresses again, and multicast.
            let kind = message.header.kind;
            if matches!(
                kind,
                RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast
            ) {
                return None;
            }
            let prefix = message.header.destination_prefix_length;
            message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    Subnet::around(IpAddr::V4(*address), prefix)
                }
                RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                    Subnet::around(IpAddr::V6(*address), prefix)
                }
                _ => None,
            })
        }
        _ => None,
    }
}
