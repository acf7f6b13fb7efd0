//! Published ports, on loopback.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rbuild_network::publish::{
    HostPorts, PortBinding, Protocol, PublishError, Published, Serving, Target,
};
use rustix::process::{Resource, getrlimit, setrlimit};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Longer than anything here takes; it ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(specs: &[&str]) -> Result<Published, PublishError> {
    let bindings: Vec<_> =
        specs.iter().flat_map(|spec| PortBinding::parse(spec).unwrap()).collect();
    Published::open(&bindings)
}

fn serve(published: &Published) -> Serving {
    published.serve(Target::reached_from_here(LOCALHOST.into())).unwrap()
}

/// A server of TCP that gives each connection to `serve`.
fn container(serve: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// Publishes a port of `container` at any of 127.0.0.1.
fn publish(container_port: u16) -> (Published, SocketAddr) {
    let published = open(&[&format!("127.0.0.1::{container_port}")]).unwrap();
    let host = published.ports().next().unwrap().host;
    (published, host)
}

fn connect(host: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Says back all that it is told, then says good-bye.
fn echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    stream.write_all(&all).unwrap();
    stream.write_all(b" and good-bye").unwrap();
}

/// Bytes that differ, so that none can be lost or change its place unseen.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn free_port() -> u16 {
    TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn both_directions_pass_and_a_half_close_is_kept() {
    let (published, host) = publish(container(echo));
    let _serving = serve(&published);
    let mut stream = connect(host);
    stream.write_all(b"hello").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello and good-bye");
}

#[test]
fn no_byte_is_lost_however_much_comes_at_once() {
    let (published, host) = publish(container(echo));
    let _serving = serve(&published);
    let all = pattern(30_000_000);
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let all = all.clone();
            thread::spawn(move || {
                let mut stream = connect(host);
                stream.write_all(&all).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert!(answer.strip_suffix(b" and good-bye") == Some(&all[..]));
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn who_does_not_read_makes_the_sender_wait() {
    let (published, host) = publish(container(|mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        thread::sleep(Duration::from_millis(300));
        echo(stream);
    }));
    let _serving = serve(&published);
    let mut stream = connect(host);
    stream.set_nonblocking(true).unwrap();
    let all = pattern(1 << 20);
    let mut sent = 0;
    // Buffers of the kernel hold some megabytes. Without backpressure there is no end.
    let is_full = loop {
        match stream.write(&all[sent % all.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(20));
                match stream.write(&all[sent % all.len()..]) {
                    Ok(count) => sent += count,
                    Err(_) => break true,
                }
            }
            Err(error) => panic!("{error}"),
        }
        if sent > 1 << 30 {
            break false;
        }
    };
    assert!(is_full, "{sent} bytes were taken that nobody read");
    stream.set_nonblocking(false).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let expected: Vec<u8> = all.iter().copied().cycle().take(sent).skip(1).collect();
    assert!(answer.strip_suffix(b" and good-bye") == Some(&expected[..]));
}

#[test]
fn a_thousand_connections_need_one_thread() {
    const COUNT: usize = 1000;
    // Four ends of each are in this process.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|most| most.min(16 * COUNT as u64)).or(limit.current);
    setrlimit(Resource::Nofile, limit).unwrap();
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let (published, host) = publish(listener.local_addr().unwrap().port());
    let _serving = serve(&published);
    let mut pairs: Vec<_> =
        (0..COUNT).map(|_| (connect(host), listener.accept().unwrap().0)).collect();
    for round in 0..3 {
        for (at, (client, _)) in pairs.iter_mut().enumerate() {
            client.write_all(&[(at + round) as u8]).unwrap();
        }
        for (at, (client, server)) in pairs.iter_mut().enumerate() {
            let mut byte = [0; 1];
            server.read_exact(&mut byte).unwrap();
            server.write_all(&byte).unwrap();
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [(at + round) as u8]);
        }
    }
}

#[test]
fn clients_come_and_go() {
    let (published, host) = publish(container(echo));
    let _serving = serve(&published);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..60 {
                    let mut stream = connect(host);
                    stream.write_all(b"x").unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    assert_eq!(answer, "x and good-bye");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn without_a_container_the_client_is_sent_away() {
    let (published, host) = publish(free_port());
    let _serving = serve(&published);
    let error = connect(host).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_container_that_hangs_up_ends_the_connection() {
    let (published, host) = publish(container(drop));
    let _serving = serve(&published);
    let mut stream = connect(host);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn listeners_outlive_what_serves_them() {
    let (published, host) = publish(container(echo));
    let serving = serve(&published);
    let mut first = connect(host);
    first.write_all(b"one").unwrap();
    let before = Instant::now();
    drop(serving);
    println!("stopped in {:?}", before.elapsed());
    // It ends with a reset, since bytes may be left of it.
    let _ = first.read(&mut [0; 9]);
    // Between two lives of the container: who comes waits.
    let mut second = connect(host);
    second.write_all(b"two").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    let serving = serve(&published);
    let mut answer = String::new();
    second.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "two and good-bye");
    let taken = open(&[&format!("{host}:80")]);
    assert!(matches!(taken, Err(PublishError::Allocated { .. })));
    drop((published, serving));
    TcpStream::connect(host).unwrap_err();
}

#[test]
fn without_an_address_all_of_both_families_have_the_same_port() {
    let published = open(&["80", "53/udp"]).unwrap();
    let ports: Vec<_> = published.ports().collect();
    let told: Vec<_> = ports.iter().map(|port| port.host.ip().to_string()).collect();
    assert_eq!(told, ["0.0.0.0", "::", "0.0.0.0", "::"]);
    for pair in ports.chunks(2) {
        assert_eq!(pair[0].host.port(), pair[1].host.port());
        assert_ne!(pair[0].host.port(), 0);
    }
    assert_eq!([ports[0].protocol, ports[2].protocol], [Protocol::Tcp, Protocol::Udp]);
}

#[test]
fn a_container_of_ipv4_is_reached_by_ipv6() {
    let port = container(echo);
    let published = open(&[&format!("[::1]::{port}")]).unwrap();
    let _serving = serve(&published);
    let mut stream = connect(published.ports().next().unwrap().host);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, " and good-bye");
}

#[test]
fn the_first_free_port_of_a_range_is_taken() {
    let first = (30_000..60_000)
        .step_by(3)
        .find(|port| (0..3).all(|offset| TcpListener::bind((LOCALHOST, port + offset)).is_ok()))
        .unwrap();
    let spec = format!("127.0.0.1:{first}-{}:80", first + 2);
    let held: Vec<_> = (0..3).map(|_| open(&[&spec]).unwrap()).collect();
    for (offset, published) in (0..).zip(&held) {
        assert_eq!(published.ports().next().unwrap().host.port(), first + offset);
    }
    let error = open(&[&spec]).unwrap_err();
    assert!(matches!(error, PublishError::RangeAllocated { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{first}-{}/tcp", first + 2)));
}

#[test]
fn a_port_that_is_taken_is_told_with_its_holder() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // It does not know of it, but has it.
    let mut holder = Command::new("/bin/busybox")
        .args(["sleep", "60"])
        .stdin(OwnedFd::from(listener))
        .spawn()
        .unwrap();
    let error = open(&[&format!("{port}:80")]).unwrap_err();
    let expected = format!(
        "cannot publish 0.0.0.0:{port}/tcp: port is already allocated by process {} (busybox); \
         stop that, or publish at another port",
        holder.id()
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_port_that_is_published_twice_is_said_to_be() {
    let port = free_port();
    let spec = format!("127.0.0.1:{port}:80/udp");
    let error = open(&[&spec, &spec]).unwrap_err();
    assert!(error.to_string().contains("by another -p of the same container"), "{error}");
}

#[test]
fn ports_by_name_are_opened_before_any_that_is_free() {
    let binding = |host_ports| PortBinding {
        host_address: Some(LOCALHOST.into()),
        host_ports,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    let port = free_port();
    let published =
        Published::open(&[binding(HostPorts::Any), binding(HostPorts::One(port))]).unwrap();
    let hosts: Vec<_> = published.ports().map(|port| port.host.port()).collect();
    assert_eq!(hosts[1], port, "they are told in the order of the bindings");
}

#[test]
fn an_address_that_is_not_ours_is_told() {
    let error = open(&["192.0.2.1:8080:80"]).unwrap_err();
    assert!(matches!(error, PublishError::NotOurAddress { .. }), "{error}");
}

#[test]
fn clients_of_udp_get_their_own_answers() {
    let server = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        loop {
            let (count, client) = server.recv_from(&mut buffer).unwrap();
            buffer[..count].reverse();
            server.send_to(&buffer[..count], client).unwrap();
        }
    });
    let published = open(&[&format!("127.0.0.1::{port}/udp")]).unwrap();
    let host = published.ports().next().unwrap().host;
    let _serving = serve(&published);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect(host).unwrap();
            client
        })
        .collect();
    let mut buffer = [0; 65_536];
    for length in [0, 1, 1400, 60_000] {
        for (at, client) in clients.iter().enumerate() {
            let mut datagram = pattern(length + at);
            client.send(&datagram).unwrap();
            let count = client.recv(&mut buffer).unwrap();
            datagram.reverse();
            assert!(buffer[..count] == datagram[..], "of {length}");
        }
    }
}

#[test]
fn answers_of_udp_come_from_the_address_that_was_asked() {
    let server = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let published = open(&[&format!("{}/udp", server.local_addr().unwrap().port())]).unwrap();
    let _serving = serve(&published);
    let ports: Vec<_> = published.ports().map(|port| port.host.port()).collect();
    // One client, of addresses by which the kernel would answer from the first.
    let mut buffer = [0; 16];
    for asked in ["127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"] {
        let asked = SocketAddr::new(asked.parse().unwrap(), ports[0]);
        let any: IpAddr = match asked.is_ipv4() {
            true => LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        };
        let client = UdpSocket::bind((any, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"question", asked).unwrap();
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"question");
        server.send_to(b"answer", from).unwrap();
        let (count, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], from), (&b"answer"[..], asked));
    }
}

#[test]
fn a_container_of_udp_that_comes_late_is_found() {
    let server = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    let published = open(&[&format!("127.0.0.1::{}/udp", address.port())]).unwrap();
    let _serving = serve(&published);
    let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    client.connect(published.ports().next().unwrap().host).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    client.send(b"too early").unwrap();
    client.recv(&mut [0; 9]).unwrap_err();
    let server = UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    client.send(b"in time").unwrap();
    let (count, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"in time");
    server.send_to(b"welcome", from).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 7);
}

/// `cargo test -p rbuild-network --test publish -- --ignored --nocapture --test-threads 1`
#[test]
#[ignore = "prints a figure"]
fn connections() {
    const COUNT: u32 = 5000;
    let port = container(echo);
    let (published, host) = publish(port);
    let _serving = serve(&published);
    for (way, address) in [("direct", SocketAddr::from((LOCALHOST, port))), ("by the proxy", host)]
    {
        let started = Instant::now();
        for _ in 0..COUNT {
            let mut stream = connect(address);
            stream.write_all(b"x").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        println!(
            "{way}: {:.0} µs a connection",
            started.elapsed().as_secs_f64() * 1e6 / f64::from(COUNT)
        );
    }
}

/// As above.
#[test]
#[ignore = "prints a figure"]
fn throughput() {
    const TOTAL: usize = 8 << 30;
    const BLOCK: usize = 256 << 10;
    let (sender, received) = mpsc::channel();
    let listener = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut buffer, mut count) = (stream.unwrap(), vec![0; BLOCK], 0);
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                count += length;
            }
            sender.send(count).unwrap();
        }
    });
    let (published, host) = publish(port);
    let _serving = serve(&published);
    for (way, address) in [("direct", SocketAddr::from((LOCALHOST, port))), ("by the proxy", host)]
    {
        let started = Instant::now();
        let mut stream = connect(address);
        let block = vec![7; BLOCK];
        for _ in 0..TOTAL / BLOCK {
            stream.write_all(&block).unwrap();
        }
        drop(stream);
        assert_eq!(received.recv().unwrap(), TOTAL);
        let speed = TOTAL as f64 / started.elapsed().as_secs_f64() / 1e9;
        println!("{way}: {speed:.2} GB/s");
    }
}
