//! Networks of containers: devices, addresses, translation, names and published ports.
//!
//! # What is in the kernel
//!
//! A container has a network namespace ([`netns`]). A network is a bridge on the host
//! ([`link::Links::ensure_bridge`]); a container joins it by a pair of devices, one a port of the
//! bridge, the other made in the container's namespace ([`link::Links::connect`]). Which addresses
//! there are to give is arithmetic ([`subnet`]). Translation and isolation are rules in a table that
//! belongs to one container ([`nat`]).
//!
//! # What is in a process
//!
//! Ports are published by a proxy ([`publish`]), which translation goes past where it can. Names are
//! answered, or asked of the host's servers, by a [`resolver`]; [`resolv_conf`] points there.
//!
//! # Who dies with whom
//!
//! Everything of one container goes with the process that set it up, however that ends: the
//! namespace when its descriptors are closed, with it the pair of devices, and the table when its
//! socket is closed. What several containers share, the bridge, is made by whoever comes first and
//! removed by whoever finds it without ports; callers hold a lock per network meanwhile.

#![deny(unsafe_code)]

pub mod forwarding;
pub mod link;
pub mod nat;
mod netlink;
pub mod netns;
pub mod publish;
pub mod resolv_conf;
pub mod resolver;
mod socket;
pub mod subnet;

use std::io;

/// How the name of every bridge of ours begins. The rules of [`nat`] know by it what comes from a
/// container, so no bridge has another name and no other device such a one.
pub const BRIDGE_PREFIX: &str = "rbuild";

/// What helps where the kernel says that something is not allowed.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (networks of containers need root with CAP_NET_ADMIN; without it use the network \
             host or none)"
        }
        _ => "",
    }
}
