//! Walks the DAG in parallel: key, look up, execute, record.
//!
//! [`solve`] takes a graph and a [`World`] and brings its targets about. How it goes about it is
//! told in `schedule.rs`; what makes two steps the same in `key.rs`; what each op does in the
//! file of its name below `steps/`.

#![forbid(unsafe_code)]

pub mod copy;
mod device;
mod elsewhere;
mod enter;
mod error;
mod key;
mod layer;
mod network;
mod same;
mod schedule;
mod secrets;
mod ssh_agent;
mod steps;
mod why;
mod world;

pub use device::{DeviceEdits, Devices, HostMount};
pub use elsewhere::{EarlierStep, Exports, FinishedStep, Imports, RemoteResult};
pub use enter::{Entered, Entry, Held, Recorded};
pub use error::{LOG_TAIL, SolveError, StepError, StepFailure};
pub use layer::Layer;
pub use network::{StepNetwork, StepNetworks};
pub use same::Cutoff;
pub use schedule::{Policy, Solution, Solved, solve, this_program};
pub use secrets::{SecretKey, Secrets};
pub use ssh_agent::{InvalidSshKey, SshAgents};
pub use steps::{nothing, stubs};
pub use world::{Context, FinishedLayers, Images, RememberedDigests, Remotes, World};
