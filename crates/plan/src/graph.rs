//! The instruction DAG: vertices over petgraph, equal vertices merged.

use std::collections::HashMap;
use std::time::Duration;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use rbuild_types::Span;

use crate::op::Op;

/// Names a vertex of one [`Graph`]; inputs always have smaller numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub usize);

/// One unit of work and what it reads.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// The vertices it needs, in the order that the op's input numbers mean.
    pub inputs: Vec<VertexId>,
    /// `[stage i/n] TEXT`, of the first instruction that made this vertex.
    pub name: String,
    /// The instruction in the Dockerfile; for a trigger of a base image, the `FROM` that fired it.
    pub span: Option<Span>,
    /// Lower-cased name of its stage, or `stage-N`.
    pub stage: String,
    /// The names of the `ARG`s among the variables of a process.
    pub args: Vec<String>,
    /// How old a result of the cache may be, if its instruction says so.
    pub ttl: Option<Duration>,
    /// Whether the cache may not be read for it (`--no-cache`, `--no-cache-filter`).
    pub no_cache: bool,
}

/// The instruction DAG of one build.
#[derive(Debug, Default)]
pub struct Graph {
    inner: DiGraph<Vertex, usize>,
    seen: HashMap<(Op, Vec<VertexId>), VertexId>,
}

impl Graph {
    /// Adds a vertex, or finds the one that already does the same with the same inputs.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        let identity = (vertex.op.clone(), vertex.inputs.clone());
        if let Some(id) = self.seen.get(&identity) {
            // Of two equal steps one may have been asked to run afresh.
            let equal = &mut self.inner[NodeIndex::new(id.0)];
            equal.no_cache |= vertex.no_cache;
            equal.ttl = equal.ttl.into_iter().chain(vertex.ttl).min();
            return *id;
        }
        let inputs = vertex.inputs.clone();
        let node = self.inner.add_node(vertex);
        for (position, input) in inputs.iter().enumerate() {
            self.inner.add_edge(NodeIndex::new(input.0), node, position);
        }
        let id = VertexId(node.index());
        self.seen.insert(identity, id);
        id
    }

    /// The vertex `id` names.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.inner[NodeIndex::new(id.0)]
    }

    /// All vertices, inputs before users.
    pub fn vertices(&self) -> impl Iterator<Item = (VertexId, &Vertex)> {
        self.inner.node_indices().map(|node| (VertexId(node.index()), &self.inner[node]))
    }

    /// The vertices that use `id`, each once.
    pub fn users(&self, id: VertexId) -> Vec<VertexId> {
        let edges = self.inner.edges_directed(NodeIndex::new(id.0), Direction::Outgoing);
        let mut users: Vec<_> = edges.map(|edge| VertexId(edge.target().index())).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Number of vertices.
    pub fn len(&self) -> usize {
        self.inner.node_count()
    }

    /// Whether there is no vertex.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
