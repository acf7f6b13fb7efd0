//! Devices, addresses and routes, by rtnetlink.
//!
//! [`Links`] is one socket in one network namespace. Requests that belong together go out in one
//! system call; each is answered, and the first refusal is the error.

mod bridge;
mod endpoint;
mod host;

pub use bridge::Bridge;
pub use endpoint::{Endpoint, Port};

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::netlink::{Netlink, Next};
use crate::netns::{self, NetnsError};
use crate::subnet::InterfaceAddress;

/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// How often a list is asked for again that changed while it was read.
const ATTEMPTS: usize = 8;

/// Why a device, address or route cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The kernel refused.
    #[error("cannot {action}: {source}{}", crate::hint(.source))]
    Kernel {
        /// What was to be done.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The name of a bridge belongs to something else.
    #[error(
        "the device {name} is there and is no bridge; remove it, or give the network another bridge"
    )]
    NotABridge {
        /// The device.
        name: String,
    },
    /// The container's network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// A conversation with the kernel about the devices of one network namespace.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
}

impl Links {
    /// Those of the calling thread's network namespace.
    pub fn open() -> Result<Links, LinkError> {
        let netlink = Netlink::open(None).map_err(|source| LinkError::Kernel {
            action: "open a netlink socket".to_owned(),
            source,
        })?;
        Ok(Links { netlink })
    }

    /// Those of `netns`.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Links, LinkError> {
        netns::within(netns, Links::open)?
    }

    pub(crate) fn loopback_up(&mut self) -> Result<(), LinkError> {
        self.ask(vec![up(LOOPBACK, "bring the loopback device up")])?;
        Ok(())
    }

    /// The device `name`, or nothing where there is none.
    fn by_name(&mut self, name: &str) -> Result<Option<Device>, LinkError> {
        let found = self.ask(vec![look_up(name)])?;
        Ok(found.into_iter().find_map(Device::from_message))
    }

    /// Sends all requests at once and returns what the kernel said besides yes.
    fn ask(&mut self, requests: Vec<Request>) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        let mut bytes = Vec::new();
        let mut waiting = Vec::with_capacity(requests.len());
        for request in requests {
            let sequence = self.netlink.next_sequence();
            let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            append(&mut bytes, sequence, flags, request.message);
            waiting.push((sequence, request.action, request.accepted));
        }
        let mut told = Vec::new();
        let mut refusal = None;
        let mut left = waiting.len();
        let done = self.netlink.send(&bytes).and_then(|()| {
            self.netlink.receive(|message| {
                let message = parse(message)?;
                let sequence = message.header.sequence_number;
                let request = waiting.iter().find(|(number, ..)| *number == sequence);
                let Some((_, action, accepted)) = request else { return Ok(Next::Read) };
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => told.push(message),
                    NetlinkPayload::Error(answer) => {
                        left -= 1;
                        let source = answer.to_io();
                        let is_accepted = answer.code.is_none()
                            || source.raw_os_error() == accepted.map(Errno::raw_os_error);
                        if !is_accepted && refusal.is_none() {
                            refusal = Some(LinkError::Kernel { action: action.clone(), source });
                        }
                    }
                    _ => {}
                }
                Ok(if left == 0 { Next::Stop } else { Next::Read })
            })
        });
        match (refusal, done) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(source)) => {
                let actions: Vec<_> =
                    waiting.iter().map(|(_, action, _)| action.as_str()).collect();
                Err(LinkError::Kernel { action: actions.join(", "), source })
            }
            (None, Ok(())) => Ok(told),
        }
    }

    /// Everything that the kernel lists.
    fn list(
        &mut self,
        action: &'static str,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        for _ in 0..ATTEMPTS {
            if let Some(list) = self
                .list_once(question)
                .map_err(|source| LinkError::Kernel { action: action.to_owned(), source })?
            {
                return Ok(list);
            }
        }
        let source = io::Error::other("the list changes faster than it can be read");
        Err(LinkError::Kernel { action: action.to_owned(), source })
    }

    /// As [`Links::list`]; nothing when the list changed meanwhile.
    fn list_once(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let sequence = self.netlink.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, sequence, NLM_F_REQUEST | NLM_F_DUMP, question.clone());
        self.netlink.send(&bytes)?;
        let (mut told, mut whole) = (Vec::new(), true);
        self.netlink.receive(|message| {
            let message = parse(message)?;
            if message.header.sequence_number != sequence {
                return Ok(Next::Read);
            }
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => told.push(message),
                NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                NetlinkPayload::Done(_) => return Ok(Next::Stop),
                _ => {}
            }
            Ok(Next::Read)
        })?;
        Ok(whole.then_some(told))
    }
}

fn parse(message: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(message).map_err(io::Error::other)
}

fn append(bytes: &mut Vec<u8>, sequence: u32, flags: u16, message: RouteNetlinkMessage) {
    let mut header = NetlinkHeader::default();
    header.sequence_number = sequence;
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..start + message.buffer_len()]);
}

/// One message to the kernel, and the words for it in an error.
struct Request {
    action: String,
    flags: u16,
    message: RouteNetlinkMessage,
    /// The refusal that is as good as success.
    accepted: Option<Errno>,
}

impl Request {
    fn new(action: impl Into<String>, flags: u16, message: RouteNetlinkMessage) -> Request {
        Request { action: action.into(), flags, message, accepted: None }
    }

    fn or(mut self, accepted: Errno) -> Request {
        self.accepted = Some(accepted);
        self
    }
}

/// What is to be known of a device.
#[derive(Debug)]
struct Device {
    index: u32,
    name: String,
    kind: Option<LinkInfo>,
    /// The bridge that this is a port of.
    bridge: Option<u32>,
    /// The other end of a pair.
    peer: Option<u32>,
}

impl Device {
    fn from_message(message: RouteNetlinkMessage) -> Option<Device> {
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

fn link_message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn look_up(name: &str) -> Request {
    let message = link_message(0, vec![LinkAttribute::IfName(name.to_owned())]);
    let message = RouteNetlinkMessage::GetLink(message);
    Request::new(format!("look for the device {name}"), 0, message).or(Errno::NODEV)
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

fn up(index: u32, action: impl Into<String>) -> Request {
    let mut message = link_message(index, Vec::new());
    set_up(&mut message);
    Request::new(action, 0, RouteNetlinkMessage::SetLink(message))
}

fn remove(device: &str, index: u32) -> Request {
    let message = RouteNetlinkMessage::DelLink(link_message(index, Vec::new()));
    Request::new(format!("remove the device {device}"), 0, message).or(Errno::NODEV)
}

/// Gives a device an address, unless it has it.
fn add_address(device: &str, index: u32, given: InterfaceAddress) -> Request {
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
fn hardware_address(address: IpAddr) -> Vec<u8> {
    let last = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    [[0x02, 0x42].as_slice(), &last].concat()
}
