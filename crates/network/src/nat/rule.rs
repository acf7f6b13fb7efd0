//! A rule, as what it looks at in the order in which it does, and what it does at the end.
//!
//! Every look loads a value into the first register and compares it there; where they differ the
//! rule ends and the next begins. Numbers are those of `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, SocketAddrV4};

use super::message::Attributes;
use crate::publish::Protocol;

/// Registers: the verdict's, the one that is compared, and a second value of an action.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// A device's name is compared with this many bytes, zeros at its end.
const IFNAMSIZ: usize = 16;

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
const ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;

/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`.
const VALUE: u16 = 1;
const VERDICT_DATA: u16 = 2;

/// Bits of a connection's state: a direction of one that is known, or what belongs to one.
const ESTABLISHED_OR_RELATED: u32 = 0b110;

/// The bit of a connection's status: its destination was translated.
const TRANSLATED: u32 = 1 << 5;

/// `RTN_LOCAL`: an address of this machine.
const LOCAL: u32 = 2;

/// `NF_DROP`.
const DROP: u32 = 0;

/// Which device of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Device {
    From = 6,
    To = 7,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Source,
    Destination,
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Equal = 0,
    Differ = 1,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn expressions(self) -> Attributes {
        self.0
    }

    pub(super) fn ipv4(self) -> Rule {
        self.family(NFPROTO_IPV4)
    }

    pub(super) fn device(self, which: Device, name: &str) -> Rule {
        self.meta(which as u32).compare(Compare::Equal, &padded(name))
    }

    pub(super) fn not_device(self, which: Device, name: &str) -> Rule {
        self.meta(which as u32).compare(Compare::Differ, &padded(name))
    }

    /// That the device's name begins otherwise.
    pub(super) fn not_devices(self, which: Device, prefix: &str) -> Rule {
        self.meta(which as u32).compare(Compare::Differ, prefix.as_bytes())
    }

    pub(super) fn address(self, which: End, address: IpAddr) -> Rule {
        // Where the addresses are in the header of an IP packet.
        match (address, which) {
            (IpAddr::V4(address), End::Source) => {
                self.ipv4().header(1, 12, 4).compare(Compare::Equal, &address.octets())
            }
            (IpAddr::V4(address), End::Destination) => {
                self.ipv4().header(1, 16, 4).compare(Compare::Equal, &address.octets())
            }
            (IpAddr::V6(address), End::Source) => self
                .family(NFPROTO_IPV6)
                .header(1, 8, 16)
                .compare(Compare::Equal, &address.octets()),
            (IpAddr::V6(address), End::Destination) => self
                .family(NFPROTO_IPV6)
                .header(1, 24, 16)
                .compare(Compare::Equal, &address.octets()),
        }
    }

    /// That the destination is any address of this machine.
    pub(super) fn for_this_machine(self) -> Rule {
        // The destination's kind (`NFT_FIB_RESULT_ADDRTYPE` of `NFTA_FIB_F_DADDR`).
        let look = Attributes::default().number(1, FIRST).number(2, 3).number(3, 1 << 1);
        self.expression("fib", look).compare(Compare::Equal, &LOCAL.to_ne_bytes())
    }

    pub(super) fn port(self, protocol: Protocol, port: u16) -> Rule {
        const L4PROTO: u32 = 16;
        let protocol: u8 = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        let rule = self.meta(L4PROTO).compare(Compare::Equal, &[protocol]);
        // The destination port of both.
        rule.header(2, 2, 2).compare(Compare::Equal, &port.to_be_bytes())
    }

    /// That it belongs to no connection that is known.
    pub(super) fn unknown(self) -> Rule {
        const STATE: u32 = 0;
        self.connection(STATE, ESTABLISHED_OR_RELATED)
    }

    /// That nobody translated where it goes.
    pub(super) fn untranslated(self) -> Rule {
        const STATUS: u32 = 2;
        self.connection(STATUS, TRANSLATED)
    }

    pub(super) fn drop(self) -> Rule {
        let code = Attributes::default().number(1, DROP);
        let verdict = Attributes::default().nested(VERDICT_DATA, code);
        let look = Attributes::default().number(1, VERDICT).nested(2, verdict);
        self.expression("immediate", look)
    }

    pub(super) fn masquerade(self) -> Rule {
        self.expression("masq", Attributes::default())
    }

    /// Sends the connection to another address and port.
    pub(super) fn translate(self, to: SocketAddrV4) -> Rule {
        const DESTINATION: u32 = 1;
        let action = Attributes::default()
            .number(1, DESTINATION)
            .number(2, NFPROTO_IPV4.into())
            .number(3, FIRST)
            .number(5, SECOND);
        self.load(FIRST, &to.ip().octets())
            .load(SECOND, &to.port().to_be_bytes())
            .expression("nat", action)
    }

    fn family(self, family: u8) -> Rule {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO).compare(Compare::Equal, &[family])
    }

    fn meta(self, key: u32) -> Rule {
        self.expression("meta", Attributes::default().number(1, FIRST).number(2, key))
    }

    /// That none of `bits` is set in what is known of the connection.
    fn connection(self, key: u32, bits: u32) -> Rule {
        let value = |bits: u32| Attributes::default().bytes(VALUE, &bits.to_ne_bytes());
        let mask = Attributes::default()
            .number(1, FIRST)
            .number(2, FIRST)
            .number(3, 4)
            .nested(4, value(bits))
            .nested(5, value(0));
        self.expression("ct", Attributes::default().number(1, FIRST).number(2, key))
            .expression("bitwise", mask)
            .compare(Compare::Equal, &0_u32.to_ne_bytes())
    }

    /// `length` bytes from `offset` of the network's header (1) or the transport's (2).
    fn header(self, base: u32, offset: u32, length: u32) -> Rule {
        let look = Attributes::default()
            .number(1, FIRST)
            .number(2, base)
            .number(3, offset)
            .number(4, length);
        self.expression("payload", look)
    }

    fn compare(self, how: Compare, with: &[u8]) -> Rule {
        let value = Attributes::default().bytes(VALUE, with);
        let look = Attributes::default().number(1, FIRST).number(2, how as u32).nested(3, value);
        self.expression("cmp", look)
    }

    fn load(self, register: u32, value: &[u8]) -> Rule {
        let value = Attributes::default().bytes(VALUE, value);
        self.expression("immediate", Attributes::default().number(1, register).nested(2, value))
    }

    fn expression(self, name: &str, look: Attributes) -> Rule {
        let whole = Attributes::default().text(NAME, name).nested(DATA, look);
        Rule(self.0.nested(ELEMENT, whole))
    }
}

fn padded(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(IFNAMSIZ, 0);
    name
}
