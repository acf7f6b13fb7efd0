//! The chains of a container's table, and the rules in them.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use super::message::Attributes;
use super::rule::{Device, End, Rule};
use crate::BRIDGE_PREFIX;
use crate::link::Endpoint;
use crate::publish::{Protocol, PublishedPort};

/// What the rules are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The container's networks. Published ports lead to its first address of IPv4.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports. Those of the host's addresses of IPv6 and of loopback are the proxy's
    /// alone.
    pub ports: Vec<PublishedPort>,
}

impl Rules {
    /// The host's ports of UDP.
    pub(super) fn udp_ports(&self) -> Vec<u16> {
        let udp = self.ports.iter().filter(|port| port.protocol == Protocol::Udp);
        udp.map(|port| port.host.port()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    Out,
    In,
    Between,
}

impl Chain {
    pub(super) const ALL: [Chain; 3] = [Chain::Out, Chain::In, Chain::Between];

    pub(super) fn name(self) -> &'static str {
        match self {
            Chain::Out => "out",
            Chain::In => "in",
            Chain::Between => "between",
        }
    }

    /// Its attributes: name, place and kind. No policy is said, and so nothing is dropped by it.
    pub(super) fn describe(self, table: Attributes) -> Attributes {
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

/// All rules, those of a chain in their order.
pub(super) fn rules_of(rules: &Rules) -> Vec<(Chain, Rule)> {
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
