//! The coordinator: decides what happens next, and is the only one who does.
//!
//! # Threads
//!
//! [`solve`] runs the coordinator on the caller's thread. It starts one thread for each step
//! that runs (at most [`Policy::jobs`]), for each selection of files, for each image that is
//! unpacked, and for each remote source that is looked at or fetched. They send [`Message`]s over
//! one bounded channel and never talk to each other; the coordinator alone changes state and
//! reports events, so events come in order. It wakes up at least every [`TICK`] to look at the
//! caller's cancel token, which it passes on to the steps through a token of its own; a failed
//! step cancels that one too. The pool is for hashing, walking and packing; nothing on it waits
//! for anything but the disk. A thread that panics still sends its last message, so the
//! coordinator never waits for a thread that is gone.
//!
//! # Order
//!
//! Every vertex goes through [`State`] from top to bottom. A vertex gets its key as soon as its
//! inputs have theirs, and is looked up at once; only a vertex whose result is *wanted* runs.
//! The targets are wanted; a vertex that must run, or whose key depends on the files of stages,
//! wants those inputs; a result from the cache wants the result that it is layered on. So a
//! stage whose files are already copied is not run again, and an image is unpacked only when a
//! step needs its files.
//!
//! A vertex without a key cannot be looked up, and where that is because a stage must run first,
//! its other inputs are wanted meanwhile when they were not found: a key made of a key that was
//! never seen will not be found either. So stages that are copied one after the other run side by
//! side.
//!
//! A linked copy is two vertices: the copy, which has no root and so waits for none, and the merge,
//! which lays the copy's layer upon the root when both are there. The merge is no step: nobody is
//! told of it, and it costs one row in the store.
//!
//! Nothing here calls itself along the graph, which a Dockerfile may make as deep as it likes:
//! who may go on is put on a list ([`Coordinator::settle`]).
//!
//! # Caches elsewhere
//!
//! What the store does not know is asked of caches that lie elsewhere (`schedule/import.rs`). Such a
//! result is done before any of its files is here.
//!
//! # Steps that must run
//!
//! A step under `--no-cache` is *fresh*: what earlier builds made of it does not count. Nor does
//! what they made on top of it, so steps on a fresh root, and runs that bind a fresh stage, are
//! fresh too. A copy from a fresh stage is not: its content key tells whether the files differ.
//!
//! # Early cutoff
//!
//! A step that ran and made what an earlier step had made upon the same root (`same.rs`) takes
//! that one's place: its snapshot and its key. The keys of what stands above are then made anew,
//! are those of the earlier build, and are found. So does a fresh step that made what it had made
//! before; what stands above is not fresh any more. The record under the step's own key says whose
//! place it takes, so the next build finds the same keys without running it.

mod history;
mod import;
mod keys;
mod node;
mod threads;
mod want;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rbuild_cache::SnapshotId;
use rbuild_plan::op::{Op, Source};
use rbuild_plan::{Graph, Vertex, VertexId};
use rbuild_types::{CancelToken, Ctx, Event, StepId};

use self::history::History;
use self::import::Indexes;
use self::node::{Node, State};
use self::threads::{Message, Outcome};
use crate::error::{SolveError, StepError, StepFailure};
use crate::key;
use crate::layer::{self, Layer};
use crate::steps::{Failed, Published};
use crate::world::World;

/// How often the coordinator looks at the caller's cancel token.
const TICK: Duration = Duration::from_millis(50);
/// Messages under way; a step that writes faster than they are shown waits.
const CHANNEL: usize = 256;

/// The caller's choices about one solve.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Steps that run at once.
    pub jobs: usize,
    /// Whether the targets' layers get their digests: images are made of them.
    pub layers: bool,
    /// Whether the bytes of the targets' layers are needed, also of those that lie elsewhere.
    pub bytes: bool,
    /// Whether the targets' whole root filesystems are needed as snapshots.
    pub root: bool,
}

/// What a solve made.
#[derive(Debug)]
pub struct Solution {
    /// What became of each target, in the order asked for.
    pub targets: Vec<Solved>,
    /// Steps whose result was in the cache.
    pub cached: usize,
    /// Steps that ran.
    pub executed: usize,
}

/// What one target is made of.
#[derive(Debug, Default)]
pub struct Solved {
    /// Its own layers, those of the base image left out; empty unless [`Policy::layers`] asked
    /// for them.
    pub layers: Vec<Layer>,
    /// All its snapshots, bottom first; empty unless [`Policy::root`] asked for them.
    pub root: Vec<SnapshotId>,
}

/// Solves `graph` for all `targets`. One without a vertex has nothing to be done, and several may
/// have the same.
///
/// # Errors
///
/// The first step that failed, after all others have been stopped.
pub fn solve(
    graph: &Graph,
    targets: &[Option<VertexId>],
    world: World<'_>,
    policy: &Policy,
    ctx: Ctx<'_>,
) -> Result<Solution, SolveError> {
    let cancel = CancelToken::default();
    let (sender, receiver) = sync_channel(CHANNEL);
    std::thread::scope(|scope| {
        let nodes: Vec<Node> = graph.vertices().map(|_| Node::new()).collect();
        let mut coordinator = Coordinator {
            graph,
            targets,
            world,
            policy,
            ctx,
            cancel: &cancel,
            scope,
            sender,
            nodes,
            indexes: Indexes::Unread,
            layers_of_targets: vec![false; graph.len()],
            pending: VecDeque::new(),
            ready: BTreeSet::new(),
            running: 0,
            threads: 0,
            packed: vec![None; graph.len()],
            packing: BTreeSet::new(),
            failure: None,
            cached: 0,
            executed: 0,
            history: None,
            began: None,
        };
        coordinator.run(&receiver)
    })
}

struct Coordinator<'scope, 'env> {
    graph: &'env Graph,
    targets: &'env [Option<VertexId>],
    world: World<'env>,
    policy: &'env Policy,
    ctx: Ctx<'env>,
    /// Cancelled for the caller, or because a step failed.
    cancel: &'env CancelToken,
    scope: &'scope std::thread::Scope<'scope, 'env>,
    sender: SyncSender<Message>,
    nodes: Vec<Node>,
    /// Of the caches elsewhere.
    indexes: Indexes,
    /// Whether each vertex makes a layer of a target.
    layers_of_targets: Vec<bool>,
    /// Vertices that may get further.
    pending: VecDeque<VertexId>,
    /// Missed, wanted, and with all inputs there.
    ready: BTreeSet<VertexId>,
    running: usize,
    /// Threads and pool tasks that have yet to send their last message.
    threads: usize,
    packed: Vec<Option<Layer>>,
    packing: BTreeSet<VertexId>,
    failure: Option<SolveError>,
    cached: usize,
    executed: usize,
    /// The last build of the same, once something is to be explained.
    history: Option<History>,
    /// When the first step ran, in milliseconds since 1970.
    began: Option<i64>,
}

impl<'env> Coordinator<'_, 'env> {
    fn run(&mut self, receiver: &Receiver<Message>) -> Result<Solution, SolveError> {
        let steps = |(_, vertex): &(VertexId, &Vertex)| !matches!(vertex.op, Op::Merge);
        for (id, vertex) in self.graph.vertices().filter(steps) {
            let (name, span) = (vertex.name.clone(), vertex.span);
            self.ctx.report(Event::StepQueued { step: StepId(id.0), name, span });
        }
        if let Err(error) = self.begin() {
            self.fail(error);
        }
        while self.threads > 0 {
            match receiver.recv_timeout(TICK) {
                Ok(message) => {
                    if let Err(error) = self.take(message) {
                        self.fail(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Err(cancelled) = self.ctx.cancel.check() {
                self.fail(cancelled.into());
            }
        }
        match self.failure.take() {
            Some(failure) => {
                // What went wrong is worth more than a failure to remember it.
                let _ = self.remember(false);
                Err(failure)
            }
            None => {
                let solution = self.finish()?;
                self.remember(true)?;
                Ok(solution)
            }
        }
    }

    fn begin(&mut self) -> Result<(), SolveError> {
        for (id, _) in self.graph.vertices() {
            self.pending.push_back(id);
        }
        for target in self.targets.iter().flatten() {
            let mut at = Some(*target);
            while let Some(id) = at {
                let is_layer = !matches!(self.op(id), Op::Source(_));
                if std::mem::replace(&mut self.layers_of_targets[id.0], is_layer) {
                    // Another target is made upon the same layers.
                    break;
                }
                if let Some(layer) = self.layer_of(id) {
                    self.layers_of_targets[layer.0] = true;
                }
                at = self.root_of(id);
            }
        }
        self.settle()?;
        for target in self.targets.iter().flatten() {
            self.want(*target)?;
        }
        self.settle()?;
        self.start_ready()
    }

    /// Brings everybody on the list as far as they get.
    fn settle(&mut self) -> Result<(), SolveError> {
        while let Some(id) = self.pending.pop_front() {
            self.advance(id)?;
        }
        Ok(())
    }

    /// Remembers the first failure and stops everything.
    fn fail(&mut self, error: SolveError) {
        self.failure.get_or_insert(error);
        self.pending.clear();
        self.ready.clear();
        self.cancel.cancel();
    }

    fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Brings a vertex as far as it gets without waiting.
    fn advance(&mut self, id: VertexId) -> Result<(), SolveError> {
        if self.failed() {
            return Ok(());
        }
        match self.node(id).state {
            State::Waiting => {
                if self.inputs(id).iter().all(|input| self.node(*input).key.is_some()) {
                    self.find_key(id)?;
                } else {
                    self.want_meanwhile(id)?;
                }
            }
            State::NeedsFiles => self.select_when_possible(id)?,
            State::Asking if self.indexes == Indexes::Read => self.ask(id)?,
            State::Missed => self.run_when_possible(id)?,
            State::Asking | State::Selecting | State::Running | State::Done => {}
        }
        Ok(())
    }

    fn advance_users(&mut self, id: VertexId) {
        self.pending.extend(self.graph.users(id));
    }

    fn start_ready(&mut self) -> Result<(), SolveError> {
        if self.policy.root && !self.failed() {
            // Asked after every step forward: a target may be done only now.
            for target in self.targets.iter().flatten() {
                self.need_files(*target)?;
            }
            self.settle()?;
        }
        while self.running < self.policy.jobs.max(1) && !self.failed() {
            let Some(id) = self.ready.pop_first() else { break };
            self.execute(id)?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), SolveError> {
        if !matches!(message, Message::Output { .. }) {
            self.threads -= 1;
        }
        match message {
            Message::Output { vertex, stream, bytes } => {
                self.ctx.report(Event::StepOutput { step: StepId(vertex.0), stream, bytes });
            }
            Message::Selected { vertex, result } => {
                let (selection, owner) =
                    result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                if let Op::Copy(copy) = self.op(vertex) {
                    let root = self.key_of(self.root_of(vertex));
                    let key = key::copy(copy, root, owner, selection.digest());
                    let node = self.node_mut(vertex);
                    (node.selection, node.owner) = (Some(selection), owner);
                    self.look_up(vertex, key)?;
                }
            }
            Message::Digested { vertex, result } => {
                let shown = result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                let mut content = self.input_keys(vertex);
                content.extend(&shown.digests);
                self.node_mut(vertex).shown = shown;
                let key = self.step_key(vertex, &content)?;
                self.look_up(vertex, key)?;
            }
            Message::Identified { vertex, result } => {
                let identity =
                    result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                self.node_mut(vertex).key = Some(key::remote(&identity));
                self.done(vertex, None)?;
            }
            Message::Unpacked { vertex, result } => {
                let snapshots =
                    result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                self.node_mut(vertex).unpacked = Some(snapshots);
                self.stop_clock(vertex);
                self.advance_all();
            }
            Message::Packed { vertex, result } => {
                let layer = result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                self.packed(vertex, layer);
            }
            Message::Executed { vertex, result } => {
                self.running -= 1;
                let outcome = match result {
                    Ok(outcome) => outcome,
                    Err(Failed { source, log_tail, kept }) => {
                        self.note_failure(vertex, &source, kept.clone());
                        return Err(self.failure_with(vertex, *source, log_tail, kept));
                    }
                };
                self.executed(vertex, outcome)?;
                self.advance_all();
            }
            Message::IndexesRead => {
                self.indexes = Indexes::Read;
                self.advance_all();
            }
            Message::Fetched { vertex, result } => self.fetched(vertex, result)?,
            Message::Arrived { vertex, result } => self.arrived(vertex, result)?,
            Message::Panicked => return Err(SolveError::Panicked),
        }
        self.settle()?;
        self.start_ready()
    }

    /// Whoever needs the files that are there now may be any number of vertices up.
    fn advance_all(&mut self) {
        self.pending.extend(self.graph.vertices().map(|(id, _)| id));
    }

    fn executed(&mut self, id: VertexId, outcome: Outcome) -> Result<(), SolveError> {
        let (executed, _lock) = match outcome {
            Outcome::Shared(record) => return self.hit(id, record),
            Outcome::Ran(executed, lock) => (executed, lock),
        };
        self.executed += 1;
        let duration = self.stop_clock(id);
        self.node_mut(id).ran = Some(duration);
        if let Some(read) = executed.changed {
            self.read_something_else(id, read)?;
        }
        self.node_mut(id).log = executed.log.clone();
        let Published { snapshot, same_as } = executed.made;
        self.record(id, snapshot.clone(), same_as, duration, executed.log)?;
        if let Some(key) = same_as {
            self.take_the_place_of(id, key);
        }
        self.done(id, Some(snapshot))
    }

    /// A layer has its digest.
    fn packed(&mut self, id: VertexId, layer: Layer) {
        if let Some(finished) = self.world.finished {
            finished.finished(&layer);
        }
        self.packed[id.0] = Some(layer);
    }

    /// The layer that `id` makes. That of a linked copy was perhaps packed before it was laid upon
    /// anything.
    fn packed_layer(&self, id: VertexId) -> Option<Layer> {
        let linked = self.layer_of(id);
        let packed = self.packed[id.0].clone();
        let packed = packed.or_else(|| self.packed[linked?.0].clone())?;
        let snapshot = self.node(id).snapshot.clone();
        let snapshot = snapshot.or_else(|| self.node(linked?).snapshot.clone());
        Some(Layer { snapshot, ..packed })
    }

    fn failure_of(&self, id: VertexId, source: StepError, log_tail: Vec<u8>) -> SolveError {
        self.failure_with(id, source, log_tail, None)
    }

    fn failure_with(
        &self,
        id: VertexId,
        source: StepError,
        log_tail: Vec<u8>,
        kept: Option<SnapshotId>,
    ) -> SolveError {
        match source {
            StepError::Cancelled(cancelled) => cancelled.into(),
            source => {
                // Of several that fail at once, the first can be entered.
                let kept = kept.filter(|_| self.node(id).failure.is_some());
                self.ctx.report(Event::StepFailed { step: StepId(id.0), kept: kept.is_some() });
                let vertex = self.graph.vertex(id);
                let (name, span) = (vertex.name.clone(), vertex.span);
                SolveError::Step(Box::new(StepFailure {
                    vertex: id,
                    name,
                    span,
                    source,
                    log_tail,
                    kept,
                }))
            }
        }
    }

    fn finish(&mut self) -> Result<Solution, SolveError> {
        for (id, vertex) in self.graph.vertices() {
            if matches!(vertex.op, Op::Source(_)) && self.node(id).unpacked.is_none() {
                self.ctx.report(Event::StepCached { step: StepId(id.0) });
            }
        }
        let mut targets = Vec::new();
        for target in self.targets {
            targets.push(match target {
                Some(target) => self.solved(*target)?,
                None => Solved::default(),
            });
        }
        Ok(Solution { targets, cached: self.cached, executed: self.executed })
    }

    fn solved(&mut self, target: VertexId) -> Result<Solved, SolveError> {
        let files_are_there = !self.policy.root || self.need_files(target)?;
        if self.node(target).state != State::Done || !files_are_there {
            return Err(SolveError::Stuck);
        }
        let mut layers = Vec::new();
        let mut below = Vec::new();
        let mut at = Some(target);
        while let Some(id) = at {
            layers.extend(self.packed_layer(id));
            if let Op::Source(Source::Image { reference, platform }) = self.op(id)
                && self.policy.layers
            {
                below = self
                    .world
                    .images
                    .diff_ids(reference, platform)
                    .map_err(|error| self.failure_of(id, error, Vec::new()))?;
            }
            at = self.root_of(id);
        }
        layers.reverse();
        layer::remember(&self.world, &below, &layers)
            .map_err(|error| self.failure_of(target, error, Vec::new()))?;
        let root = if self.policy.root { self.chain(target) } else { Vec::new() };
        Ok(Solved { layers, root })
    }
}

/// Where the helper is when nobody says otherwise: this very program.
pub fn this_program() -> PathBuf {
    rbuild_sandbox::Launch::this_program()
}
