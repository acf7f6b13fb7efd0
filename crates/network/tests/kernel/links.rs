//! Bridges, and containers that are connected to them.

use std::os::fd::AsFd;

use rbuild_network::link::LinkError;
use rbuild_network::netns;

use crate::scene::{Machine, bridge, endpoint, exchange, has_root, ip};

#[test]
fn a_namespace_has_a_loopback_device_that_works_and_nothing_else() {
    if !has_root("a_namespace_has_a_loopback_device_that_works_and_nothing_else") {
        return;
    }
    let machine = Machine::new();
    assert_eq!(machine.devices(), ["lo"]);
    let listener = machine.listen("127.0.0.1:80");
    assert_eq!(exchange(&machine, "127.0.0.1:80", &listener), ip("127.0.0.1"));
    let listener = machine.listen("[::1]:80");
    assert_eq!(exchange(&machine, "[::1]:80", &listener), ip("::1"));
}

#[test]
fn the_caller_stays_where_it_is_and_hears_of_panics() {
    if !has_root("the_caller_stays_where_it_is_and_hears_of_panics") {
        return;
    }
    let name = || rustix::fs::fstat(netns::current().unwrap()).unwrap().st_ino;
    let before = name();
    let machine = Machine::new();
    let inside = machine.within(name);
    assert_eq!(inside, rustix::fs::fstat(&machine.netns).unwrap().st_ino);
    assert_ne!(inside, before);
    assert_eq!(name(), before);
    let panic = std::panic::catch_unwind(|| machine.within(|| panic!("inside")));
    assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
}

#[test]
fn containers_on_one_bridge_reach_each_other_at_once() {
    if !has_root("containers_on_one_bridge_reach_each_other_at_once") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16", "fd00:17::1/64"]);
    host.links().ensure_bridge(&net).unwrap();
    let (a, port) = Machine::connected(&host, &endpoint(&net, &["172.17.0.2/16", "fd00:17::2/64"]));
    let (b, _) = Machine::connected(&host, &endpoint(&net, &["172.17.0.3/16", "fd00:17::3/64"]));
    assert_eq!(port.interface, "eth0");
    assert_eq!(port.hardware_address, "02:42:ac:11:00:02");

    let listener = a.listen("0.0.0.0:80");
    assert_eq!(exchange(&b, "172.17.0.2:80", &listener), ip("172.17.0.3"));
    let listener = a.listen("[::]:81");
    assert_eq!(exchange(&b, "[fd00:17::2]:81", &listener), ip("fd00:17::3"));
    let listener = host.listen("172.17.0.1:80");
    assert_eq!(exchange(&a, "172.17.0.1:80", &listener), ip("172.17.0.2"));
    let neighbours = host.read("/proc/thread-self/net/arp");
    assert!(neighbours.contains(&port.hardware_address), "{neighbours}");
}

#[test]
fn a_bridge_that_is_there_is_used_and_gets_what_it_lacks() {
    if !has_root("a_bridge_that_is_there_is_used_and_gets_what_it_lacks") {
        return;
    }
    let host = Machine::new();
    let mut links = host.links();
    links.ensure_bridge(&bridge("rbuild0", &["172.17.0.1/16"])).unwrap();
    let net = bridge("rbuild0", &["172.17.0.1/16", "fd00:17::1/64"]);
    links.ensure_bridge(&net).unwrap();
    links.ensure_bridge(&net).unwrap();
    let networks: Vec<_> = links.networks().unwrap().iter().map(ToString::to_string).collect();
    assert!(networks.contains(&"172.17.0.0/16".to_owned()), "{networks:?}");
    assert!(networks.contains(&"fd00:17::/64".to_owned()), "{networks:?}");
    assert!(!networks.contains(&"172.18.0.0/16".to_owned()), "{networks:?}");
}

#[test]
fn a_name_that_is_no_bridge_is_left_alone() {
    if !has_root("a_name_that_is_no_bridge_is_left_alone") {
        return;
    }
    let host = Machine::new();
    for error in [
        host.links().ensure_bridge(&bridge("lo", &["172.17.0.1/16"])).unwrap_err(),
        host.links().remove_bridge("lo").unwrap_err(),
    ] {
        assert!(matches!(&error, LinkError::NotABridge { name } if name == "lo"), "{error}");
    }
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    let container = Machine::new();
    let missing = host.links().connect(container.netns.as_fd(), &endpoint(&net, &[]));
    let told = missing.unwrap_err().to_string();
    assert!(told.starts_with("cannot connect to the bridge rbuild0: "), "{told}");
}

#[test]
fn a_bridge_goes_with_its_last_port() {
    if !has_root("a_bridge_goes_with_its_last_port") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    let mut links = host.links();
    assert!(links.remove_bridge("rbuild0").unwrap(), "there is none");
    links.ensure_bridge(&net).unwrap();
    let (_a, port) = Machine::connected(&host, &endpoint(&net, &["172.17.0.2/16"]));
    let (b, _) = Machine::connected(&host, &endpoint(&net, &["172.17.0.3/16"]));
    assert!(!links.remove_bridge("rbuild0").unwrap(), "two containers are on it");
    links.disconnect(&port).unwrap();
    links.disconnect(&port).unwrap();
    assert!(!links.remove_bridge("rbuild0").unwrap(), "one container is on it");
    // As when the process that holds the namespace is killed.
    drop(b);
    host.remove_in_the_end("rbuild0");
    assert_eq!(host.devices(), ["lo"]);
}

#[test]
fn a_container_is_on_several_networks_and_keeps_a_way_out() {
    if !has_root("a_container_is_on_several_networks_and_keeps_a_way_out") {
        return;
    }
    let host = Machine::new();
    let (one, two) =
        (bridge("rbuild0", &["172.17.0.1/16"]), bridge("rbuild-2", &["172.18.0.1/20"]));
    let mut links = host.links();
    links.ensure_bridge(&one).unwrap();
    links.ensure_bridge(&two).unwrap();
    let (a, first) = Machine::connected(&host, &endpoint(&one, &["172.17.0.2/16"]));
    let second = links.connect(a.netns.as_fd(), &endpoint(&two, &["172.18.0.2/20"])).unwrap();
    assert_eq!((first.interface.as_str(), second.interface.as_str()), ("eth0", "eth1"));
    assert_eq!(default_gateways(&a), [("eth0", 0), ("eth1", 1)].map(owned));
    links.disconnect(&first).unwrap();
    assert_eq!(default_gateways(&a), [("eth1", 1)].map(owned));
    let again = links.connect(a.netns.as_fd(), &endpoint(&one, &["172.17.0.9/16"])).unwrap();
    assert_eq!(again.interface, "eth0");
    let listener = host.listen("172.17.0.1:80");
    assert_eq!(exchange(&a, "172.17.0.1:80", &listener), ip("172.17.0.9"));
}

#[test]
fn a_connection_that_fails_half_way_leaves_no_device() {
    if !has_root("a_connection_that_fails_half_way_leaves_no_device") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    host.links().ensure_bridge(&net).unwrap();
    let mut wrong = endpoint(&net, &["172.17.0.2/16"]);
    wrong.gateways = vec![ip("10.0.0.1")];
    let container = Machine::new();
    let told = host.links().connect(container.netns.as_fd(), &wrong).unwrap_err().to_string();
    assert!(told.starts_with("cannot make 10.0.0.1 the gateway of a container: "), "{told}");
    assert_eq!(host.devices(), ["lo", "rbuild0"]);
    assert_eq!(container.devices(), ["lo"]);
}

#[test]
fn a_network_of_ipv4_has_no_addresses_of_ipv6() {
    if !has_root("a_network_of_ipv4_has_no_addresses_of_ipv6") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    host.links().ensure_bridge(&net).unwrap();
    let (a, _) = Machine::connected(&host, &endpoint(&net, &["172.17.0.2/16"]));
    let addresses = a.read("/proc/thread-self/net/if_inet6");
    assert!(!addresses.contains("eth0"), "{addresses}");
}

fn owned((device, metric): (&str, u32)) -> (String, u32) {
    (device.to_owned(), metric)
}

/// Device and metric of each default route of IPv4.
fn default_gateways(machine: &Machine) -> Vec<(String, u32)> {
    let text = machine.read("/proc/thread-self/net/route");
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let defaults = rows.filter(|row| row[1] == "00000000");
    defaults.map(|row| (row[0].to_owned(), row[6].parse().unwrap())).collect()
}
