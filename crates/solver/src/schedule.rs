//! The coordinator: decides what happens next, and is the only one who does.
//!
//! # Threads
//!
//! [`solve`] runs the coordinator on the caller's thread. It starts one thread for each step
//! that runs (at most [`Policy::jobs`]), for each selection of files and for each image that is
//! unpacked. They send [`Message`]s over one bounded channel and never talk to each other; the
//! coordinator alone changes state and reports events, so events come in order. It wakes up at
//! least every [`TICK`] to look at the caller's cancel token, which it passes on to the steps
//! through a token of its own; a failed step cancels that one too. The pool is for hashing,
//! walking and packing; nothing on it waits for anything but the disk. A thread that panics
//! still sends its last message, so the coordinator never waits for a thread that is gone.
//!
//! # Order
//!
//! Every vertex goes through [`State`] from top to bottom. A vertex gets its key as soon as its
//! inputs have theirs, and is looked up at once; only a vertex whose result is *wanted* runs.
//! The target is wanted; a vertex that must run, or whose key depends on the files of stages,
//! wants those inputs; a result from the cache wants the result that it is layered on. So a
//! stage whose files are already copied is not run again, and an image is unpacked only when a
//! step needs its files.
//!
//! A vertex without a key cannot be looked up, and where that is because a stage must run first,
//! its other inputs are wanted meanwhile when they were not found: a key made of a key that was
//! never seen will not be found either. So stages that are copied one after the other run side by
//! side.
//!
//! Nothing here calls itself along the graph, which a Dockerfile may make as deep as it likes:
//! who may go on is put on a list ([`Coordinator::settle`]).
//!
//! # Steps that must run
//!
//! A step under `--no-cache` is *fresh*: what earlier builds made of it does not count. Nor does
//! what they made on top of it, so steps on a fresh root, and runs that bind a fresh stage, are
//! fresh too. A copy from a fresh stage is not: its content key tells whether the files differ.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rbuild_cache::{SnapshotId, StepLock, StepRecord};
use rbuild_plan::mount::{MountKind, MountRoot};
use rbuild_plan::op::{CopySource, Op, Source};
use rbuild_plan::{Graph, VertexId};
use rbuild_types::{CancelToken, Ctx, Digest, Event, StepId, Stream};

use crate::copy::Selection;
use crate::error::{SolveError, StepError, StepFailure};
use crate::key::{self, Key};
use crate::layer::{self, Layer};
use crate::steps::copy::Trees;
use crate::steps::{Executed, Failed, Job, mounts};
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
    /// Whether the target's layers get their digests: an image is made of them.
    pub layers: bool,
    /// Whether the target's whole root filesystem is needed as snapshots.
    pub root: bool,
}

/// What a solve made.
#[derive(Debug)]
pub struct Solution {
    /// The target's own layers, those of the base image left out; empty unless
    /// [`Policy::layers`] asked for them.
    pub layers: Vec<Layer>,
    /// All snapshots of the target, bottom first; empty unless [`Policy::root`] asked for them.
    pub root: Vec<SnapshotId>,
    /// Steps whose result was in the cache.
    pub cached: usize,
    /// Steps that ran.
    pub executed: usize,
}

/// How far a vertex has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// An input has no key yet.
    Waiting,
    /// Files of its inputs must be there before it can have a key.
    NeedsFiles,
    /// Its files are being selected.
    Selecting,
    /// It has a key and no result.
    Missed,
    /// It runs.
    Running,
    /// It has a result.
    Done,
}

struct Node {
    state: State,
    wanted: bool,
    key: Option<Key>,
    /// The key that needs no file, when it is another.
    definition: Option<Digest>,
    snapshot: Option<SnapshotId>,
    /// Results of earlier builds do not count.
    fresh: bool,
    /// It has no key before something has run.
    stalled: bool,
    /// An image source's own snapshots, once they are unpacked.
    unpacked: Option<Vec<SnapshotId>>,
    unpacking: bool,
    selection: Option<Selection>,
    started: Option<Instant>,
}

enum Message {
    Selected {
        vertex: VertexId,
        result: Result<Selection, StepError>,
    },
    /// The content that a run's bind mounts show of the context.
    Digested {
        vertex: VertexId,
        result: Result<Vec<Digest>, StepError>,
    },
    Unpacked {
        vertex: VertexId,
        result: Result<Vec<SnapshotId>, StepError>,
    },
    Executed {
        vertex: VertexId,
        result: Result<Outcome, Failed>,
    },
    Output {
        vertex: VertexId,
        stream: Stream,
        bytes: Vec<u8>,
    },
    Packed {
        vertex: VertexId,
        result: Result<Layer, StepError>,
    },
    Panicked,
}

enum Outcome {
    /// It ran; the lock is held until its record is written.
    Ran(Executed, Option<StepLock>),
    /// Somebody else who needed the same step had just made it.
    Shared(StepRecord),
}

/// Solves `graph` for `target`; without a target there is nothing to do.
///
/// # Errors
///
/// The first step that failed, after all others have been stopped.
pub fn solve(
    graph: &Graph,
    target: Option<VertexId>,
    world: World<'_>,
    policy: &Policy,
    ctx: Ctx<'_>,
) -> Result<Solution, SolveError> {
    let Some(target) = target else {
        return Ok(Solution { layers: Vec::new(), root: Vec::new(), cached: 0, executed: 0 });
    };
    let cancel = CancelToken::default();
    let (sender, receiver) = sync_channel(CHANNEL);
    std::thread::scope(|scope| {
        let nodes: Vec<Node> = graph.vertices().map(|_| Node::new()).collect();
        let mut coordinator = Coordinator {
            graph,
            target,
            world,
            policy,
            ctx,
            cancel: &cancel,
            scope,
            sender,
            nodes,
            layers_of_target: vec![false; graph.len()],
            pending: VecDeque::new(),
            ready: BTreeSet::new(),
            running: 0,
            threads: 0,
            packed: vec![None; graph.len()],
            packing: BTreeSet::new(),
            failure: None,
            cached: 0,
            executed: 0,
        };
        coordinator.run(&receiver)
    })
}

impl Node {
    fn new() -> Self {
        Self {
            state: State::Waiting,
            wanted: false,
            key: None,
            definition: None,
            snapshot: None,
            fresh: false,
            stalled: false,
            unpacked: None,
            unpacking: false,
            selection: None,
            started: None,
        }
    }
}

struct Coordinator<'scope, 'env> {
    graph: &'env Graph,
    target: VertexId,
    world: World<'env>,
    policy: &'env Policy,
    ctx: Ctx<'env>,
    /// Cancelled for the caller, or because a step failed.
    cancel: &'env CancelToken,
    scope: &'scope std::thread::Scope<'scope, 'env>,
    sender: SyncSender<Message>,
    nodes: Vec<Node>,
    /// Whether each vertex makes a layer of the target.
    layers_of_target: Vec<bool>,
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
}

impl<'env> Coordinator<'_, 'env> {
    fn run(&mut self, receiver: &Receiver<Message>) -> Result<Solution, SolveError> {
        for (id, vertex) in self.graph.vertices() {
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
            Some(failure) => Err(failure),
            None => self.finish(),
        }
    }

    fn begin(&mut self) -> Result<(), SolveError> {
        for (id, vertex) in self.graph.vertices() {
            let fresh = |input: &VertexId| self.node(*input).fresh;
            self.node_mut(id).fresh = vertex.no_cache
                || match vertex.op {
                    Op::Run(_) => vertex.inputs.iter().any(fresh),
                    _ => self.root_of(id).is_some_and(|root| fresh(&root)),
                };
            self.pending.push_back(id);
        }
        let mut at = Some(self.target);
        while let Some(id) = at {
            self.layers_of_target[id.0] = !matches!(self.op(id), Op::Source(_));
            at = self.root_of(id);
        }
        self.settle()?;
        self.want(self.target)?;
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

    fn node(&self, id: VertexId) -> &Node {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: VertexId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    fn op(&self, id: VertexId) -> &'env Op {
        &self.graph.vertex(id).op
    }

    fn inputs(&self, id: VertexId) -> &'env [VertexId] {
        &self.graph.vertex(id).inputs
    }

    /// The vertex whose filesystem `id` changes.
    fn root_of(&self, id: VertexId) -> Option<VertexId> {
        let has_root = match self.op(id) {
            Op::Run(run) => run.has_root,
            Op::Copy(copy) => copy.has_root,
            Op::Mkdir(mkdir) => mkdir.has_root,
            Op::Source(_) => false,
        };
        self.inputs(id).first().copied().filter(|_| has_root)
    }

    /// The inputs whose files `id` reads besides its root.
    fn files_of(&self, id: VertexId) -> BTreeSet<VertexId> {
        let numbers: Vec<usize> = match self.op(id) {
            Op::Copy(copy) => copy
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopySource::Input { input, .. } => Some(*input),
                    _ => None,
                })
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
                    MountRoot::Context | MountRoot::Empty => None,
                })
                .collect(),
            Op::Mkdir(_) | Op::Source(_) => Vec::new(),
        };
        numbers.into_iter().filter_map(|number| self.inputs(id).get(number).copied()).collect()
    }

    /// The keys of all inputs in their order: mounts name an input by its number.
    fn input_keys(&self, id: VertexId) -> Vec<Digest> {
        self.inputs(id).iter().filter_map(|input| self.key_of(Some(*input))).collect()
    }

    fn key_of(&self, id: Option<VertexId>) -> Option<Digest> {
        self.node(id?).key.as_ref().map(|key| key.digest)
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
            State::Missed => self.run_when_possible(id)?,
            State::Selecting | State::Running | State::Done => {}
        }
        Ok(())
    }

    /// An input has no key yet: if that takes a while, the other inputs use the time.
    fn want_meanwhile(&mut self, id: VertexId) -> Result<(), SolveError> {
        let inputs = self.inputs(id);
        let unknown = |input: VertexId| self.node(input).key.is_none();
        if !inputs.iter().any(|input| unknown(*input) && self.node(*input).stalled) {
            return Ok(());
        }
        self.stall(id);
        if self.node(id).wanted {
            for input in inputs {
                if self.node(*input).key.is_none() || self.node(*input).state == State::Missed {
                    self.want(*input)?;
                }
            }
        }
        Ok(())
    }

    fn stall(&mut self, id: VertexId) {
        if !std::mem::replace(&mut self.node_mut(id).stalled, true) {
            self.advance_users(id);
        }
    }

    fn advance_users(&mut self, id: VertexId) {
        self.pending.extend(self.graph.users(id));
    }

    /// All inputs have keys: makes the vertex' own, or finds out what that takes.
    fn find_key(&mut self, id: VertexId) -> Result<(), SolveError> {
        let root = self.key_of(self.root_of(id));
        match self.op(id) {
            Op::Source(Source::Image { reference, platform }) => {
                let diff_ids = self
                    .world
                    .images
                    .diff_ids(reference, platform)
                    .map_err(|error| self.failure_of(id, error, Vec::new()))?;
                self.node_mut(id).key = Some(key::source(&diff_ids));
                self.done(id, None)
            }
            Op::Run(run) if mounts::shows_context(run) => {
                self.node_mut(id).state = State::Selecting;
                let (world, cancel) = (self.world, self.cancel);
                self.spawn(move || {
                    let result = mounts::context_digests(&world, run, cancel);
                    Message::Digested { vertex: id, result }
                })
            }
            Op::Run(_) | Op::Mkdir(_) => {
                let key = key::step(self.op(id), root, &self.input_keys(id));
                self.look_up(id, key)
            }
            Op::Copy(copy) => {
                let reads_context =
                    copy.sources.iter().any(|source| matches!(source, CopySource::Context { .. }));
                if !reads_context {
                    let definition = key::definition(self.op(id), &self.input_keys(id), None);
                    self.node_mut(id).definition = Some(definition);
                    let known = self.world.store.records().get_alias(&definition)?;
                    let fresh = self.node(id).fresh
                        || self.files_of(id).iter().any(|input| self.node(*input).fresh);
                    if let Some(digest) = known.filter(|_| !fresh) {
                        // Should the record be gone, the key alone still spares the files.
                        let inputs = serde_json::Value::Null;
                        return self.look_up(id, Key { digest, inputs });
                    }
                }
                self.node_mut(id).state = State::NeedsFiles;
                self.select_when_possible(id)
            }
        }
    }

    fn look_up(&mut self, id: VertexId, key: Key) -> Result<(), SolveError> {
        let digest = key.digest;
        self.node_mut(id).key = Some(key);
        let record =
            if self.node(id).fresh { None } else { self.world.store.records().get(&digest)? };
        match record {
            Some(record) => {
                if let Some(definition) = self.node(id).definition {
                    self.world.store.records().alias(&definition, &digest)?;
                }
                self.hit(id, record)
            }
            None => {
                self.node_mut(id).state = State::Missed;
                self.advance_users(id);
                self.run_when_possible(id)
            }
        }
    }

    fn hit(&mut self, id: VertexId, record: StepRecord) -> Result<(), SolveError> {
        self.cached += 1;
        self.ctx.report(Event::StepCached { step: StepId(id.0) });
        self.done(id, record.snapshot)
    }

    fn done(&mut self, id: VertexId, snapshot: Option<SnapshotId>) -> Result<(), SolveError> {
        let node = self.node_mut(id);
        node.state = State::Done;
        node.snapshot = snapshot;
        node.selection = None;
        let wanted = node.wanted;
        self.advance_users(id);
        if wanted { self.want_below(id) } else { Ok(()) }
    }

    /// The result of `id` is needed, and so is what it is layered on.
    fn want(&mut self, id: VertexId) -> Result<(), SolveError> {
        if std::mem::replace(&mut self.node_mut(id).wanted, true) {
            return Ok(());
        }
        self.pending.push_back(id);
        if self.node(id).state == State::Done { self.want_below(id) } else { Ok(()) }
    }

    /// A result is a layer on the result below it: all the way down, as far as it is there.
    fn want_below(&mut self, id: VertexId) -> Result<(), SolveError> {
        let mut at = id;
        loop {
            if self.policy.layers && self.layers_of_target[at.0] {
                self.pack(at)?;
            }
            let Some(root) = self.root_of(at) else { return Ok(()) };
            if !self.node(root).wanted {
                self.take_parent(at, root)?;
            }
            if std::mem::replace(&mut self.node_mut(root).wanted, true) {
                return Ok(());
            }
            self.pending.push_back(root);
            if self.node(root).state != State::Done {
                return Ok(());
            }
            at = root;
        }
    }

    /// A cached result was made on a tree that is still there, even when the record that led to
    /// the tree is not: to run that step again would put the result on another tree.
    fn take_parent(&mut self, id: VertexId, root: VertexId) -> Result<(), SolveError> {
        if self.node(root).state != State::Missed || self.node(root).fresh {
            return Ok(());
        }
        let snapshots = self.world.store.snapshots();
        let Some(snapshot) = &self.node(id).snapshot else { return Ok(()) };
        let parent = snapshots.meta(snapshot)?.and_then(|snapshot| snapshot.meta.parent);
        match parent {
            Some(parent) if snapshots.contains(&parent)? => {
                self.cached += 1;
                self.ctx.report(Event::StepCached { step: StepId(root.0) });
                self.done(root, Some(parent))
            }
            _ => Ok(()),
        }
    }

    /// The files of `id` are needed: its result, and images below it unpacked. Says whether all
    /// is there.
    fn need_files(&mut self, id: VertexId) -> Result<bool, SolveError> {
        let mut at = id;
        loop {
            self.want(at)?;
            if self.node(at).state != State::Done {
                return Ok(false);
            }
            if matches!(self.op(at), Op::Source(_)) {
                if self.node(at).unpacked.is_none() && !self.node(at).unpacking {
                    self.unpack(at)?;
                }
                return Ok(self.node(at).unpacked.is_some());
            }
            match self.root_of(at) {
                Some(root) => at = root,
                None => return Ok(true),
            }
        }
    }

    /// The snapshots of `id`, bottom first. Only after [`Self::need_files`] said yes.
    fn chain(&self, id: VertexId) -> Vec<SnapshotId> {
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

    fn chains(&self, id: VertexId) -> Vec<Vec<SnapshotId>> {
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

    fn select_when_possible(&mut self, id: VertexId) -> Result<(), SolveError> {
        let mut all_there = true;
        for input in self.files_of(id) {
            all_there &= self.need_files(input)?;
        }
        if !all_there {
            self.stall(id);
            return Ok(());
        }
        // Asking for the inputs may have come back to this vertex.
        if self.node(id).state != State::NeedsFiles {
            return Ok(());
        }
        let Op::Copy(copy) = self.op(id) else { return Ok(()) };
        self.node_mut(id).state = State::Selecting;
        let (world, cancel, chains) = (self.world, self.cancel, self.chains(id));
        self.spawn(move || {
            let select = || Trees::mount(world, copy, &chains)?.select(copy, cancel);
            Message::Selected { vertex: id, result: select() }
        })
    }

    fn run_when_possible(&mut self, id: VertexId) -> Result<(), SolveError> {
        if !self.node(id).wanted {
            return Ok(());
        }
        let mut needed = self.files_of(id);
        needed.extend(self.root_of(id));
        let mut all_there = true;
        for input in needed {
            all_there &= self.need_files(input)?;
        }
        if all_there && self.node(id).state == State::Missed {
            self.ready.insert(id);
        }
        Ok(())
    }

    /// Lets stages run side by side whose files are copied one after the other.
    ///
    /// The second of two copies has no key while the first waits for the files of its stage, and
    /// without a key nobody knows whether it needs its own stage. It will, nearly always: what
    /// stands above it has changed. While nothing waits for files nothing is wanted early, so an
    /// unchanged build stays lazy.
    fn want_early(&mut self) -> Result<(), SolveError> {
        let waits_for_files = |node: &Node| node.state == State::NeedsFiles;
        if self.failed() || !self.nodes.iter().any(waits_for_files) {
            return Ok(());
        }
        for (id, _) in self.graph.vertices() {
            if self.node(id).state == State::Waiting {
                for input in self.files_of(id) {
                    if self.node(input).state == State::Missed {
                        self.want(input)?;
                    }
                }
            }
        }
        self.settle()
    }

    fn start_ready(&mut self) -> Result<(), SolveError> {
        if self.policy.root && !self.failed() {
            // Asked after every step forward: the target may be done only now.
            self.need_files(self.target)?;
            self.settle()?;
        }
        self.want_early()?;
        while self.running < self.policy.jobs.max(1) && !self.failed() {
            let Some(id) = self.ready.pop_first() else { break };
            self.execute(id)?;
        }
        Ok(())
    }

    /// Starts a thread that ends with one message.
    fn spawn(&mut self, work: impl FnOnce() -> Message + Send + 'env) -> Result<(), SolveError> {
        let sender = self.sender.clone();
        let body = move || {
            // The coordinator listens until every thread has spoken.
            let message = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Message::Panicked);
            let _ = sender.send(message);
        };
        std::thread::Builder::new()
            .name("rbuild-step".to_owned())
            .spawn_scoped(self.scope, body)
            .map_err(SolveError::Thread)?;
        self.threads += 1;
        Ok(())
    }

    fn unpack(&mut self, id: VertexId) -> Result<(), SolveError> {
        let Op::Source(Source::Image { reference, platform }) = self.op(id) else {
            return Ok(());
        };
        self.node_mut(id).unpacking = true;
        self.start_clock(id);
        let (images, ctx) = (self.world.images, self.ctx);
        let cancel = self.cancel;
        self.spawn(move || {
            let ctx = Ctx::new(ctx.progress, cancel);
            Message::Unpacked { vertex: id, result: images.unpack(reference, platform, ctx) }
        })
    }

    fn start_clock(&mut self, id: VertexId) {
        self.node_mut(id).started = Some(Instant::now());
        self.ctx.report(Event::StepStarted { step: StepId(id.0) });
    }

    fn stop_clock(&mut self, id: VertexId) -> Duration {
        let duration = self.node(id).started.map(|start| start.elapsed()).unwrap_or_default();
        self.ctx.report(Event::StepFinished { step: StepId(id.0), duration });
        duration
    }

    fn execute(&mut self, id: VertexId) -> Result<(), SolveError> {
        self.node_mut(id).state = State::Running;
        self.start_clock(id);
        self.running += 1;
        let (world, op, cancel) = (self.world, self.op(id), self.cancel);
        let no_cache = self.graph.vertex(id).no_cache;
        let inputs = self.chains(id);
        let selection = self.node_mut(id).selection.take();
        // A step that must run shares nobody else's result.
        let key = self.key_of(Some(id)).filter(|_| !self.node(id).fresh);
        let sender = self.sender.clone();
        self.spawn(move || {
            let output = |stream: Stream, bytes: &[u8]| {
                let bytes = bytes.to_vec();
                let _ = sender.send(Message::Output { vertex: id, stream, bytes });
            };
            let log_name = format!("{:04}.log", id.0);
            let job =
                Job { world, op, inputs, selection, cancel, output: &output, log_name, no_cache };
            Message::Executed { vertex: id, result: execute_once(&job, key) }
        })
    }

    /// Makes the digests of a layer on the pool.
    fn pack(&mut self, id: VertexId) -> Result<(), SolveError> {
        let Some(snapshot) = self.node(id).snapshot.clone() else { return Ok(()) };
        if !self.packing.insert(id) {
            return Ok(());
        }
        let (world, cancel) = (self.world, self.cancel);
        // A known layer costs one look at the index: no thread for that.
        if let Some(layer) = layer::known(&world, &snapshot)
            .map_err(|error| self.failure_of(id, error, Vec::new()))?
        {
            self.packed[id.0] = Some(layer);
            return Ok(());
        }
        self.spawn(move || {
            let describe = || layer::describe(&world, &snapshot, cancel);
            let result = world.pool.install(describe);
            Message::Packed { vertex: id, result }
        })
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
                let selection =
                    result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                if let Op::Copy(copy) = self.op(vertex) {
                    let root = self.key_of(self.root_of(vertex));
                    let mut key = key::copy(copy, root, selection.digest());
                    if let serde_json::Value::Object(document) = &mut key.inputs {
                        // Not part of the digest; it is what the content digest is made of.
                        let files = serde_json::to_value(selection.inputs()).unwrap_or_default();
                        document.insert("files".to_owned(), files);
                    }
                    self.node_mut(vertex).selection = Some(selection);
                    self.look_up(vertex, key)?;
                }
            }
            Message::Digested { vertex, result } => {
                let digests = result.map_err(|error| self.failure_of(vertex, error, Vec::new()))?;
                let mut content = self.input_keys(vertex);
                content.extend(digests);
                let root = self.key_of(self.root_of(vertex));
                self.look_up(vertex, key::step(self.op(vertex), root, &content))?;
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
                self.packed[vertex.0] = Some(layer);
            }
            Message::Executed { vertex, result } => {
                self.running -= 1;
                let outcome = result
                    .map_err(|failed| self.failure_of(vertex, *failed.source, failed.log_tail))?;
                self.executed(vertex, outcome)?;
                self.advance_all();
            }
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
        if let Some(read) = executed.changed {
            self.read_something_else(id, read)?;
        }
        let vertex = self.graph.vertex(id);
        if let Some(key) = &self.node(id).key {
            let op = match vertex.op {
                Op::Run(_) => "run",
                Op::Copy(_) => "copy",
                Op::Mkdir(_) => "mkdir",
                Op::Source(_) => "source",
            };
            let mut record = StepRecord::new(key.digest, op, &vertex.name, key.inputs.clone());
            record.snapshot = Some(executed.snapshot.clone());
            record.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            record.log = executed.log;
            self.world.store.records().put(&record)?;
            if let Some(definition) = self.node(id).definition {
                self.world.store.records().alias(&definition, &key.digest)?;
            }
        }
        self.done(id, Some(executed.snapshot))
    }

    /// Files of the context changed after they were selected: the step's result belongs to what
    /// it really read, and so do the keys of all that depend on it.
    fn read_something_else(&mut self, id: VertexId, read: Vec<Digest>) -> Result<(), SolveError> {
        let root = self.key_of(self.root_of(id));
        let key = match (self.op(id), read.as_slice()) {
            (Op::Copy(copy), [content]) => key::copy(copy, root, *content),
            (op, read) => {
                let mut content = self.input_keys(id);
                content.extend(read);
                key::step(op, root, &content)
            }
        };
        if self.key_of(Some(id)) == Some(key.digest) {
            return Ok(());
        }
        self.node_mut(id).key = Some(key);
        self.node_mut(id).definition = None;
        let mut above = VecDeque::from(self.graph.users(id));
        while let Some(user) = above.pop_front() {
            let node = self.node_mut(user);
            match node.state {
                State::Waiting => continue,
                State::NeedsFiles | State::Missed => {}
                // It was found by a key that does not hold.
                State::Selecting | State::Running | State::Done => {
                    let message = "files of the build context changed while they were read: \
                                   build again";
                    let error = StepError::Missing(message.to_owned());
                    return Err(self.failure_of(id, error, Vec::new()));
                }
            }
            (node.state, node.key, node.definition) = (State::Waiting, None, None);
            self.ready.remove(&user);
            above.extend(self.graph.users(user));
        }
        Ok(())
    }

    fn failure_of(&self, id: VertexId, source: StepError, log_tail: Vec<u8>) -> SolveError {
        match source {
            StepError::Cancelled(cancelled) => cancelled.into(),
            source => {
                self.ctx.report(Event::StepFailed { step: StepId(id.0) });
                let vertex = self.graph.vertex(id);
                let (name, span) = (vertex.name.clone(), vertex.span);
                SolveError::Step(Box::new(StepFailure { vertex: id, name, span, source, log_tail }))
            }
        }
    }

    fn finish(&mut self) -> Result<Solution, SolveError> {
        let files_are_there = !self.policy.root || self.need_files(self.target)?;
        if self.node(self.target).state != State::Done || !files_are_there {
            return Err(SolveError::Stuck);
        }
        for (id, vertex) in self.graph.vertices() {
            if matches!(vertex.op, Op::Source(_)) && self.node(id).unpacked.is_none() {
                self.ctx.report(Event::StepCached { step: StepId(id.0) });
            }
        }
        let mut layers = Vec::new();
        let mut below = Vec::new();
        let mut at = Some(self.target);
        while let Some(id) = at {
            layers.extend(self.packed[id.0].take());
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
            .map_err(|error| self.failure_of(self.target, error, Vec::new()))?;
        let root = if self.policy.root { self.chain(self.target) } else { Vec::new() };
        Ok(Solution { layers, root, cached: self.cached, executed: self.executed })
    }
}

/// Executes a step unless somebody else, in this process or another, is just doing so: then
/// waits and takes the other's result.
fn execute_once(job: &Job<'_>, key: Option<Digest>) -> Result<Outcome, Failed> {
    let lock = match key {
        Some(key) => {
            let store = job.world.store;
            let lock = store.step_lock(&key, job.cancel).map_err(StepError::from)?;
            if let Some(record) = store.records().get(&key).map_err(StepError::from)? {
                return Ok(Outcome::Shared(record));
            }
            Some(lock)
        }
        None => None,
    };
    job.execute().map(|executed| Outcome::Ran(executed, lock))
}

/// Where the helper is when nobody says otherwise: this very program.
pub fn this_program() -> PathBuf {
    rbuild_sandbox::Launch::this_program()
}
