//! What the coordinator knows of each vertex, and how vertices hang together.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rbuild_cache::{FailedStep, SnapshotId};
use rbuild_plan::VertexId;
use rbuild_plan::mount::{MountKind, MountRoot};
use rbuild_plan::op::{CopySource, Op};
use rbuild_types::{Digest, Reason};

use super::Coordinator;
use super::history::Nearest;
use super::import::{Arrival, Unseen};
use crate::copy::Selection;
use crate::key::Key;
use crate::steps::mounts::context::Shown;

/// How far a vertex has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// An input has no key yet.
    Waiting,
    /// Files of its inputs must be there before it can have a key.
    NeedsFiles,
    /// Its files are being selected, or a server is asked what it is.
    Selecting,
    /// The store does not know its key; caches elsewhere cannot be asked yet.
    Asking,
    /// It has a key and no result.
    Missed,
    /// It runs.
    Running,
    /// It has a result.
    Done,
}

pub(super) struct Node {
    pub(super) state: State,
    pub(super) wanted: bool,
    pub(super) key: Option<Key>,
    /// The digest that its key had before it took the place of another step.
    pub(super) own_key: Option<Digest>,
    /// The key that needs no file, when it is another.
    pub(super) definition: Option<Digest>,
    pub(super) snapshot: Option<SnapshotId>,
    /// What the result may be, as long as nobody here has seen its files.
    pub(super) unseen: Vec<Unseen>,
    /// Which of them it is was decided, and for all below it too.
    pub(super) settled: bool,
    pub(super) arrival: Option<Arrival>,
    /// Results of earlier builds do not count.
    pub(super) fresh: bool,
    /// Why not, where one was there.
    pub(super) refused: Option<Reason>,
    /// It has no key before something has run.
    pub(super) stalled: bool,
    /// A source's own snapshots, once they are unpacked or fetched.
    pub(super) unpacked: Option<Vec<SnapshotId>>,
    pub(super) unpacking: bool,
    pub(super) selection: Option<Selection>,
    /// What a run is shown of the context.
    pub(super) shown: Shown,
    /// Who the named owner of a linked copy is, once it was looked up.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) started: Option<Instant>,
    /// How long it ran, if it did.
    pub(super) ran: Option<Duration>,
    /// Why.
    pub(super) reasons: Vec<Reason>,
    /// What it is compared with.
    pub(super) earlier: Option<Nearest>,
    /// Where its output is, below `logs/`.
    pub(super) log: Option<String>,
    /// How it failed, if it was the first to do so.
    pub(super) failure: Option<FailedStep>,
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            state: State::Waiting,
            wanted: false,
            key: None,
            own_key: None,
            definition: None,
            snapshot: None,
            unseen: Vec::new(),
            settled: false,
            arrival: None,
            fresh: false,
            refused: None,
            stalled: false,
            unpacked: None,
            unpacking: false,
            selection: None,
            shown: Shown::default(),
            owner: None,
            started: None,
            ran: None,
            reasons: Vec::new(),
            earlier: None,
            log: None,
            failure: None,
        }
    }
}

impl<'env> Coordinator<'_, 'env> {
    /// The vertex whose filesystem `id` changes.
    pub(super) fn root_of(&self, id: VertexId) -> Option<VertexId> {
        self.inputs(id).first().copied().filter(|_| self.op(id).has_root())
    }

    /// The linked layer that `id` lays upon its root.
    pub(super) fn layer_of(&self, id: VertexId) -> Option<VertexId> {
        self.inputs(id).get(1).copied().filter(|_| matches!(self.op(id), Op::Merge))
    }

    /// The inputs whose files `id` reads besides its root.
    pub(super) fn files_of(&self, id: VertexId) -> BTreeSet<VertexId> {
        let numbers: Vec<usize> = match self.op(id) {
            Op::Copy(copy) => copy
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopySource::Input { input, .. } => Some(*input),
                    _ => None,
                })
                .chain(copy.accounts)
                .collect(),
            Op::Run(run) => run
                .mounts
                .iter()
                .filter_map(|mount| match &mount.kind {
                    MountKind::Bind(source) => Some(&source.root),
                    MountKind::Cache(cache) => cache.seed.as_ref(),
                    _ => None,
                })
                .filter_map(|root| match root {
                    MountRoot::Input { input } => Some(*input),
                    MountRoot::Context { .. } | MountRoot::Empty => None,
                })
                .collect(),
            Op::Mkdir(_) | Op::Source(_) | Op::Merge => Vec::new(),
        };
        numbers.into_iter().filter_map(|number| self.inputs(id).get(number).copied()).collect()
    }

    /// The keys of all inputs in their order: mounts name an input by its number.
    pub(super) fn input_keys(&self, id: VertexId) -> Vec<Digest> {
        self.inputs(id).iter().filter_map(|input| self.key_of(Some(*input))).collect()
    }

    /// The key that a vertex has by what it does, whatever its result was found to be.
    pub(super) fn own_key(&self, id: VertexId) -> Option<Digest> {
        self.node(id).own_key.or_else(|| self.key_of(Some(id)))
    }

    pub(super) fn key_of(&self, id: Option<VertexId>) -> Option<Digest> {
        self.node(id?).key.as_ref().map(|key| key.digest)
    }

    /// The snapshots of `id`, bottom first. Only after [`Self::need_files`] said yes.
    pub(super) fn chain(&self, id: VertexId) -> Vec<SnapshotId> {
        let mut reversed = Vec::new();
        let mut at = Some(id);
        while let Some(vertex) = at {
            let node = self.node(vertex);
            reversed.extend(node.snapshot.clone());
            reversed.extend(node.unpacked.iter().flatten().rev().cloned());
            at = self.root_of(vertex);
        }
        reversed.reverse();
        reversed
    }

    pub(super) fn chains(&self, id: VertexId) -> Vec<Vec<SnapshotId>> {
        let needed = self.files_of(id);
        let root = self.root_of(id);
        let inputs = self.inputs(id).iter();
        inputs
            .map(|input| {
                let used = Some(*input) == root || needed.contains(input);
                if used { self.chain(*input) } else { Vec::new() }
            })
            .collect()
    }

    pub(super) fn op(&self, id: VertexId) -> &'env Op {
        &self.graph.vertex(id).op
    }

    pub(super) fn inputs(&self, id: VertexId) -> &'env [VertexId] {
        &self.graph.vertex(id).inputs
    }

    pub(super) fn node(&self, id: VertexId) -> &Node {
        &self.nodes[id.0]
    }

    pub(super) fn node_mut(&mut self, id: VertexId) -> &mut Node {
        &mut self.nodes[id.0]
    }
}
