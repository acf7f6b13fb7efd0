//! Lowers syntax plus build arguments into the instruction DAG.

#![forbid(unsafe_code)]

pub mod graph;
pub mod mount;
pub mod op;
mod options;

pub use graph::{Graph, Vertex, VertexId};
pub use options::{NoCache, Options};
