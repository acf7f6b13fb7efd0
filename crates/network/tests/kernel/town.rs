//! A host with a network, and what is around it.

use rbuild_network::forwarding;
use rbuild_network::link::Endpoint;
use rbuild_network::nat::{Nat, NatError, Rules};
use rbuild_network::publish::{Protocol, PublishedPort};

use crate::scene::{Machine, bridge, endpoint};

/// A host with a container on the default bridge, and a machine elsewhere that sends what it does
/// not know to the host.
pub(crate) struct Town {
    pub(crate) host: Machine,
    pub(crate) container: Machine,
    place: Endpoint,
    pub(crate) world: Machine,
}

pub(crate) const CONTAINER: &str = "172.17.0.2";
pub(crate) const HOST: &str = "203.0.113.1";
pub(crate) const WORLD: &str = "203.0.113.2";

impl Town {
    pub(crate) fn new() -> Town {
        let host = Machine::new();
        host.within(forwarding::forward_ipv4).unwrap();
        let uplink = bridge("uplink0", &["203.0.113.1/24"]);
        let net = bridge("rbuild0", &["172.17.0.1/16"]);
        host.links().ensure_bridge(&uplink).unwrap();
        host.links().ensure_bridge(&net).unwrap();
        let (world, _) = Machine::connected(&host, &endpoint(&uplink, &["203.0.113.2/24"]));
        let place = endpoint(&net, &["172.17.0.2/16"]);
        let (container, _) = Machine::connected(&host, &place);
        Town { host, container, place, world }
    }

    pub(crate) fn rules(&self, ports: &[PublishedPort]) -> Rules {
        Rules { endpoints: vec![self.place.clone()], ports: ports.to_vec() }
    }

    pub(crate) fn open(&self, id: &str, rules: &Rules) -> Result<Nat, NatError> {
        self.host.within(|| Nat::open(id, rules))
    }

    pub(crate) fn sibling(&self) -> Machine {
        let net = bridge("rbuild0", &["172.17.0.1/16"]);
        Machine::connected(&self.host, &endpoint(&net, &["172.17.0.3/16"])).0
    }

    /// A container on another network of the same host.
    pub(crate) fn stranger(&self) -> Machine {
        let net = bridge("rbuild-two", &["172.18.0.1/20"]);
        self.host.links().ensure_bridge(&net).unwrap();
        Machine::connected(&self.host, &endpoint(&net, &["172.18.0.2/20"])).0
    }
}

pub(crate) fn port(host: &str, container_port: u16, protocol: Protocol) -> PublishedPort {
    PublishedPort { host: host.parse().unwrap(), container_port, protocol }
}
