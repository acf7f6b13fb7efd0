//! Connections that the kernel translates as rules said that are no more.
//!
//! A rule is asked for the first packet; what it said holds for as long as packets come. TCP notices
//! that the other side has changed. A client of UDP goes on to send from the same port, and all of
//! it to the address of a container that is gone.

use std::io;

use super::message::{Attributes, NLM_F_ACK, NLM_F_REQUEST, append};
use crate::netlink::{Netlink, Next};

/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;

/// `AF_INET`.
const IPV4: u8 = 2;

/// Attributes of a connection, and the parts of its tuple that a filter compares: the protocol's
/// number and the destination port.
const ORIGINAL: u16 = 1;
const STATUS: u16 = 3;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const COMPARED: u32 = 1 << 3 | 1 << 5;

/// `IPS_DST_NAT`.
const TRANSLATED: u32 = 1 << 5;

const UDP: u8 = 17;

/// Forgets where clients of these ports of UDP were sent until now. A kernel that cannot find them
/// by port leaves them, and they have to be silent for half a minute.
pub(super) fn forget(netlink: &mut Netlink, ports: &[u16]) -> io::Result<()> {
    for port in ports {
        let port = Attributes::default().bytes(1, &[UDP]).bytes(3, &port.to_be_bytes());
        let filter = Attributes::default()
            .nested(ORIGINAL, Attributes::default().nested(2, port))
            .nested(
                FILTER,
                Attributes::default().bytes(1, &COMPARED.to_ne_bytes()).bytes(2, &[0; 4]),
            )
            .number(STATUS, TRANSLATED)
            .number(STATUS_MASK, TRANSLATED);
        let sequence = netlink.next_sequence();
        let mut bytes = Vec::new();
        append(&mut bytes, (DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence), (IPV4, 0), &filter);
        netlink.send(&bytes)?;
        // The answer, whatever it is: what was not forgotten ends by itself.
        netlink.receive(|_| Ok(Next::Stop))?;
    }
    Ok(())
}
