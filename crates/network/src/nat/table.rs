//! The table of one container.

use std::io;

use netlink_packet_core::{ErrorBuffer, NetlinkBuffer};
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::chains::{Chain, Rules, rules_of};
use super::conntrack;
use super::error::NatError;
use super::message::{
    Attributes, Batch, Kind, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLMSG_ERROR,
};
use crate::netlink::{Netlink, Next};

/// `NFT_TABLE_F_OWNER`, of Linux 5.12.
const OWNED: u32 = 2;

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
        let netlink = open_socket()?;
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
        for chain in Chain::ALL {
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
        let failed = |source| NatError::Kernel {
            action: "change what is",
            table: self.table.clone(),
            source,
        };
        let refused = self.send(&bytes, first, last).map_err(failed)?;
        if let Some((message, code)) = refused {
            let step = message.wrapping_sub(first).checked_sub(1);
            let action = step.and_then(|step| steps.get(step as usize)).map(|(action, ..)| *action);
            return Err(self.refusal(action, code));
        }
        conntrack::forget(&mut self.netlink, &rules.udp_ports()).map_err(failed)
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
                NatError::Missing { lacks: "nf_tables" }
            }
            (Some(Action::Table), Some(Errno::PERM | Errno::EXIST)) => NatError::Held { table },
            (Some(Action::Table), Some(Errno::AFNOSUPPORT)) => {
                NatError::Missing { lacks: "NF_TABLES_INET" }
            }
            (Some(Action::Table), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
                NatError::NoOwner { table }
            }
            (Some(Action::Chain), Some(Errno::NOENT)) => NatError::Missing { lacks: "NFT_NAT" },
            (Some(Action::Rule), Some(Errno::NOENT)) => {
                NatError::Missing { lacks: "one of NFT_NAT, NFT_MASQ, NFT_CT and NFT_FIB_INET" }
            }
            (action, _) => {
                let action = action.map_or("change what is", Action::words);
                NatError::Kernel { action, table, source }
            }
        }
    }
}

/// A socket to netfilter in the calling thread's network namespace.
pub(super) fn open_socket() -> Result<Netlink, NatError> {
    Netlink::open(Some(NETFILTER)).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => NatError::Permission,
        _ => NatError::Missing { lacks: "NETFILTER_NETLINK" },
    })
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
