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
//! default, as Docker's, containers of ours reach the world, and are reached with the sender's
//! address, only after it was told to: [`dropping_chains`] finds those and knows the commands.

mod chains;
mod conntrack;
mod error;
mod firewall;
mod message;
mod rule;
mod table;

pub use chains::Rules;
pub use error::NatError;
pub use firewall::{DroppingChain, dropping_chains};
pub use table::Nat;
