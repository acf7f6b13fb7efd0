//! Lowers syntax plus build arguments into the instruction DAG.
//!
//! [`lower`] folds `ENV`, `WORKDIR`, `USER` and the like into the state of a stage and adds a
//! vertex only where the filesystem changes. It touches neither disk nor network: base images
//! are asked of [`ImageConfigs`].

#![forbid(unsafe_code)]

mod dot;
pub mod graph;
mod image_configs;
mod lower;
pub mod mount;
pub mod op;
mod options;
mod outline;
mod plan;

pub use dot::dot;
pub use graph::{Graph, Vertex, VertexId};
pub use image_configs::{ImageConfigs, ImageError, ResolvedImage};
pub use lower::{check, lower, outline};
pub use options::{NoCache, Options};
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use plan::{Checked, Plan};
