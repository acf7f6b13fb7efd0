//! The thread that passes on what comes to the published ports.
//!
//! It alone touches connections and sessions. Whoever holds the [`Serving`] wakes it by an eventfd
//! to end it. Listeners and sessions of UDP are watched level-triggered, connections edge-triggered
//! ([`super::tcp`]), and those that have more to do than fits into a turn wait in `ready`.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::listen::{Listener, ListeningSocket};
use super::spec::Protocol;
use super::target::Target;
use super::tcp::{Connection, End, Turn, refuse};
use super::udp::Sessions;
use super::udp_listener::UdpListener;

/// Enough for this thread, which calls nothing deep.
const STACK: usize = 128 * 1024;

/// What is passed on at once. A datagram fits in.
const BUFFER: usize = 256 * 1024;

/// What the kernel tells at once.
const EVENTS: usize = 256;

/// Connections or datagrams of one socket before others have their turn.
const BATCH: u32 = 64;

/// Without descriptors for another connection, when to look again.
const PAUSE: Duration = Duration::from_millis(100);

/// Sessions of UDP, where there are descriptors for so many.
const MOST_SESSIONS: usize = 4096;

/// Published ports that are served, until it is dropped.
#[derive(Debug)]
pub struct Serving {
    /// What ends the thread, and the thread. Most containers publish nothing and have none.
    thread: Option<(OwnedFd, JoinHandle<()>)>,
}

impl Serving {
    pub(super) fn start(listeners: Arc<[Listener]>, target: Target) -> io::Result<Self> {
        match listeners.is_empty() {
            true => Ok(Self { thread: None }),
            false => Self::of(|stop| Proxy::new(listeners, target, stop)),
        }
    }

    fn of(proxy: impl FnOnce(&OwnedFd) -> io::Result<Proxy>) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let proxy = proxy(&stop)?;
        let thread = std::thread::Builder::new()
            .name("published".to_owned())
            .stack_size(STACK)
            .spawn(move || proxy.run())?;
        Ok(Self { thread: Some((stop, thread)) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            // Cannot fail: the counter is far from full.
            let _ = rustix::io::write(&stop, &1_u64.to_ne_bytes());
            let _ = thread.join();
        }
    }
}

struct Proxy {
    epoll: OwnedFd,
    listeners: Arc<[Listener]>,
    target: Target,
    buffer: Vec<u8>,
    connections: HashMap<u64, Connection>,
    most_connections: usize,
    /// Connections that have more to do.
    ready: VecDeque<u64>,
    sessions: Sessions,
    /// Of connections and sessions. Never used twice, so that late news find nobody.
    next_id: u64,
    /// Set while nobody is accepted for want of descriptors.
    paused: Option<Instant>,
}

/// Whom the kernel tells of.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    Stop,
    Listener(usize),
    Connection(u64, End),
    Session(u64),
}

impl Token {
    fn encode(&self) -> EventData {
        let (kind, id) = match self {
            Self::Stop => (0, 0),
            Self::Listener(at) => (1, *at as u64),
            Self::Connection(id, End::Client) => (2, *id),
            Self::Connection(id, End::Container) => (3, *id),
            Self::Session(id) => (4, *id),
        };
        EventData::new_u64(id << 3 | kind)
    }

    fn decode(data: EventData) -> Self {
        let id = data.u64() >> 3;
        match data.u64() & 7 {
            1 => Self::Listener(usize::try_from(id).unwrap_or(usize::MAX)),
            2 => Self::Connection(id, End::Client),
            3 => Self::Connection(id, End::Container),
            4 => Self::Session(id),
            _ => Self::Stop,
        }
    }
}

impl Proxy {
    fn new(listeners: Arc<[Listener]>, target: Target, stop: &OwnedFd) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, stop, Token::Stop.encode(), EventFlags::IN)?;
        for (at, listener) in listeners.iter().enumerate() {
            epoll::add(&epoll, listener, Token::Listener(at).encode(), EventFlags::IN)?;
        }
        // A connection has two: half of all may be theirs, a quarter those of sessions, and the
        // rest is for everything else that this process does.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let quarter = usize::try_from(descriptors / 4).unwrap_or(usize::MAX).max(1);
        Ok(Self {
            epoll,
            listeners,
            target,
            buffer: vec![0; BUFFER],
            connections: HashMap::new(),
            most_connections: quarter,
            ready: VecDeque::new(),
            sessions: Sessions::new(quarter.min(MOST_SESSIONS)),
            next_id: 0,
            paused: None,
        })
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout().and_then(|time| Timespec::try_from(time).ok());
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Not for lack of anything: the descriptor is no epoll.
                Err(_) => return,
            }
            for event in events.drain(..) {
                match Token::decode(event.data) {
                    Token::Stop => return,
                    Token::Listener(at) => self.receive(at),
                    Token::Connection(id, end) => self.told(id, end, event.flags),
                    Token::Session(id) => self.answer(id),
                }
            }
            for _ in 0..self.ready.len() {
                let Some(id) = self.ready.pop_front() else { break };
                self.turn(id);
            }
        }
    }

    /// How long there is nothing to do, as far as is known.
    fn timeout(&mut self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let expiry = self.sessions.expire();
        let Some(paused) = self.paused else { return expiry };
        let left = PAUSE.saturating_sub(paused.elapsed());
        if left.is_zero() {
            self.resume();
            return expiry;
        }
        Some(expiry.map_or(left, |expiry| expiry.min(left)))
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Something came to a listener.
    fn receive(&mut self, at: usize) {
        let listeners = Arc::clone(&self.listeners);
        let Some(listener) = listeners.get(at) else { return };
        let port = listener.port.container_port;
        match &listener.socket {
            ListeningSocket::Tcp(socket) => self.accept(socket, port),
            ListeningSocket::Udp(socket) => self.pass_datagrams(at, socket, port),
        }
    }

    fn accept(&mut self, listener: &TcpListener, port: u16) {
        for _ in 0..BATCH {
            if self.connections.len() >= self.most_connections {
                return self.pause();
            }
            match listener.accept() {
                Ok((client, _)) => self.connect(client, port),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if lacks_descriptors(&error) => return self.pause(),
                // Said of the one connection that was about to be accepted.
                Err(_) => {}
            }
        }
    }

    fn connect(&mut self, client: TcpStream, port: u16) {
        if client.set_nonblocking(true).is_err() {
            return;
        }
        let Ok(container) = self.target.connect(port, Protocol::Tcp) else {
            return refuse(&client);
        };
        let id = self.new_id();
        let connection = Connection::new(client, container.into());
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for end in [End::Client, End::Container] {
            let token = Token::Connection(id, end).encode();
            if epoll::add(&self.epoll, connection.stream(end), token, flags).is_err() {
                return refuse(connection.stream(End::Client));
            }
        }
        self.connections.insert(id, connection);
    }

    fn told(&mut self, id: u64, end: End, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // Errors and ends are found by reading and writing.
        let ended = EventFlags::ERR | EventFlags::HUP;
        let readable = flags.intersects(EventFlags::IN | EventFlags::RDHUP | ended);
        let writable = flags.intersects(EventFlags::OUT | ended);
        connection.told(end, readable, writable);
        self.turn(id);
    }

    fn turn(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.turn(&mut self.buffer) {
            Turn::Waits => {}
            Turn::GoesOn => self.ready.push_back(id),
            Turn::Over => {
                self.connections.remove(&id);
                self.resume();
            }
        }
    }

    /// Passes on what clients of UDP sent.
    fn pass_datagrams(&mut self, at: usize, socket: &UdpListener, port: u16) {
        for _ in 0..BATCH {
            let (count, peer) = match socket.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Said of an answer that did not reach its client.
                Err(_) => continue,
            };
            let id = match self.sessions.of_peer(at, peer) {
                Some(id) => id,
                None => {
                    let id = self.new_id();
                    let connected = self.target.connect(port, Protocol::Udp).map(UdpSocket::from);
                    let Ok(session) = connected else { continue };
                    let token = Token::Session(id).encode();
                    if epoll::add(&self.epoll, &session, token, EventFlags::IN).is_err() {
                        continue;
                    }
                    self.sessions.add(id, at, peer, session);
                    id
                }
            };
            if let Some(session) = self.sessions.used(id) {
                session.send(&self.buffer[..count]);
            }
        }
    }

    /// Passes on what the container answered.
    fn answer(&mut self, id: u64) {
        let Some(session) = self.sessions.used(id) else { return };
        let listener = self.listeners.get(session.listener).map(|listener| &listener.socket);
        let Some(ListeningSocket::Udp(socket)) = listener else { return };
        for _ in 0..BATCH {
            match session.receive(&mut self.buffer) {
                // What the client's side does not take is lost, as datagrams are.
                Ok(count) => drop(socket.send(&self.buffer[..count], &session.peer)),
                // Nobody listened when the last was sent; the client may try again.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    /// Accepts nobody until somebody is gone, or for a while: who comes waits in the backlog.
    fn pause(&mut self) {
        self.paused = Some(Instant::now());
        self.watch_tcp(EventFlags::empty());
    }

    fn resume(&mut self) {
        if self.paused.take().is_some() {
            self.watch_tcp(EventFlags::IN);
        }
    }

    fn watch_tcp(&self, flags: EventFlags) {
        for (at, listener) in self.listeners.iter().enumerate() {
            if listener.port.protocol == Protocol::Tcp {
                let _ = epoll::modify(&self.epoll, listener, Token::Listener(at).encode(), flags);
            }
        }
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::publish::{PortBinding, Published};

    #[test]
    fn tokens_are_told_apart() {
        for token in [
            Token::Stop,
            Token::Listener(9),
            Token::Connection(1 << 40, End::Client),
            Token::Connection(1 << 40, End::Container),
            Token::Session(7),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }

    #[test]
    fn clients_beyond_the_limit_wait_until_one_is_gone() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let streams = server.incoming().map(|stream| stream.unwrap());
            streams.fold(Vec::new(), |mut all, mut stream| {
                io::Write::write_all(&mut stream, b"x").unwrap();
                all.push(stream);
                all
            })
        });
        let binding = PortBinding::parse(&format!("127.0.0.1::{port}")).unwrap();
        let published = Published::open(&binding).unwrap();
        let host = published.ports().next().unwrap().host;
        let target = Target::reached_from_here(Ipv4Addr::LOCALHOST.into());
        let _serving = Serving::of(|stop| {
            let mut proxy = Proxy::new(published.listeners(), target, stop)?;
            proxy.most_connections = 2;
            Ok(proxy)
        })
        .unwrap();
        let is_served = |stream: &mut TcpStream, patience| {
            stream.set_read_timeout(Some(patience)).unwrap();
            stream.read(&mut [0]).is_ok()
        };
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(host).unwrap()).collect();
        let patience = Duration::from_secs(20);
        assert!(is_served(&mut clients[0], patience) && is_served(&mut clients[1], patience));
        assert!(!is_served(&mut clients[2], Duration::from_millis(250)));
        // The server keeps its end open; a reset ends both.
        super::refuse(&clients[0]);
        clients.remove(0);
        assert!(is_served(&mut clients[1], patience));
    }
}
