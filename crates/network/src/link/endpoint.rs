//! What connects a container to a bridge: a pair of devices, one a port of the bridge, the other
//! in the container's network namespace.
//!
//! The kernel makes the container's end where it belongs. A device that is moved there afterwards
//! waits for every processor to forget about it, which takes longer than all the rest together.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkInfo,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::error::LinkError;
use super::links::Links;
use super::request::{
    Device, Request, add_address, hardware_address, link_message, remove, set_up, up,
};
use crate::subnet::InterfaceAddress;

/// What IPv6 calls the metric that nobody gave.
const ORDINARY_METRIC_V6: u32 = 1024;

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The bridge, which is there.
    pub bridge: String,
    /// The container's own; the hardware address follows from the first.
    pub addresses: Vec<InterfaceAddress>,
    /// Where everything else is sent.
    pub gateways: Vec<IpAddr>,
}

/// A container's connection to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The device in the container: `eth0`, or the first such name that was free.
    pub interface: String,
    /// The container's, as in `02:42:ac:11:00:02`.
    pub hardware_address: String,
    /// The port of the bridge, on the host.
    pub device: String,
    index: u32,
}

impl Links {
    /// Connects the container in `netns` to a bridge of this namespace. It may be connected to
    /// several; of their gateways the one of the lowest interface serves, and when that is
    /// disconnected the next.
    pub fn connect(
        &mut self,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<Port, LinkError> {
        let mut inside = Links::open_in(netns)?;
        let place = inside.free_place()?;
        let interface = format!("eth{place}");
        let hardware = endpoint
            .addresses
            .first()
            .map(|given| hardware_address(given.address()))
            .unwrap_or_default();
        let bridge = self.bridge(&endpoint.bridge)?;
        let (device, index, peer) = self.make_pair(netns, bridge, &interface, &hardware)?;
        let settings = settings(endpoint, place, &interface, peer);
        if let Err(error) = inside.ask(settings) {
            // The first error is the one to tell.
            let _ = self.ask(vec![remove(&device, index)]);
            return Err(error);
        }
        let pairs: Vec<_> = hardware.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Port { interface, hardware_address: pairs.join(":"), device, index })
    }

    /// Takes a container off a bridge; that it is gone already is no error.
    ///
    /// The kernel waits for every processor, some hundredths of a second. A container that ends needs
    /// none of it: the devices go with its namespace, which the kernel clears away by itself.
    pub fn disconnect(&mut self, port: &Port) -> Result<(), LinkError> {
        self.ask(vec![remove(&port.device, port.index)])?;
        Ok(())
    }

    /// The lowest number that no `eth` device has.
    fn free_place(&mut self) -> Result<u32, LinkError> {
        let every = RouteNetlinkMessage::GetLink(link_message(0, Vec::new()));
        let devices = self.list("list the devices of a container", &every)?;
        let names: Vec<_> = devices
            .into_iter()
            .filter_map(Device::from_message)
            .map(|device| device.name)
            .collect();
        let free = (0..).find(|place| !names.contains(&format!("eth{place}")));
        Ok(free.unwrap_or_default())
    }

    /// Name and number of the end that is here, and the number of the other.
    fn make_pair(
        &mut self,
        netns: BorrowedFd<'_>,
        bridge: u32,
        interface: &str,
        hardware: &[u8],
    ) -> Result<(String, u32, u32), LinkError> {
        let mut attributes = vec![
            LinkAttribute::IfName(interface.to_owned()),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
        ];
        if !hardware.is_empty() {
            attributes.push(LinkAttribute::Address(hardware.to_vec()));
        }
        let peer = InfoData::Veth(InfoVeth::Peer(link_message(0, attributes)));
        let mut message = link_message(
            0,
            vec![
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]),
                LinkAttribute::Controller(bridge),
            ],
        );
        set_up(&mut message);
        let action = format!("make the device {interface} of a container");
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let message = RouteNetlinkMessage::NewLink(message);
        let made = self.ask(vec![Request::new(action.clone(), flags, message)])?;
        let made = made.into_iter().find_map(Device::from_message);
        match made.map(|device| (device.name, device.index, device.peer)) {
            Some((name, index, Some(peer))) => Ok((name, index, peer)),
            _ => Err(LinkError::Kernel { action, source: Errno::PROTO.into() }),
        }
    }
}

/// What the container's end is told, in order: a route needs its address, and that the device is up.
fn settings(endpoint: &Endpoint, place: u32, interface: &str, index: u32) -> Vec<Request> {
    let mut requests = Vec::new();
    if !endpoint.addresses.iter().any(|given| given.address().is_ipv6()) {
        // In a network of IPv4 nobody would answer, and programs would wait for that. The kernel
        // makes the address when the device comes up, and reads the flag of a message first.
        let silent = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        let silent = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(silent)]);
        let message = RouteNetlinkMessage::SetLink(link_message(index, vec![silent]));
        // A kernel without IPv6 makes none.
        let action = format!("keep {interface} from IPv6");
        requests.push(Request::new(action, 0, message).or(Errno::AFNOSUPPORT));
    }
    requests.push(up(index, format!("bring {interface} up")));
    requests.extend(endpoint.addresses.iter().map(|given| add_address(interface, index, *given)));
    requests.extend(endpoint.gateways.iter().map(|gateway| default_route(*gateway, index, place)));
    requests
}

fn default_route(gateway: IpAddr, index: u32, place: u32) -> Request {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    let (family, address, metric) = match gateway {
        IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address), place),
        IpAddr::V6(address) => {
            (AddressFamily::Inet6, RouteAddress::Inet6(address), ORDINARY_METRIC_V6 + place)
        }
    };
    message.header.address_family = family;
    message.attributes = vec![
        RouteAttribute::Gateway(address),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(metric),
    ];
    let action = format!("make {gateway} the gateway of a container");
    Request::new(action, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewRoute(message))
}
