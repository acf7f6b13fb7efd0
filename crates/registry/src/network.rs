//! Networks, by which Docker's `insecure-registries` name many registries at once: `10.0.0.0/8`.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::str::FromStr;

use crate::RegistryOptions;
use crate::place::without_port;

/// A network by an address and the bits that all of it have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits = bits.parse().map_err(|_| ())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if bits > longest { Err(()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        // Without the bits that need not be the same; where none must, nothing is left.
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let differing = mine.to_bits() ^ other.to_bits();
                differing.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let differing = mine.to_bits() ^ other.to_bits();
                differing.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Whether `host[:port]` has an address in a network that is listed as insecure. Names are looked up,
/// as Docker does it, where there is such a network at all.
pub(crate) fn is_in_insecure(options: &RegistryOptions, host: &str) -> bool {
    let networks: Vec<Network> =
        options.insecure.iter().filter_map(|listed| listed.parse().ok()).collect();
    if networks.is_empty() {
        return false;
    }
    let name = without_port(host);
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let addresses: Vec<IpAddr> = match options.resolve.get(bare) {
        Some(address) => vec![address.ip()],
        // An address is its own answer. A name that nobody knows is in no network.
        None => (bare, 0).to_socket_addrs().into_iter().flatten().map(|it| it.ip()).collect(),
    };
    networks.iter().any(|network| addresses.iter().any(|address| network.contains(*address)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_listed(listed: &str, host: &str) -> bool {
        let options = RegistryOptions {
            insecure: vec!["r.example".to_owned(), listed.to_owned()],
            resolve: [("inner.example".to_owned(), "10.1.2.3:0".parse().unwrap())].into(),
            ..RegistryOptions::default()
        };
        is_in_insecure(&options, host)
    }

    #[test]
    fn addresses_and_names_are_in_networks() {
        for (listed, host) in [
            ("10.0.0.0/8", "10.255.0.1:5000"),
            ("10.0.0.0/8", "inner.example:5000"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "192.0.2.1"),
            ("fd00::/8", "[fd12::1]:443"),
            ("::/0", "[2001:db8::1]"),
        ] {
            assert!(is_listed(listed, host), "{host} in {listed}");
        }
        for (listed, host) in [
            ("10.0.0.0/8", "11.0.0.1:5000"),
            ("10.1.2.4/32", "inner.example"),
            ("10.0.0.0/8", "[fd12::1]"),
            ("fd00::/8", "10.0.0.1"),
            ("r.example", "10.0.0.1"),
        ] {
            assert!(!is_listed(listed, host), "{host} in {listed}");
        }
    }

    #[test]
    fn what_is_no_network_is_none() {
        for bad in ["", "/", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"]
        {
            assert_eq!(bad.parse::<Network>(), Err(()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[0-9a-f.:/]{0,24}", address: u128) {
            if let Ok(network) = text.parse::<Network>() {
                network.contains(IpAddr::V6(address.into()));
                prop_assert!(network.contains(network.address) || network.address.is_ipv6());
            }
        }
    }
}
