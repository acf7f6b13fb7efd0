//! Translation and isolation: an nf_tables table for each container, which belongs to the process
//! that watches the container.
//!
//! # Who removes it
//!
//! The kernel. The table has an owner (`NFT_TABLE_F_OWNER`), the netlink socket that made it, and
//! goes when that is closed: by [`Nat`]'s drop or by the end of the process, however it ends. Nobody
//! else can change it meanwhile, and no table is shared, so there is nothing to lock, to count or to
//! clean up.
//!
//! # What is in it
//!
//! Three chains, and rules that speak of this container's addresses only:
//!
//! * *out*: what the container sends anywhere but to its own bridge gets the host's address.
//! * *in*: what comes from another machine to a published port goes to the container, whose
//!   program sees the real sender.
//! * *between*: what is to be forwarded to the container from another device than its bridge is
//!   dropped, unless it belongs to a connection or its destination was translated. So containers of
//!   two networks do not reach each other, whatever their tables say about sending, and a neighbour
//!   that sends packets for the container's own address to this host gets no answer.
//!
//! # Who serves which client of a published port
//!
//! | client | served by | the program sees |
//! | --- | --- | --- |
//! | another machine, IPv4 | *in* | the client |
//! | this host, by any of its addresses | the proxy ([`crate::publish`]) | the gateway |
//! | any container of ours, also the published one itself | the proxy | the gateway |
//! | IPv6 | the proxy | the gateway |
//!
//! Containers come in by a bridge of ours and are passed over ([`crate::BRIDGE_PREFIX`]): the answer
//! to a translated packet would go straight to a client on the same bridge, which does not know the
//! sender, and one on another bridge is not to reach the container but by the port that everybody
//! may use. As the proxy listens on the port in any case, a rule that is missing costs the sender's
//! address and never the connection.
//!
//! # What it cannot do
//!
//! Accept what another table drops: nf_tables asks all of them. Where a firewall forwards nothing by
//! default (Docker's does), containers of ours reach the world only after it was told to.

mod message;
mod rule;

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use netlink_packet_core::{ErrorBuffer, NetlinkBuffer};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use crate::BRIDGE_PREFIX;
use crate::link::Endpoint;
use crate::netlink::{Netlink, Next};
use crate::publish::PublishedPort;
use message::{Attributes, Batch, Kind, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rule::{Device, End, Rule};

/// `NFT_TABLE_F_OWNER`, of Linux 5.12.
const OWNED: u32 = 2;

/// The type of a message that answers one.
const NLMSG_ERROR: u16 = 2;

/// Why there can be no translation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatError {
    /// The process may not.
    #[error(
        "translating addresses is not allowed to this process: it needs root with CAP_NET_ADMIN; \
         without it use the network host or none"
    )]
    Permission,
    /// There is no nf_tables, or a part of it is not there.
    #[error(
        "the kernel cannot {action}: it lacks {lacks}; load or build that module, or use the \
         network host or none"
    )]
    Missing {
        /// What was to be done.
        action: &'static str,
        /// The module, as it is called in a kernel's configuration.
        lacks: &'static str,
    },
    /// The kernel knows no tables that go with their owner.
    #[error("the kernel cannot remove the table {table} with its owner; that needs Linux 5.12")]
    NoOwner {
        /// The table.
        table: String,
    },
    /// Somebody else has a table of this name.
    #[error(
        "the nf_tables table {table} is there already: another process watches this container, or \
         `nft delete table inet {table}` removes it"
    )]
    Held {
        /// The table.
        table: String,
    },
    /// The kernel refused.
    #[error("cannot {action} in the nf_tables table {table}: {source}")]
    Kernel {
        /// What was to be done.
        action: &'static str,
        /// The table.
        table: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What the rules are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The container's networks. Published ports lead to its first address of IPv4.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports. Those of the host's addresses of IPv6 and of loopback are the proxy's
    /// alone.
    pub ports: Vec<PublishedPort>,
}

/// The rules of one container, for as long as this value lives.
#[derive(Debug)]
pub struct Nat {
    netlink: Netlink,
    table: String,
}

impl Nat {
    /// Makes the table `rbuild-ID` in the network namespace of the calling thread, with its rules,
    /// at once.
    pub fn open(id: &str, rules: &Rules) -> Result<Nat, NatError> {
        let netlink = Netlink::open(Some(NETFILTER)).map_err(|source| no_socket(&source))?;
        let mut nat = Nat { netlink, table: format!("rbuild-{id}") };
        nat.apply(NLM_F_EXCL, rules)?;
        Ok(nat)
    }

    /// Puts other rules in place of those that are there, at once: when the container was connected
    /// to another network or disconnected from one. Connections that are known live on.
    pub fn replace(&mut self, rules: &Rules) -> Result<(), NatError> {
        self.apply(0, rules)
    }

    fn apply(&mut self, exclusive: u16, rules: &Rules) -> Result<(), NatError> {
        let table = |kind| Attributes::default().text(kind, &self.table);
        let mut steps = Vec::new();
        let mut add =
            |action, kind, flags, attributes| steps.push((action, kind, flags, attributes));
        let owned = table(1).number(2, OWNED);
        add(Action::Table, Kind::NewTable, NLM_F_CREATE | exclusive, owned);
        for chain in [Chain::Out, Chain::In, Chain::Between] {
            let attributes = chain.describe(table(1));
            add(Action::Chain, Kind::NewChain, NLM_F_CREATE, attributes);
        }
        add(Action::Clear, Kind::DeleteRule, 0, table(1));
        for (chain, rule) in rules_of(rules) {
            let attributes = table(1).text(2, chain.name()).nested(4, rule.expressions());
            add(Action::Rule, Kind::NewRule, NLM_F_CREATE | NLM_F_APPEND, attributes);
        }

        let mut batch = Batch::begin(self.netlink.next_sequence());
        for (_, kind, flags, attributes) in &steps {
            // The numbers that the batch gives to its messages.
            self.netlink.next_sequence();
            batch.add(*kind, *flags, attributes);
        }
        let (bytes, first, last) = batch.end();
        self.netlink.next_sequence();
        let refused = self.send(&bytes, first, last).map_err(|source| NatError::Kernel {
            action: "change what is",
            table: self.table.clone(),
            source,
        })?;
        let Some((message, code)) = refused else { return Ok(()) };
        let step = message.wrapping_sub(first).checked_sub(1);
        let action = step.and_then(|step| steps.get(step as usize)).map(|(action, ..)| *action);
        Err(self.refusal(action, code))
    }

    /// The first message that the kernel refused, and why.
    fn send(&self, batch: &[u8], first: u32, last: u32) -> io::Result<Option<(u32, io::Error)>> {
        self.netlink.send(batch)?;
        let mut refused = None;
        self.netlink.receive(|message| {
            let message = NetlinkBuffer::new_checked(message).map_err(io::Error::other)?;
            let sequence = message.sequence_number();
            if message.message_type() != NLMSG_ERROR || !(first..=last).contains(&sequence) {
                return Ok(Next::Read);
            }
            let answer = ErrorBuffer::new_checked(message.payload()).map_err(io::Error::other)?;
            if let Some(code) = answer.code().filter(|_| refused.is_none()) {
                refused = Some((sequence, io::Error::from_raw_os_error(code.get().abs())));
            }
            // Where the batch itself is refused nobody looks at the rest of it.
            Ok(if sequence == last || sequence == first { Next::Stop } else { Next::Read })
        })?;
        Ok(refused)
    }

    fn refusal(&self, action: Option<Action>, source: io::Error) -> NatError {
        let table = self.table.clone();
        let errno = Errno::from_io_error(&source);
        match (action, errno) {
            (None, Some(Errno::PERM)) => NatError::Permission,
            (None, Some(Errno::OPNOTSUPP | Errno::INVAL)) => {
                NatError::Missing { action: "translate addresses", lacks: "nf_tables" }
            }
            (Some(Action::Table), Some(Errno::PERM | Errno::EXIST)) => NatError::Held { table },
            (Some(Action::Table), Some(Errno::AFNOSUPPORT)) => {
                NatError::Missing { action: "translate addresses", lacks: "NF_TABLES_INET" }
            }
            (Some(Action::Table), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                NatError::NoOwner { table }
            }
            (Some(Action::Chain), Some(Errno::NOENT)) => {
                NatError::Missing { action: "translate addresses", lacks: "NFT_NAT" }
            }
            (Some(Action::Rule), Some(Errno::NOENT)) => NatError::Missing {
                action: "translate addresses",
                lacks: "one of NFT_NAT, NFT_MASQ, NFT_CT and NFT_FIB_INET",
            },
            (action, _) => {
                let action = action.map_or("change what is", Action::words);
                NatError::Kernel { action, table, source }
            }
        }
    }
}

fn no_socket(source: &io::Error) -> NatError {
    match Errno::from_io_error(source) {
        Some(Errno::PERM | Errno::ACCESS) => NatError::Permission,
        _ => NatError::Missing { action: "translate addresses", lacks: "NETFILTER_NETLINK" },
    }
}

/// A message of a batch, in the words of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Table,
    Chain,
    Clear,
    Rule,
}

impl Action {
    fn words(self) -> &'static str {
        match self {
            Action::Table => "make itself",
            Action::Chain => "make a chain",
            Action::Clear => "remove rules",
            Action::Rule => "make a rule",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    Out,
    In,
    Between,
}

impl Chain {
    fn name(self) -> &'static str {
        match self {
            Chain::Out => "out",
            Chain::In => "in",
            Chain::Between => "between",
        }
    }

    /// Its attributes: name, place and kind. No policy is said, and so nothing is dropped by it.
    fn describe(self, table: Attributes) -> Attributes {
        // Numbers of hooks (`enum nf_inet_hooks`) and the usual priorities there.
        let (kind, hook, priority) = match self {
            Chain::Out => ("nat", 4, 100_i32),
            Chain::In => ("nat", 0, -100),
            Chain::Between => ("filter", 2, 0),
        };
        let place = Attributes::default().number(1, hook).number(2, priority as u32);
        table.text(3, self.name()).nested(4, place).text(7, kind)
    }
}

fn rules_of(rules: &Rules) -> Vec<(Chain, Rule)> {
    let mut all = Vec::new();
    for endpoint in &rules.endpoints {
        for given in &endpoint.addresses {
            let (bridge, own) = (&endpoint.bridge, given.address());
            let rule = Rule::default().address(End::Source, own);
            all.push((Chain::Out, rule.not_device(Device::To, bridge).masquerade()));
            let rule = Rule::default().address(End::Destination, own);
            let rule = rule.device(Device::To, bridge).not_device(Device::From, bridge);
            all.push((Chain::Between, rule.unknown().untranslated().drop()));
        }
    }
    let addresses = rules.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let first = addresses.into_iter().find_map(|given| match given.address() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let Some(container) = first else { return all };
    for port in &rules.ports {
        let SocketAddr::V4(host) = port.host else { continue };
        if host.ip().is_loopback() {
            continue;
        }
        let rule = Rule::default().ipv4();
        let rule = rule.not_device(Device::From, "lo").not_devices(Device::From, BRIDGE_PREFIX);
        let rule = match host.ip().is_unspecified() {
            true => rule.for_this_machine(),
            false => rule.address(End::Destination, IpAddr::V4(*host.ip())),
        };
        let to = SocketAddrV4::new(container, port.container_port);
        all.push((Chain::In, rule.port(port.protocol, host.port()).translate(to)));
    }
    all
}
