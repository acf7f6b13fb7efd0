//! What a process serves a container with: published ports and names, across namespaces.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use rbuild_network::netns;
use rbuild_network::publish::{PortBinding, Protocol, Published, Serving, Sockets, Target};
use rbuild_network::resolver::{Names, Options, Resolver};

use crate::scene::{Machine, PATIENCE, bridge, endpoint, has_root, ip};

/// Publishes and serves on `host`.
fn publish(host: &Machine, specs: &[&str], target: Target) -> (Published, Serving) {
    let bindings: Vec<_> =
        specs.iter().flat_map(|spec| PortBinding::parse(spec).unwrap()).collect();
    host.within(|| {
        let published = Published::open(&bindings).unwrap();
        let serving = published.serve(target).unwrap();
        (published, serving)
    })
}

/// Says who asked, once for each connection.
fn who_is_it(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let asks = stream.peer_addr().unwrap().ip();
            stream.write_all(asks.to_string().as_bytes()).unwrap();
        }
    });
}

fn ask(client: &Machine, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    client.within(|| {
        let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    if !has_root("published_ports_are_reached_from_everywhere") {
        return;
    }
    let host = Machine::new();
    let net = bridge("rbuild0", &["172.17.0.1/16"]);
    let other = bridge("rbuild1", &["10.9.0.1/24", "fd00:9::1/64"]);
    host.links().ensure_bridge(&net).unwrap();
    host.links().ensure_bridge(&other).unwrap();
    let (container, _) = Machine::connected(&host, &endpoint(&net, &["172.17.0.2/16"]));
    let (world, _) = Machine::connected(&host, &endpoint(&other, &["10.9.0.2/24", "fd00:9::2/64"]));
    who_is_it(container.listen("0.0.0.0:80"));
    let echo = container.within(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 64];
        loop {
            let (count, from) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..count], from).unwrap();
        }
    });
    let target = Target::reached_from_here(ip("172.17.0.2"));
    let _serving = publish(&host, &["8080:80", "5353:53/udp"], target);
    for (client, address) in [
        (&host, "127.0.0.1:8080"),
        (&host, "[::1]:8080"),
        (&world, "10.9.0.1:8080"),
        (&world, "[fd00:9::1]:8080"),
        // Its own port, and by another address than its bridge's.
        (&container, "172.17.0.1:8080"),
        (&container, "10.9.0.1:8080"),
    ] {
        assert_eq!(ask(client, address), "172.17.0.1", "{address}: the proxy asks");
    }
    for (client, address) in [
        (&host, "127.0.0.1:5353"),
        (&world, "10.9.0.1:5353"),
        (&world, "172.17.0.1:5353"),
        (&world, "[fd00:9::1]:5353"),
        (&container, "10.9.0.1:5353"),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = client.within(|| UdpSocket::bind(any).unwrap());
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // Whoever is connected takes no answer from elsewhere.
        client.connect(address).unwrap();
        client.send(b"hello").unwrap();
        assert_eq!(client.recv(&mut [0; 64]).unwrap(), 5, "{address}");
    }
}

/// Sockets of a namespace.
struct Inside(OwnedFd);

impl Sockets for Inside {
    fn socket(&self, address: &SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
        let host = rbuild_network::publish::HostSockets;
        netns::within(self.0.as_fd(), || host.socket(address, protocol))
            .map_err(io::Error::other)?
    }
}

#[test]
fn a_container_without_a_bridge_publishes_by_sockets_of_its_own() {
    if !has_root("a_container_without_a_bridge_publishes_by_sockets_of_its_own") {
        return;
    }
    let (host, container) = (Machine::new(), Machine::new());
    who_is_it(container.listen("127.0.0.1:80"));
    let sockets = Arc::new(Inside(container.netns.try_clone().unwrap()));
    let target = Target { address: ip("127.0.0.1"), sockets };
    let _serving = publish(&host, &["8080:80"], target);
    assert_eq!(ask(&host, "127.0.0.1:8080"), "127.0.0.1");
    container.cannot_reach("127.0.0.1:8080");
}

/// Knows nobody but `db`.
struct Db;

impl Names for Db {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        (name == "db").then(|| vec![ip("172.17.0.3")])
    }

    fn name_of(&self, _: IpAddr) -> Option<String> {
        None
    }
}

#[test]
fn a_container_without_any_network_resolves_names_by_the_host() {
    if !has_root("a_container_without_any_network_resolves_names_by_the_host") {
        return;
    }
    const RESOLVER: &str = "127.0.0.11:53";
    let (host, container) = (Machine::new(), Machine::new());
    // On the host's loopback, as the server of systemd.
    let server = host.within(|| UdpSocket::bind("127.0.0.53:53").unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (count, from) = server.recv_from(&mut buffer).unwrap();
            // An answer without answers.
            buffer[2] |= 0x80;
            server.send_to(&buffer[..count], from).unwrap();
        }
    });
    let (udp, tcp) = container
        .within(|| (UdpSocket::bind(RESOLVER).unwrap(), TcpListener::bind(RESOLVER).unwrap()));
    let options = Options::new(vec!["127.0.0.53:53".parse().unwrap()]);
    let _resolver = host.within(|| Resolver::start(udp, tcp, options, Arc::new(Db)).unwrap());
    let client = container.within(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.connect(RESOLVER).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 512];
    for (name, answers) in [("db.", 1), ("example.com.", 0)] {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        client.send(&message.to_vec().unwrap()).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..count]).unwrap();
        assert_eq!((answer.metadata.id, answer.answers.len()), (message.metadata.id, answers));
    }
}
