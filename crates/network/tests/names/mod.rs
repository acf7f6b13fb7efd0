//! A resolver on loopback, and the names that it knows.

#![allow(dead_code, reason = "each test uses a part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rbuild_network::resolver::{Names, Options, Resolver};

/// Longer than anything takes; it ends a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A few containers.
struct Containers;

impl Names for Containers {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let all = |all: &[&str]| Some(all.iter().map(|one| one.parse().unwrap()).collect());
        match name {
            "web" => all(&["10.0.0.2"]),
            "db" => all(&["10.0.0.3", "fd00::3"]),
            "many" => Some((0..100).map(|last| IpAddr::from([10, 0, 1, last])).collect()),
            _ => None,
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        match address.to_string().as_str() {
            "10.0.0.2" => Some("my_web.mynet".to_owned()),
            "fd00::3" => Some("db.mynet.".to_owned()),
            _ => None,
        }
    }
}

/// A resolver, and where it is.
pub struct Running {
    pub resolver: Resolver,
    pub address: SocketAddr,
}

pub fn start(options: Options) -> Running {
    // Both protocols at one port, which may be taken for the other.
    let (tcp, udp) = std::iter::repeat_with(|| {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind(tcp.local_addr().unwrap());
        udp.map(|udp| (tcp, udp))
    })
    .find_map(Result::ok)
    .unwrap();
    let address = udp.local_addr().unwrap();
    let resolver = Resolver::start(udp, tcp, options, Arc::new(Containers)).unwrap();
    Running { resolver, address }
}

pub fn client(address: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}
