//! Questions that were forwarded by UDP and not answered yet.
//!
//! Each waits with a random number at a socket that is connected to its server, so that the kernel
//! drops what comes from elsewhere. As a rule that socket, and so its random port, is the
//! question's own; when there are many, some share one.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::PATIENCE;
use super::message::{Question, id, is_failure, random, set_id};

/// Questions that wait at once: Docker's number.
const MOST: usize = 1024;

/// Bytes of the largest question that is kept. What datagrams are recommended to stay below; with
/// that many of them, the table stays below 2 MiB.
pub(super) const LARGEST: usize = 1232;

/// Sockets towards one server.
const MOST_SOCKETS: usize = 32;

pub(super) struct Pending {
    waiting: HashMap<Key, Waiting>,
    sockets: HashMap<u64, Socket>,
    next_socket: u64,
    servers: Vec<SocketAddr>,
    /// Where the sockets are watched, by [`FIRST_TOKEN`] and their numbers.
    epoll: Arc<OwnedFd>,
}

/// What epoll tells of the first socket; the others count on.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;

/// The socket, and the number that the server was told.
type Key = (u64, u16);

struct Socket {
    socket: UdpSocket,
    server: usize,
    /// How many wait here.
    waiting: usize,
}

/// A question that waits for an answer.
pub(super) struct Waiting {
    client: SocketAddr,
    question: Question,
    /// The client's message, with the number of the question to the server.
    message: Vec<u8>,
    /// Which server is asked.
    server: usize,
    until: Instant,
}

/// What a client is to be told.
pub(super) struct Reply {
    pub client: SocketAddr,
    pub message: Vec<u8>,
}

impl Pending {
    pub(super) fn new(servers: Vec<SocketAddr>, epoll: Arc<OwnedFd>) -> Self {
        let (waiting, sockets) = (HashMap::new(), HashMap::new());
        Self { waiting, sockets, next_socket: 0, servers, epoll }
    }

    /// Forwards a message. Who cannot be helped is told at once.
    pub(super) fn forward(
        &mut self,
        client: SocketAddr,
        question: Question,
        message: &[u8],
    ) -> Option<Reply> {
        if self.waiting.len() >= MOST || message.len() > LARGEST {
            let message = question.failure(ResponseCode::Refused);
            return Some(Reply { client, message });
        }
        let message = message.to_vec();
        self.ask(Waiting { client, question, message, server: 0, until: Instant::now() })
    }

    /// Asks the server whose turn it is, or the first after it that can be asked.
    fn ask(&mut self, mut waiting: Waiting) -> Option<Reply> {
        while waiting.server < self.servers.len() {
            if let Some(key) = self.send(&mut waiting) {
                waiting.until = Instant::now() + PATIENCE;
                self.waiting.insert(key, waiting);
                return None;
            }
            waiting.server += 1;
        }
        let message = waiting.question.failure(ResponseCode::ServFail);
        Some(Reply { client: waiting.client, message })
    }

    fn send(&mut self, waiting: &mut Waiting) -> Option<Key> {
        let at = self.socket(waiting.server)?;
        let key = loop {
            // At most MOST of 65536 are in use.
            let key = (at, random().ok()?);
            if !self.waiting.contains_key(&key) {
                break key;
            }
        };
        set_id(&mut waiting.message, key.1);
        let socket = self.sockets.get_mut(&at)?;
        // Also when a shared socket tells of an earlier question that nobody listens there.
        if socket.socket.send(&waiting.message).is_err() {
            self.close_if_idle(at);
            return None;
        }
        socket.waiting += 1;
        Some(key)
    }

    /// A socket towards a server: a new one, or one of those that are when there are enough.
    fn socket(&mut self, server: usize) -> Option<u64> {
        let of_server: Vec<u64> =
            self.sockets.iter().filter(|(_, s)| s.server == server).map(|(at, _)| *at).collect();
        if of_server.len() < MOST_SOCKETS {
            let at = self.next_socket;
            let made = connected(self.servers[server]).and_then(|socket| {
                let token = EventData::new_u64(FIRST_TOKEN + at);
                epoll::add(&self.epoll, &socket, token, EventFlags::IN)?;
                Ok(socket)
            });
            if let Ok(socket) = made {
                self.next_socket += 1;
                self.sockets.insert(at, Socket { socket, server, waiting: 0 });
                return Some(at);
            }
        }
        // With few descriptors left, share as well.
        let number = usize::from(random().ok()?);
        of_server.get(number.checked_rem(of_server.len())?).copied()
    }

    /// Takes what a server said, if it says anything that was asked.
    pub(super) fn receive(&mut self, at: u64, buffer: &mut [u8]) -> Vec<Reply> {
        let Some(socket) = self.sockets.get(&at) else { return Vec::new() };
        match socket.socket.recv(buffer) {
            Ok(count) => {
                let answer = &mut buffer[..count];
                let Some(key) = id(answer).map(|id| (at, id)) else { return Vec::new() };
                let Some(waiting) = self.waiting.get(&key) else { return Vec::new() };
                let Some(code) = waiting.question.code_of(answer) else { return Vec::new() };
                let Some(waiting) = self.take(key) else { return Vec::new() };
                if is_failure(code) {
                    return self.ask_next(waiting).into_iter().collect();
                }
                set_id(answer, waiting.question.id);
                vec![Reply { client: waiting.client, message: answer.to_vec() }]
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Vec::new(),
            // Nobody listens there, or there is no way: that goes for all who wait here.
            Err(_) => self.give_up(|key, _| key.0 == at),
        }
    }

    /// Lets those who waited long enough ask the next server.
    pub(super) fn expire(&mut self) -> Vec<Reply> {
        let now = Instant::now();
        self.give_up(|_, waiting| waiting.until <= now)
    }

    /// How long until somebody has waited long enough.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let first = self.waiting.values().map(|waiting| waiting.until).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    fn give_up(&mut self, which: impl Fn(&Key, &Waiting) -> bool) -> Vec<Reply> {
        let given: Vec<Key> =
            self.waiting.iter().filter(|(key, w)| which(key, w)).map(|(key, _)| *key).collect();
        let given: Vec<Waiting> = given.into_iter().filter_map(|key| self.take(key)).collect();
        given.into_iter().filter_map(|waiting| self.ask_next(waiting)).collect()
    }

    fn ask_next(&mut self, mut waiting: Waiting) -> Option<Reply> {
        waiting.server += 1;
        self.ask(waiting)
    }

    fn take(&mut self, key: Key) -> Option<Waiting> {
        let waiting = self.waiting.remove(&key)?;
        if let Some(socket) = self.sockets.get_mut(&key.0) {
            socket.waiting -= 1;
        }
        self.close_if_idle(key.0);
        Some(waiting)
    }

    fn close_if_idle(&mut self, at: u64) {
        if self.sockets.get(&at).is_some_and(|socket| socket.waiting == 0) {
            self.sockets.remove(&at);
        }
    }
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}
