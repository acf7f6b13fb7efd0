//! Lowers syntax plus build arguments into the instruction DAG.
//!
//! [`lower`] folds `ENV`, `WORKDIR`, `USER` and the like into the state of a stage and adds a
//! vertex only where the filesystem changes. It touches neither disk nor network: base images
//! are asked of [`ImageConfigs`].

#![forbid(unsafe_code)]

mod dot;
mod duration;
mod entitlement;
mod extra_host;
mod git_address;
pub mod git_ref;
pub mod graph;
mod image_configs;
mod lower;
pub mod mount;
mod named_context;
pub mod op;
mod options;
mod outline;
mod plan;
mod remote;
mod size;
mod ulimit;
mod url;

pub use dot::dot;
pub use duration::duration;
pub use entitlement::{Entitlement, UnknownEntitlement};
pub use extra_host::{ExtraHost, HOST_GATEWAY, InvalidExtraHost};
pub use git_address::{GitAddress, GitWay};
pub use graph::{Graph, Vertex, VertexId};
pub use image_configs::{ImageConfigs, ImageError, ResolvedImage};
pub use lower::{EpochSource, SOURCE_DATE_EPOCH, check, epoch_source, lower, outline};
pub use named_context::{ContextNameError, NamedContext, NamedContexts};
pub use options::{NoCache, Options};
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use plan::{AskedDevice, Checked, Plan, Target};
pub use remote::{CONTEXT_FILE, ContextOptions, RemoteContext};
pub use size::ram_in_bytes;
pub use ulimit::{InvalidUlimit, Ulimit};
pub use url::{without_passwords, without_users};
