//! The thread that answers by UDP, forwards, and starts a thread for each connection of TCP.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::message::{Question, Request};
use super::pending::{FIRST_TOKEN, Pending, Reply};
use super::{Shared, local, tcp};

/// What epoll tells of our own descriptors.
const STOP: u64 = 0;
const UDP: u64 = 1;
const TCP: u64 = 2;

/// Messages of one socket before others have their turn.
const BATCH: u32 = 64;

/// Connections of TCP at once. Others wait to be accepted.
const MOST_CONNECTIONS: usize = 16;

/// How long they wait at least.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Server {
    epoll: Arc<OwnedFd>,
    udp: UdpSocket,
    tcp: TcpListener,
    shared: Shared,
    pending: Pending,
    buffer: Vec<u8>,
    /// Set while no connection is accepted.
    paused: Option<Instant>,
}

impl Server {
    pub(super) fn new(udp: UdpSocket, tcp: TcpListener, shared: Shared) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        epoll::add(&epoll, &shared.stop, EventData::new_u64(STOP), EventFlags::IN)?;
        epoll::add(&epoll, &udp, EventData::new_u64(UDP), EventFlags::IN)?;
        epoll::add(&epoll, &tcp, EventData::new_u64(TCP), EventFlags::IN)?;
        let pending = Pending::new(shared.options.servers.clone(), Arc::clone(&epoll));
        // The largest datagram fits in.
        let buffer = vec![0; 1 << 16];
        Ok(Self { epoll, udp, tcp, shared, pending, buffer, paused: None })
    }

    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        let connections = AtomicUsize::new(0);
        // Ends when the connections have ended, too.
        std::thread::scope(|scope| {
            let mut events = Vec::with_capacity(64);
            loop {
                let timeout = self.timeout().and_then(|time| Timespec::try_from(time).ok());
                match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                    Ok(_) | Err(Errno::INTR) => {}
                    // Not for lack of anything: the descriptor is no epoll.
                    Err(_) => return,
                }
                for event in events.drain(..) {
                    match event.data.u64() {
                        STOP => return,
                        UDP => self.receive(),
                        TCP => self.accept(scope, &shared, &connections),
                        token => {
                            let at = token.wrapping_sub(FIRST_TOKEN);
                            let replies = self.pending.receive(at, &mut self.buffer);
                            self.reply(replies);
                        }
                    }
                }
                let replies = self.pending.expire();
                self.reply(replies);
            }
        });
    }

    /// How long there is nothing to do, as far as is known.
    fn timeout(&mut self) -> Option<Duration> {
        let expiry = self.pending.next_expiry();
        let Some(paused) = self.paused else { return expiry };
        let left = PAUSE.saturating_sub(paused.elapsed());
        if left.is_zero() {
            self.paused = None;
            self.watch_tcp(EventFlags::IN);
            return expiry;
        }
        Some(expiry.map_or(left, |expiry| expiry.min(left)))
    }

    /// Takes what the container asks.
    fn receive(&mut self) {
        for _ in 0..BATCH {
            let (count, client) = match self.udp.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Said of an answer that did not reach its client.
                Err(_) => continue,
            };
            let message = &self.buffer[..count];
            let reply = match Question::read(message) {
                Request::Ignored => None,
                Request::Refused(message) => Some(Reply { client, message }),
                Request::Query(question) => {
                    let Shared { options, names, .. } = &self.shared;
                    match local::answer(&question, names.as_ref(), options, question.most) {
                        Some(message) => Some(Reply { client, message }),
                        None => self.pending.forward(client, *question, message),
                    }
                }
            };
            self.reply(reply);
        }
    }

    fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        for reply in replies {
            // What the container does not take is lost, as datagrams are.
            let _ = self.udp.send_to(&reply.message, reply.client);
        }
    }

    fn accept<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        shared: &'scope Shared,
        connections: &'scope AtomicUsize,
    ) {
        let accepted = match connections.load(Ordering::Relaxed) {
            MOST_CONNECTIONS.. => None,
            _ => match self.tcp.accept() {
                Ok((client, _)) => Some(client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => None,
            },
        };
        // Without a descriptor or a thread, they wait or are hung up on.
        let Some(client) = accepted else {
            self.paused = Some(Instant::now());
            return self.watch_tcp(EventFlags::empty());
        };
        connections.fetch_add(1, Ordering::Relaxed);
        let serve = move || {
            tcp::serve(client, shared);
            connections.fetch_sub(1, Ordering::Relaxed);
        };
        let thread = Builder::new().name("resolver tcp".to_owned());
        let stack = shared.options.stack;
        if thread.stack_size(stack).spawn_scoped(scope, serve).is_err() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn watch_tcp(&self, flags: EventFlags) {
        let _ = epoll::modify(&self.epoll, &self.tcp, EventData::new_u64(TCP), flags);
    }
}
