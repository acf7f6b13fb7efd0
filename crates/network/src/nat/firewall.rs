//! Other people's tables that forward nothing unless they are told to. A packet has to be accepted by
//! all tables, so ours cannot open a way that another closes.

use std::fmt;
use std::io;

use netlink_packet_core::{ErrorBuffer, NetlinkBuffer, NlaBuffer, NlasIterator};
use rustix::io::Errno;

use super::error::NatError;
use super::message::{Kind, NLMSG_DONE, NLMSG_ERROR, list};
use super::table::open_socket;
use crate::BRIDGE_PREFIX;
use crate::netlink::Next;

/// `NF_INET_FORWARD` and `NF_DROP`.
const FORWARD: u32 = 2;
const DROP: u32 = 0;

/// A chain of another program, all of which a packet between networks has to pass, and which drops
/// what none of its rules accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    family: &'static str,
    table: String,
    chain: String,
}

impl DroppingChain {
    /// The commands that let through what is from or for a container of ours, until the firewall is
    /// set up again. What may reach a container is still said by the container's own table.
    pub fn commands(&self) -> [String; 2] {
        ["iifname", "oifname"]
            .map(|which| format!("nft insert rule {self} {which} \"{BRIDGE_PREFIX}*\" accept"))
    }
}

impl fmt::Display for DroppingChain {
    /// Family, table and chain, as nft writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// The chains of the calling thread's network namespace that forward nothing by themselves, as those
/// of Docker and of many firewalls. Whether they have a rule for containers of ours is not looked at.
pub fn dropping_chains() -> Result<Vec<DroppingChain>, NatError> {
    let mut netlink = open_socket()?;
    let sequence = netlink.next_sequence();
    let mut chains = Vec::new();
    let done = netlink.send(&list(Kind::GetChain, sequence)).and_then(|()| {
        netlink.receive(|message| {
            let message = NetlinkBuffer::new_checked(message).map_err(io::Error::other)?;
            let kind = message.message_type();
            if kind == NLMSG_ERROR {
                let answer =
                    ErrorBuffer::new_checked(message.payload()).map_err(io::Error::other)?;
                let code = answer.code().map_or(0, |code| code.get().abs());
                return Err(io::Error::from_raw_os_error(code));
            }
            if kind == Kind::NewChain.number() {
                chains.extend(dropping_chain(message.payload()));
            }
            Ok(if kind == NLMSG_DONE { Next::Stop } else { Next::Read })
        })
    });
    match done.as_ref().map_err(Errno::from_io_error) {
        Ok(()) => Ok(chains),
        Err(Some(Errno::PERM)) => Err(NatError::Permission),
        Err(_) => Err(NatError::Missing { lacks: "nf_tables" }),
    }
}

/// The chain of a message, if it is one that drops what is forwarded.
fn dropping_chain(message: &[u8]) -> Option<DroppingChain> {
    let (header, attributes) = message.split_at_checked(4)?;
    let family = match header[0] {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let (mut table, mut chain, mut hook, mut policy) = (None, None, None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            1 => table = Some(text(&attribute)),
            3 => chain = Some(text(&attribute)),
            4 => {
                let mut place = NlasIterator::new(attribute.value()).filter_map(Result::ok);
                hook = place.find(|part| part.kind() == 1).and_then(|part| number(&part));
            }
            5 => policy = number(&attribute),
            _ => {}
        }
    }
    let is_dropping = hook == Some(FORWARD) && policy == Some(DROP);
    is_dropping.then_some(())?;
    Some(DroppingChain { family, table: table?, chain: chain? })
}

fn text(attribute: &NlaBuffer<&[u8]>) -> String {
    String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned()
}

fn number(attribute: &NlaBuffer<&[u8]>) -> Option<u32> {
    attribute.value().try_into().ok().map(u32::from_be_bytes)
}
