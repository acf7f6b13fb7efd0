//! The conversation: requests go out, answers come back.

use std::io;
use std::os::fd::BorrowedFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use super::error::LinkError;
use super::request::{Device, Request, look_up, up};
use crate::netlink::{Netlink, Next};
use crate::netns;

/// The loopback device is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// How often a list is asked for again that changed while it was read.
const ATTEMPTS: usize = 8;

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
    pub(super) fn by_name(&mut self, name: &str) -> Result<Option<Device>, LinkError> {
        let found = self.ask(vec![look_up(name)])?;
        Ok(found.into_iter().find_map(Device::from_message))
    }

    /// Sends all requests at once and returns what the kernel said besides yes.
    pub(super) fn ask(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
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
    pub(super) fn list(
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
