//! Which subnet a network gets that asked for none.
//!
//! They come from the ranges that people expect containers in: 172.17.0.0/16 to 172.31.0.0/16,
//! where the first that is free is the default bridge's, and networks of users get slices of the
//! others; after those, of 192.168.0.0/16.

use std::net::{IpAddr, Ipv4Addr};

use super::address::{Subnet, from_bits};
use super::error::SubnetError;

/// Second bytes of 172.0.0.0/8 that begin a range.
const RANGES: std::ops::RangeInclusive<u8> = 17..=31;

/// Of a range, and so of the default bridge's subnet.
const RANGE: u8 = 16;

/// Of a user's network: 4093 containers.
const SLICE: u8 = 20;

/// A route of less bits leads to everywhere, by a default gateway or by a tunnel that takes its
/// place; it says nothing of where a network is.
const SHORTEST_NETWORK: u8 = 8;

/// The default bridge's subnet. `taken` is what the host's routes and all networks have.
pub fn choose_default(taken: &[Subnet]) -> Result<Subnet, SubnetError> {
    first_free(ranges(), taken)
}

/// The subnet of a network that a user made.
pub fn choose_for_user(taken: &[Subnet]) -> Result<Subnet, SubnetError> {
    // The first is left to the default bridge, which may not be there yet.
    let last = Subnet::around(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), RANGE);
    first_free(ranges().skip(1).chain(last).flat_map(slices), taken)
}

fn first_free(
    mut candidates: impl Iterator<Item = Subnet>,
    taken: &[Subnet],
) -> Result<Subnet, SubnetError> {
    let is_taken = |candidate: &Subnet| {
        taken.iter().any(|other| other.prefix() >= SHORTEST_NETWORK && candidate.overlaps(other))
    };
    let pools = "172.17.0.0/16 to 172.31.0.0/16 and 192.168.0.0/16".to_owned();
    candidates.find(|candidate| !is_taken(candidate)).ok_or(SubnetError::NoneFree { pools })
}

fn ranges() -> impl Iterator<Item = Subnet> {
    let range = |second| Subnet::around(IpAddr::V4(Ipv4Addr::new(172, second, 0, 0)), RANGE);
    RANGES.filter_map(range)
}

fn slices(range: Subnet) -> impl Iterator<Item = Subnet> {
    let step = 1 << (32 - SLICE);
    let starts = (range.first_bits()..=range.last_bits()).step_by(step);
    starts.filter_map(move |start| Subnet::around(from_bits(start, range.network()), SLICE))
}
