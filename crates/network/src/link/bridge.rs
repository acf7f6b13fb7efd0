//! Bridges: one for each network, shared by the containers on it.

use std::net::Ipv6Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use rustix::io::Errno;

use super::error::LinkError;
use super::links::Links;
use super::request::{
    Device, Request, add_address, hardware_address, link_message, look_up, remove, set_up, up,
};
use crate::subnet::InterfaceAddress;

/// The host's end of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Of the device; at most 15 bytes, and begins with [`crate::BRIDGE_PREFIX`].
    pub name: String,
    /// The gateway of each subnet of the network.
    pub gateways: Vec<InterfaceAddress>,
}

impl Links {
    /// Makes the bridge unless it is there, gives it the addresses that it lacks, and brings it up.
    pub fn ensure_bridge(&mut self, bridge: &Bridge) -> Result<(), LinkError> {
        let name = &bridge.name;
        let mut attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        // Without one of its own a bridge takes the lowest of its ports', and whoever knew the
        // gateway loses it when a container comes or goes.
        if let Some(gateway) = bridge.gateways.first() {
            attributes.push(LinkAttribute::Address(hardware_address(gateway.address())));
        }
        let mut message = link_message(0, attributes);
        set_up(&mut message);
        let make = Request::new(
            format!("make the bridge {name}"),
            NLM_F_CREATE | NLM_F_EXCL,
            RouteNetlinkMessage::NewLink(message),
        );
        let found = self.ask(vec![make.or(Errno::EXIST), look_up(name)])?;
        let index = found
            .into_iter()
            .find_map(Device::from_message)
            .ok_or(Errno::NODEV)
            .map_err(|gone| LinkError::Kernel {
                action: format!("make the bridge {name}"),
                source: gone.into(),
            })
            .and_then(bridge_index)?;
        let mut requests = vec![up(index, format!("bring the bridge {name} up"))];
        let gateways = bridge.gateways.iter().copied().chain(link_local(bridge));
        requests.extend(gateways.map(|gateway| add_address(name, index, gateway)));
        self.ask(requests)?;
        Ok(())
    }

    /// Removes the bridge if nothing is connected to it; says whether it is gone.
    ///
    /// A container whose process was killed leaves its port for as long as the kernel takes to
    /// clear its namespace away; ask again later, or leave it to the next that uses the network.
    pub fn remove_bridge(&mut self, name: &str) -> Result<bool, LinkError> {
        let Some(device) = self.by_name(name)? else { return Ok(true) };
        let index = bridge_index(device)?;
        let ports = link_message(0, vec![LinkAttribute::Controller(index)]);
        let ports =
            self.list("list the ports of a bridge", &RouteNetlinkMessage::GetLink(ports))?;
        let mut ports = ports.into_iter().filter_map(Device::from_message);
        if ports.any(|port| port.bridge == Some(index)) {
            return Ok(false);
        }
        self.ask(vec![remove(name, index)])?;
        Ok(true)
    }

    /// The number of a bridge that must be there.
    pub(super) fn bridge(&mut self, name: &str) -> Result<u32, LinkError> {
        let device = self.by_name(name)?.ok_or(Errno::NODEV);
        let action = || format!("connect to the bridge {name}");
        device
            .map_err(|gone| LinkError::Kernel { action: action(), source: gone.into() })
            .and_then(bridge_index)
    }
}

/// What a bridge of IPv6 asks its neighbours from. Its own would be looked for in duplicate for more
/// than a second, and until then nothing is forwarded to a container that has not spoken yet.
fn link_local(bridge: &Bridge) -> Option<InterfaceAddress> {
    let is_wanted = bridge.gateways.iter().any(|gateway| gateway.address().is_ipv6());
    let first = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    InterfaceAddress::new(first.into(), 64).filter(|_| is_wanted)
}

fn bridge_index(device: Device) -> Result<u32, LinkError> {
    match device.kind {
        Some(LinkInfo::Kind(InfoKind::Bridge)) => Ok(device.index),
        _ => Err(LinkError::NotABridge { name: device.name }),
    }
}
