//! A host, the containers on it and the world outside, each a network namespace.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rbuild_network::link::{Bridge, Endpoint, Links, Port};
use rbuild_network::netns;
use rbuild_network::subnet::InterfaceAddress;

/// Long for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough where none is to come: on one machine it takes a thousandth of that.
const SILENCE: Duration = Duration::from_millis(400);

/// Whether this process may make namespaces; says so where not.
pub(crate) fn has_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root: {test}");
    }
    is_root
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn on(text: &str) -> InterfaceAddress {
    let (address, prefix) = text.split_once('/').unwrap();
    InterfaceAddress::new(ip(address), prefix.parse().unwrap()).unwrap()
}

pub(crate) fn bridge(name: &str, gateways: &[&str]) -> Bridge {
    let gateways = gateways.iter().map(|gateway| on(gateway)).collect();
    Bridge { name: name.to_owned(), gateways }
}

pub(crate) fn endpoint(bridge: &Bridge, addresses: &[&str]) -> Endpoint {
    Endpoint {
        bridge: bridge.name.clone(),
        addresses: addresses.iter().map(|address| on(address)).collect(),
        gateways: bridge.gateways.iter().map(InterfaceAddress::address).collect(),
    }
}

/// A network namespace that plays a machine.
pub(crate) struct Machine {
    pub(crate) netns: OwnedFd,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        Machine { netns: netns::create().unwrap() }
    }

    /// A machine connected to a bridge of `host`.
    pub(crate) fn connected(host: &Machine, endpoint: &Endpoint) -> (Machine, Port) {
        let machine = Machine::new();
        let port = host.links().connect(machine.netns.as_fd(), endpoint).unwrap();
        (machine, port)
    }

    pub(crate) fn links(&self) -> Links {
        Links::open_in(self.netns.as_fd()).unwrap()
    }

    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.netns.as_fd(), work).unwrap()
    }

    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        self.within(|| TcpListener::bind(address).unwrap())
    }

    fn reach(&self, address: &str, wait: Duration) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(|| TcpStream::connect_timeout(&address, wait))
    }

    pub(crate) fn cannot_reach(&self, address: &str) {
        self.reach(address, SILENCE).expect_err(address);
    }

    /// The names of the devices.
    pub(crate) fn devices(&self) -> Vec<String> {
        let text = self.read("/proc/thread-self/net/dev");
        let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        names.map(|(name, _)| name.trim().to_owned()).collect()
    }

    /// A file whose content depends on the namespace.
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
    pub(crate) fn read(&self, path: &str) -> String {
        self.within(|| std::fs::read_to_string(path).unwrap())
    }

    /// Removes a bridge once the kernel has cleared away the namespaces of its ports.
    pub(crate) fn remove_in_the_end(&self, bridge: &str) {
        let begun = Instant::now();
        while !self.links().remove_bridge(bridge).unwrap() {
            assert!(begun.elapsed() < PATIENCE, "a port of {bridge} stays");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a line of the shell; says so where it cannot.
    pub(crate) fn run(&self, line: &str) -> bool {
        // A process is started in the namespace of the thread that starts it.
        let done = self.within(|| Command::new("sh").args(["-c", line]).status().unwrap());
        if !done.success() {
            eprintln!("{done}: {line}");
        }
        done.success()
    }

    /// Changes such a file.
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
    pub(crate) fn write(&self, path: &str, content: &str) {
        self.within(|| std::fs::write(path, content).unwrap());
    }
}

/// Connects from `client` to `address`, where `listener` listens, and returns whom it sees.
pub(crate) fn exchange(client: &Machine, address: &str, listener: &TcpListener) -> IpAddr {
    let mut here = client.reach(address, PATIENCE).unwrap();
    let (mut there, from) = accept(listener, address);
    here.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    there.read_exact(&mut heard).unwrap();
    there.write_all(b"pong").unwrap();
    here.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"pong");
    from.ip()
}

/// Whoever has connected; where the connection went elsewhere, nobody comes.
fn accept(listener: &TcpListener, address: &str) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    loop {
        match listener.accept() {
            Ok(accepted) => return accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < PATIENCE, "somebody else answers at {address}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
