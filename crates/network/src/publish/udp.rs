//! Sessions of UDP: a client's address, and the socket that stands for it towards the container.
//!
//! Answers of the container to that socket go back to the client. A session ends when nothing came
//! either way for [`IDLE`]; when there are too many, the one that was silent longest ends first.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::udp_listener::Peer;

/// As long as Docker's proxy keeps one (moby, `cmd/docker-proxy/udp_proxy_linux.go`).
const IDLE: Duration = Duration::from_secs(90);

pub(super) struct Sessions {
    sessions: HashMap<u64, Session>,
    by_peer: HashMap<(usize, Peer), u64>,
    /// Every session, the one that was silent longest first.
    by_use: BTreeSet<(Instant, u64)>,
    limit: usize,
}

pub(super) struct Session {
    socket: UdpSocket,
    /// The listener that the client asked.
    pub listener: usize,
    pub peer: Peer,
    used: Instant,
}

impl Sessions {
    /// Keeps at most `limit` sessions.
    pub(super) fn new(limit: usize) -> Self {
        Self { sessions: HashMap::new(), by_peer: HashMap::new(), by_use: BTreeSet::new(), limit }
    }

    pub(super) fn of_peer(&self, listener: usize, peer: Peer) -> Option<u64> {
        self.by_peer.get(&(listener, peer)).copied()
    }

    /// Adds one. Another ends for it when there are too many.
    pub(super) fn add(&mut self, id: u64, listener: usize, peer: Peer, socket: UdpSocket) {
        if self.sessions.len() >= self.limit {
            self.end_oldest();
        }
        let used = Instant::now();
        self.by_use.insert((used, id));
        self.by_peer.insert((listener, peer), id);
        self.sessions.insert(id, Session { socket, listener, peer, used });
    }

    /// The session, which is used now.
    pub(super) fn used(&mut self, id: u64) -> Option<&Session> {
        let session = self.sessions.get_mut(&id)?;
        self.by_use.remove(&(session.used, id));
        session.used = Instant::now();
        self.by_use.insert((session.used, id));
        Some(session)
    }

    /// Ends those that were silent, and says how long until the next may be.
    pub(super) fn expire(&mut self) -> Option<Duration> {
        loop {
            let (used, _) = self.by_use.first()?;
            let left = IDLE.saturating_sub(used.elapsed());
            if !left.is_zero() {
                return Some(left);
            }
            self.end_oldest();
        }
    }

    fn end_oldest(&mut self) {
        let Some((_, id)) = self.by_use.pop_first() else { return };
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_peer.remove(&(session.listener, session.peer));
    }
}

impl Session {
    /// Sends what the client sent. What cannot be sent is lost, as datagrams are.
    pub(super) fn send(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.send(datagram)
            && error.kind() == ErrorKind::ConnectionRefused
        {
            // That was said of an earlier one: nobody listened then.
            let _ = self.socket.send(datagram);
        }
    }

    /// An answer of the container, if there is one.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::publish::udp_listener::UdpListener;

    #[test]
    fn the_one_that_was_silent_longest_ends_when_there_are_too_many() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listener = UdpListener::new(bind().into()).unwrap();
        let peers: Vec<_> = (0..3)
            .map(|_| {
                let address = listener.socket().local_addr().unwrap();
                bind().send_to(b"x", address).unwrap();
                listener.receive(&mut [0; 1]).unwrap().1
            })
            .collect();
        let mut sessions = Sessions::new(2);
        assert_eq!(sessions.expire(), None);
        sessions.add(1, 0, peers[0], bind());
        sessions.add(2, 0, peers[1], bind());
        assert!(sessions.used(1).is_some());
        sessions.add(3, 0, peers[2], bind());
        let known = peers.iter().map(|peer| sessions.of_peer(0, *peer));
        assert_eq!(known.collect::<Vec<_>>(), [Some(1), None, Some(3)]);
        assert!(sessions.used(2).is_none());
        assert_eq!(sessions.of_peer(1, peers[0]), None, "another port is another session");
        assert!(sessions.expire().is_some_and(|left| left <= IDLE));
        assert_eq!(sessions.by_use.len(), 2);
    }
}
