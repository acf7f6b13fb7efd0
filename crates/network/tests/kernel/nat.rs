//! Translation, published ports and isolation, seen by sending packets.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use rbuild_network::forwarding;
use rbuild_network::nat::{Nat, Rules};
use rbuild_network::publish::Protocol;

use crate::scene::{Machine, PATIENCE, bridge, endpoint, exchange, has_root, ip};
use crate::town::{CONTAINER, HOST, Town, WORLD, port};

#[test]
fn forwarding_is_turned_on_and_told() {
    if !has_root("forwarding_is_turned_on_and_told") {
        return;
    }
    let host = Machine::new();
    // A new namespace begins with what the machine has.
    let file = "/proc/sys/net/ipv4/ip_forward";
    host.write(file, "0");
    assert_eq!(host.within(forwarding::forward_ipv4).unwrap(), [file]);
    assert_eq!(host.read(file).trim(), "1");
    assert!(host.within(forwarding::forward_ipv4).unwrap().is_empty());
    let files = ["default", "all"].map(|of| format!("/proc/sys/net/ipv6/conf/{of}/forwarding"));
    files.iter().for_each(|file| host.write(file, "0"));
    assert_eq!(host.within(forwarding::forward_ipv6).unwrap(), files);
    assert!(host.within(forwarding::forward_ipv6).unwrap().is_empty());
}

#[test]
fn what_a_container_sends_to_the_world_comes_from_the_host() {
    if !has_root("what_a_container_sends_to_the_world_comes_from_the_host") {
        return;
    }
    let town = Town::new();
    let listener = town.world.listen("0.0.0.0:80");
    assert_eq!(exchange(&town.container, "203.0.113.2:80", &listener), ip(CONTAINER));
    let _nat = town.open("a", &town.rules(&[])).unwrap();
    assert_eq!(exchange(&town.container, "203.0.113.2:80", &listener), ip(HOST));
    let sibling = town.sibling();
    let listener = sibling.listen("0.0.0.0:80");
    assert_eq!(exchange(&town.container, "172.17.0.3:80", &listener), ip(CONTAINER));
}

#[test]
fn a_published_port_is_reached_from_the_world_and_sees_who_it_is() {
    if !has_root("a_published_port_is_reached_from_the_world_and_sees_who_it_is") {
        return;
    }
    let town = Town::new();
    let ports = [
        port("0.0.0.0:8080", 80, Protocol::Tcp),
        port("203.0.113.1:8081", 81, Protocol::Tcp),
        port("172.17.0.1:8082", 82, Protocol::Tcp),
        port("[::]:8083", 83, Protocol::Tcp),
        port("0.0.0.0:5353", 53, Protocol::Udp),
    ];
    let _nat = town.open("a", &town.rules(&ports)).unwrap();
    let listener = town.container.listen("0.0.0.0:80");
    assert_eq!(exchange(&town.world, "203.0.113.1:8080", &listener), ip(WORLD));
    let listener = town.container.listen("0.0.0.0:81");
    assert_eq!(exchange(&town.world, "203.0.113.1:8081", &listener), ip(WORLD));
    let _others = [town.container.listen("0.0.0.0:82"), town.container.listen("0.0.0.0:83")];
    for address in ["203.0.113.1:8082", "203.0.113.1:8083"] {
        town.world.cannot_reach(address);
    }

    let service = town.container.within(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    let client = town.world.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for socket in [&service, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.send_to(b"where", "203.0.113.1:5353").unwrap();
    let mut heard = [0; 5];
    let (_, from) = service.recv_from(&mut heard).unwrap();
    assert_eq!(from.ip(), ip(WORLD));
    service.send_to(b"there", from).unwrap();
    let (_, from) = client.recv_from(&mut heard).unwrap();
    assert_eq!((&heard, from.to_string().as_str()), (b"there", "203.0.113.1:5353"));
}

#[test]
fn the_host_and_containers_are_left_to_the_proxy() {
    if !has_root("the_host_and_containers_are_left_to_the_proxy") {
        return;
    }
    let town = Town::new();
    let ports = [port("0.0.0.0:8080", 80, Protocol::Tcp)];
    let _nat = town.open("a", &town.rules(&ports)).unwrap();
    let _service = town.container.listen("0.0.0.0:80");
    let proxy = town.host.listen("0.0.0.0:8080");
    let (sibling, stranger) = (town.sibling(), town.stranger());
    for (client, address, seen) in [
        (&town.host, "127.0.0.1:8080", "127.0.0.1"),
        (&town.host, "203.0.113.1:8080", HOST),
        (&town.container, "172.17.0.1:8080", CONTAINER),
        (&town.container, "203.0.113.1:8080", CONTAINER),
        (&sibling, "203.0.113.1:8080", "172.17.0.3"),
        (&stranger, "172.17.0.1:8080", "172.18.0.2"),
    ] {
        assert_eq!(exchange(client, address, &proxy), ip(seen), "{address}");
    }
}

#[test]
fn what_only_passes_through_the_host_is_not_for_its_ports() {
    if !has_root("what_only_passes_through_the_host_is_not_for_its_ports") {
        return;
    }
    let town = Town::new();
    let _nat = town.open("a", &town.rules(&[port("0.0.0.0:80", 80, Protocol::Tcp)])).unwrap();
    let _service = town.container.listen("0.0.0.0:80");
    let other = bridge("uplink1", &["198.51.100.1/24"]);
    town.host.links().ensure_bridge(&other).unwrap();
    let (other, _) = Machine::connected(&town.host, &endpoint(&other, &["198.51.100.2/24"]));
    let listener = other.listen("0.0.0.0:80");
    assert_eq!(exchange(&town.world, "198.51.100.2:80", &listener), ip(WORLD));
}

#[test]
fn networks_are_apart_from_each_other_and_from_neighbours_of_the_host() {
    if !has_root("networks_are_apart_from_each_other_and_from_neighbours_of_the_host") {
        return;
    }
    let town = Town::new();
    let stranger = town.stranger();
    let listener = town.container.listen("0.0.0.0:80");
    let direct = "172.17.0.2:80";
    assert_eq!(exchange(&stranger, direct, &listener), ip("172.18.0.2"));
    assert_eq!(exchange(&town.world, direct, &listener), ip(WORLD));

    let ports = [port("0.0.0.0:8080", 80, Protocol::Tcp)];
    let _nat = town.open("a", &town.rules(&ports)).unwrap();
    stranger.cannot_reach(direct);
    town.world.cannot_reach(direct);
    assert_eq!(exchange(&town.world, "203.0.113.1:8080", &listener), ip(WORLD));
    assert_eq!(exchange(&town.host, direct, &listener), ip("172.17.0.1"));
    assert_eq!(exchange(&town.sibling(), direct, &listener), ip("172.17.0.3"));
}

#[test]
fn rules_are_replaced_when_a_container_joins_another_network() {
    if !has_root("rules_are_replaced_when_a_container_joins_another_network") {
        return;
    }
    let town = Town::new();
    let mut nat = town.open("a", &town.rules(&[port("0.0.0.0:80", 80, Protocol::Tcp)])).unwrap();
    let stranger = town.stranger();
    let listener = town.container.listen("0.0.0.0:80");
    stranger.cannot_reach("172.17.0.2:80");
    let two = endpoint(&bridge("rbuild-two", &["172.18.0.1/20"]), &["172.18.0.9/20"]);
    town.host.links().connect(town.container.netns.as_fd(), &two).unwrap();
    let mut rules = town.rules(&[port("0.0.0.0:8080", 80, Protocol::Tcp)]);
    rules.endpoints.push(two);
    nat.replace(&rules).unwrap();
    assert_eq!(exchange(&stranger, "172.18.0.9:80", &listener), ip("172.18.0.2"));
    assert_eq!(exchange(&town.world, "203.0.113.1:8080", &listener), ip(WORLD));
    town.world.cannot_reach("203.0.113.1:80");
    town.world.cannot_reach("172.18.0.9:80");
}

#[test]
fn a_client_of_udp_follows_its_service_to_another_address() {
    if !has_root("a_client_of_udp_follows_its_service_to_another_address") {
        return;
    }
    let town = Town::new();
    let ports = [port("0.0.0.0:5353", 53, Protocol::Udp)];
    let sibling = town.sibling();
    let client = town.world.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let service = |machine: &Machine| {
        let socket = machine.within(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (before, after) = (service(&town.container), service(&sibling));
    let mut heard = [0; 5];
    let nat = town.open("a", &town.rules(&ports)).unwrap();
    client.send_to(b"first", "203.0.113.1:5353").unwrap();
    before.recv_from(&mut heard).unwrap();
    drop(nat);
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    let moved =
        Rules { endpoints: vec![endpoint(&net, &["172.17.0.3/16"])], ports: ports.to_vec() };
    let _nat = town.open("a", &moved).unwrap();
    client.send_to(b"later", "203.0.113.1:5353").unwrap();
    after.recv_from(&mut heard).unwrap();
    assert_eq!(&heard, b"later");
}

#[test]
fn ipv6_is_masqueraded_and_kept_apart_too() {
    if !has_root("ipv6_is_masqueraded_and_kept_apart_too") {
        return;
    }
    let host = Machine::new();
    host.within(forwarding::forward_ipv6).unwrap();
    let uplink = bridge("uplink0", &["2001:db8::1/64"]);
    let net = bridge("rbuild0", &["172.17.0.1/16", "fd00:17::1/64"]);
    host.links().ensure_bridge(&uplink).unwrap();
    host.links().ensure_bridge(&net).unwrap();
    let (world, _) = Machine::connected(&host, &endpoint(&uplink, &["2001:db8::2/64"]));
    let place = endpoint(&net, &["172.17.0.2/16", "fd00:17::2/64"]);
    let (container, _) = Machine::connected(&host, &place);
    let (outside, inside) = (world.listen("[::]:80"), container.listen("[::]:80"));
    assert_eq!(exchange(&world, "[fd00:17::2]:80", &inside), ip("2001:db8::2"));
    let rules = Rules { endpoints: vec![place], ports: Vec::new() };
    let _nat = host.within(|| Nat::open("a", &rules)).unwrap();
    assert_eq!(exchange(&container, "[2001:db8::2]:80", &outside), ip("2001:db8::1"));
    world.cannot_reach("[fd00:17::2]:80");
}
