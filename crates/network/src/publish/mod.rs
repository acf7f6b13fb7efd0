//! Published ports: `-p 8080:80` makes the container's port 80 reachable at the host's port 8080,
//! by a proxy in the process that watches the container.
//!
//! Three steps, which end at different times:
//!
//! 1. [`PortBinding::parse`] reads what the user wrote. It is pure.
//! 2. [`Published::open`] listens, before the container is started: that a port is taken is found
//!    first, and the ports are ours from then on. Nobody is served yet; the kernel keeps those who
//!    connect waiting.
//! 3. [`Published::serve`] passes on what comes, from when the container has an address until the
//!    guard is dropped. A container that is started again keeps its listeners.
//!
//! One thread with one epoll does all of it. It holds no byte of a TCP connection: what one side
//! sent stays in its receive buffer until the other has taken it (`tcp`), which is what makes
//! backpressure and thousands of idle connections cheap. UDP has no connections, so each client
//! has a session that ends when it was silent for a while (`udp`).
//!
//! Everything here is a socket or a thread of this process: when it is killed, nothing stays.

mod error;
mod holder;
mod listen;
mod port_set;
mod proxy;
mod spec;
mod target;
mod tcp;
mod udp;
mod udp_listener;

pub use error::PublishError;
pub use holder::Holder;
pub use listen::{Published, PublishedPort};
pub use port_set::HostPorts;
pub use proxy::Serving;
pub use spec::{PortBinding, PortSpecError, Protocol};
pub use target::{HostSockets, Sockets, Target};
