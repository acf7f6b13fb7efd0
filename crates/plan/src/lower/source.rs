//! Vertices of what lies elsewhere.

use rbuild_types::Span;

use super::Lowering;
use crate::graph::{Vertex, VertexId};
use crate::op::{Op, Source};

impl Lowering<'_> {
    /// Adds the vertex of a remote source, which is no step of stage `index`: `[i/n]` leaves it
    /// out.
    pub(super) fn add_source(
        &mut self,
        source: Source,
        name: &str,
        span: Span,
        index: usize,
    ) -> VertexId {
        self.graph.add(Vertex {
            op: Op::Source(source),
            inputs: Vec::new(),
            name: format!("fetch {name}"),
            span: Some(span),
            stage: self.stages.name(index).to_owned(),
            args: Vec::new(),
            ttl: None,
            no_cache: false,
        })
    }
}
