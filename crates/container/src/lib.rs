//! Containers that outlive who started them.
//!
//! # Who does what
//!
//! There is no daemon. [`Supervisor`] starts the program once more under the name
//! [`SUPERVISOR_NAME`], hands it [`Orders`] over a socket, and that process stays as long as the container runs: it
//! mounts the root filesystem, starts the process in the sandbox, keeps its output ([`logs`]),
//! starts it again where the restart policy says so, and writes down how it ended ([`State`]) and
//! what happened ([`events`]).
//! Whoever wants something of a running container connects to the supervisor's socket
//! ([`Connection`]); what is over is read from files, with nobody's help.
//!
//! # On disk
//!
//! A container is a directory `containers/<id>/` of the store:
//!
//! ```text
//! lock          a kernel lock: held by whoever makes it, by its supervisor while it runs, and by
//!               whoever removes it
//! config.json   what it is; the engine's
//! state.json    how it is; replaced whole, by whoever holds the lock
//! socket        where the supervisor listens, while it runs
//! log, log.1 …  what it wrote
//! fs/, work/    its layer
//! volume-N/     its anonymous volumes
//! pins          the snapshots it lies on, for the garbage collection
//! ```
//!
//! # Who dies with whom
//!
//! The supervisor holds the life line of the sandbox: when it ends, however it ends, the container
//! does too, and the mounts go with it. Its lock is the truth of whether the container runs: a
//! `state.json` that says *running* while nobody holds the lock was written by a supervisor that
//! was killed, or before the machine started, and [`State::now`] says so. No process number is
//! ever believed.

#![forbid(unsafe_code)]

mod client;
mod error;
pub mod events;
mod frame;
mod health;
mod instant;
pub mod logs;
pub mod network;
mod orders;
mod parent;
mod remove;
mod start;
mod state;
mod supervisor;

pub use client::{Connection, Held, Input, Message};
pub use error::ContainerError;
pub use health::{Health, HealthCheck, HealthChecks, HealthStatus};
pub use orders::{Allowance, Bind, Orders, Restart, Stop};
pub use parent::parent;
pub use remove::remove;
pub use start::{SUPERVISOR_NAME, Supervisor};
pub use state::{Ended, State, Status, is_held};
pub use supervisor::supervisor_main;
