//! The name server of a container, as Docker's at 127.0.0.11: it knows the names of the container's
//! networks and forwards all other questions to the host's servers.
//!
//! Its sockets were made in the container's network namespace, and that is all it needs of it:
//! the threads run in the process that watches the container, and questions to other servers leave
//! by the namespace of that process. So the container needs no way to those servers.
//!
//! One thread answers what comes by UDP and holds the table of what was forwarded (`udp`,
//! `pending`). Each connection of TCP has a thread for as long as it lasts (`tcp`); there are at
//! most a few, the others wait. All of them watch one eventfd that ends them.
//!
//! Both sides may be hostile. Messages are read by `hickory-proto`, one question each; an answer
//! counts only when it came from the server that was asked, to the port that asked, with the number
//! and the question of what was asked. What goes through is not read further, but passed on byte
//! for byte with another number: records that are not known here, and sizes and cookies of EDNS.
//!
//! As in Docker (moby, `daemon/libnetwork/resolver.go`):
//!
//! * A name that is known is never forwarded, whatever is asked of it: without an address of that
//!   kind the answer is empty. Several addresses come in random order. They may be kept for ten
//!   minutes.
//! * Up to three servers are asked in turn, four seconds each; the next one when one does not
//!   answer, or with SERVFAIL or REFUSED. Without any answer it is SERVFAIL.
//! * An answer that was cut off is passed on as such; the container then asks by TCP, and so do we.
//! * Names of one label are forwarded like others, unless somebody set `ndots`.

mod local;
mod message;
mod pending;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

/// Servers that are asked in turn.
const MOST_SERVERS: usize = 3;

/// How long one is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// What the container's networks know. Asked on several threads, at each question.
pub trait Names: Send + Sync {
    /// The addresses of a name, or nothing when it is not one of ours. Names come in lower case and
    /// without the dot at the end; compare them ignoring the case of yours.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The whole name of who has an address.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// How a resolver is to work.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers that know all other names. Those after the third are not asked.
    pub servers: Vec<SocketAddr>,
    /// Suffixes under which names of the networks are known besides, such as `mynet` for
    /// `db.mynet`.
    pub suffixes: Vec<String>,
    /// Whether addresses of unknown names of a single label are asked of the servers. Not if
    /// `ndots` was set for the container: it then asks again with a suffix.
    pub forwards_single_labels: bool,
    /// Bytes of the stack of each thread.
    pub stack: usize,
}

impl Options {
    /// Forwards to `servers`.
    #[must_use]
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, suffixes: Vec::new(), forwards_single_labels: true, stack: 128 * 1024 }
    }
}

/// A name server that runs until it is dropped.
#[derive(Debug)]
pub struct Resolver {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What all threads of a resolver use.
#[derive(Clone)]
struct Shared {
    options: Options,
    names: Arc<dyn Names>,
    /// Readable once the resolver is to end.
    stop: Arc<OwnedFd>,
}

impl Resolver {
    /// Answers at the two sockets, which are of one address of the container.
    ///
    /// # Errors
    ///
    /// When the kernel gives no more threads or descriptors.
    pub fn start(
        udp: UdpSocket,
        tcp: TcpListener,
        mut options: Options,
        names: Arc<dyn Names>,
    ) -> io::Result<Self> {
        options.servers.truncate(MOST_SERVERS);
        for suffix in &mut options.suffixes {
            *suffix = suffix.trim_matches('.').to_ascii_lowercase();
        }
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stack = options.stack;
        let server =
            udp::Server::new(udp, tcp, Shared { options, names, stop: Arc::clone(&stop) })?;
        let thread = std::thread::Builder::new()
            .name("resolver".to_owned())
            .stack_size(stack)
            .spawn(move || server.run())?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
