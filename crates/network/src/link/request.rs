//! What is asked of the kernel, and what it says of a device.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::subnet::InterfaceAddress;

/// One message to the kernel, and the words for it in an error.
pub(super) struct Request {
    pub(super) action: String,
    pub(super) flags: u16,
    pub(super) message: RouteNetlinkMessage,
    /// The refusal that is as good as success.
    pub(super) accepted: Option<Errno>,
}

impl Request {
    pub(super) fn new(
        action: impl Into<String>,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Request {
        Request { action: action.into(), flags, message, accepted: None }
    }

    pub(super) fn or(mut self, accepted: Errno) -> Request {
        self.accepted = Some(accepted);
        self
    }
}

/// What is to be known of a device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) kind: Option<LinkInfo>,
    /// The bridge that this is a port of.
    pub(super) bridge: Option<u32>,
    /// The other end of a pair.
    pub(super) peer: Option<u32>,
}

impl Device {
    pub(super) fn from_message(message: RouteNetlinkMessage) -> Option<Device> {
        let RouteNetlinkMessage::NewLink(message) = message else { return None };
        let mut device = Device {
            index: message.header.index,
            name: String::new(),
            kind: None,
            bridge: None,
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Controller(bridge) => device.bridge = Some(bridge),
                LinkAttribute::Link(peer) => device.peer = Some(peer),
                LinkAttribute::LinkInfo(infos) => {
                    device.kind = infos.into_iter().find(|info| matches!(info, LinkInfo::Kind(_)));
                }
                _ => {}
            }
        }
        Some(device)
    }
}

pub(super) fn link_message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

pub(super) fn look_up(name: &str) -> Request {
    let message = link_message(0, vec![LinkAttribute::IfName(name.to_owned())]);
    let message = RouteNetlinkMessage::GetLink(message);
    Request::new(format!("look for the device {name}"), 0, message).or(Errno::NODEV)
}

pub(super) fn set_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

pub(super) fn up(index: u32, action: impl Into<String>) -> Request {
    let mut message = link_message(index, Vec::new());
    set_up(&mut message);
    Request::new(action, 0, RouteNetlinkMessage::SetLink(message))
}

pub(super) fn remove(device: &str, index: u32) -> Request {
    let message = RouteNetlinkMessage::DelLink(link_message(index, Vec::new()));
    Request::new(format!("remove the device {device}"), 0, message).or(Errno::NODEV)
}

/// Gives a device an address, unless it has it.
pub(super) fn add_address(device: &str, index: u32, given: InterfaceAddress) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = given.prefix();
    message.attributes =
        vec![AddressAttribute::Local(given.address()), AddressAttribute::Address(given.address())];
    match given.address() {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            if let Some(IpAddr::V4(broadcast)) = given.subnet().broadcast() {
                message.attributes.push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // Nobody else gives addresses of this network, and looking for duplicates takes a
            // second in which the address cannot be used.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    let action = format!("give {device} the address {given}");
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    Request::new(action, flags, RouteNetlinkMessage::NewAddress(message)).or(Errno::EXIST)
}

/// An address of a card's own range that follows from an address of the network, as Docker makes
/// them: whoever gets the address of one that is gone is found where that was.
pub(super) fn hardware_address(address: IpAddr) -> Vec<u8> {
    let last = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    [[0x02, 0x42].as_slice(), &last].concat()
}
