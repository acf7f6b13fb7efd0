//! The threads that the coordinator starts, and what they tell it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rbuild_cache::{SnapshotId, StepLock, StepRecord};
use rbuild_plan::VertexId;
use rbuild_plan::mount::MountKind;
use rbuild_plan::op::{Op, Source};
use rbuild_types::{Ctx, Digest, Event, StepId, Stream};

use super::Coordinator;
use super::keys::kind;
use super::node::State;
use crate::copy::Selection;
use crate::error::{SolveError, StepError};
use crate::key;
use crate::layer::{self, Layer};
use crate::same::Place;
use crate::steps::mounts::context::Shown;
use crate::steps::{Executed, Failed, Job};

pub(super) enum Message {
    Selected {
        vertex: VertexId,
        /// With the owner that a linked copy names.
        result: Result<(Selection, Option<(u32, u32)>), StepError>,
    },
    /// The content that a run's bind mounts show of the context.
    Digested {
        vertex: VertexId,
        result: Result<Shown, StepError>,
    },
    /// What a remote source is now.
    Identified {
        vertex: VertexId,
        result: Result<serde_json::Value, StepError>,
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
    /// What caches elsewhere have is known.
    IndexesRead,
    /// Bytes of a layer from elsewhere.
    Fetched {
        vertex: VertexId,
        result: Result<(), StepError>,
    },
    /// Files of a layer from elsewhere.
    Arrived {
        vertex: VertexId,
        result: Result<SnapshotId, StepError>,
    },
    Panicked,
}

pub(super) enum Outcome {
    /// It ran; the lock is held until its record is written.
    Ran(Executed, Option<StepLock>),
    /// Somebody else who needed the same step had just made it.
    Shared(StepRecord),
}

impl<'env> Coordinator<'_, 'env> {
    /// Starts a thread that ends with one message.
    pub(super) fn spawn(
        &mut self,
        work: impl FnOnce() -> Message + Send + 'env,
    ) -> Result<(), SolveError> {
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

    pub(super) fn unpack(&mut self, id: VertexId) -> Result<(), SolveError> {
        let Op::Source(source) = self.op(id) else { return Ok(()) };
        self.node_mut(id).unpacking = true;
        self.start_clock(id);
        let (world, ctx, cancel) = (self.world, self.ctx, self.cancel);
        self.spawn(move || {
            let ctx = Ctx::new(ctx.progress, cancel);
            let result = match source {
                Source::Image { reference, platform } => {
                    world.images.unpack(reference, platform, ctx)
                }
                Source::Http(_) | Source::Git(_) => {
                    world.remotes.fetch(source, ctx).map(|tree| vec![tree])
                }
            };
            Message::Unpacked { vertex: id, result }
        })
    }

    pub(super) fn start_clock(&mut self, id: VertexId) {
        self.node_mut(id).started = Some(Instant::now());
        self.ctx.report(Event::StepStarted { step: StepId(id.0) });
    }

    pub(super) fn stop_clock(&mut self, id: VertexId) -> Duration {
        let duration = self.node(id).started.map(|start| start.elapsed()).unwrap_or_default();
        self.ctx.report(Event::StepFinished { step: StepId(id.0), duration });
        duration
    }

    pub(super) fn execute(&mut self, id: VertexId) -> Result<(), SolveError> {
        self.explain(id)?;
        self.remember_begin()?;
        self.node_mut(id).state = State::Running;
        self.start_clock(id);
        self.running += 1;
        let (world, op, cancel) = (self.world, self.op(id), self.cancel);
        let no_cache = self.graph.vertex(id).no_cache;
        let inputs = self.chains(id);
        let input_keys = self.input_keys(id);
        let nearest = self.node_mut(id).earlier.take();
        let earlier = nearest.and_then(|nearest| nearest.record.snapshot.zip(nearest.listing));
        let selection = self.node_mut(id).selection.take();
        let shown = std::mem::take(&mut self.node_mut(id).shown);
        // A step that must run shares nobody else's result.
        let own_key = self.key_of(Some(id));
        let key = own_key.filter(|_| !self.node(id).fresh);
        let root = self.root_of(id);
        let parent = root.and_then(|root| self.chain(root).pop());
        let copy = match (op, &self.node(id).key) {
            (Op::Copy(_), Some(key)) => key.inputs.get(key::STEP).cloned(),
            _ => None,
        };
        let place = own_key.filter(|_| !leaves_traces(op)).map(|key| {
            let (kind, latest, root) = (kind(op), op.latest(), self.key_of(root));
            Place { key, kind, copy, latest, root, parent }
        });
        let sender = self.sender.clone();
        self.spawn(move || {
            let output = |stream: Stream, bytes: &[u8]| {
                let bytes = bytes.to_vec();
                let _ = sender.send(Message::Output { vertex: id, stream, bytes });
            };
            let log_name = log_name(id);
            let output = &output;
            #[rustfmt::skip]
            let job = Job { world, op, inputs, input_keys, selection, shown, place, earlier, cancel, output, log_name, no_cache };
            Message::Executed { vertex: id, result: execute_once(&job, key) }
        })
    }

    /// Makes the digests of a layer on the pool.
    pub(super) fn pack(&mut self, id: VertexId) -> Result<(), SolveError> {
        if let Some(layer) = self.layer_elsewhere(id) {
            self.packed[id.0] = Some(layer);
            return if self.policy.bytes { self.fetch(id) } else { Ok(()) };
        }
        let Some(snapshot) = self.node(id).snapshot.clone() else { return Ok(()) };
        // A linked layer may be packed before it is laid upon anything.
        let packed = self.layer_of(id).is_some_and(|layer| self.packing.contains(&layer));
        if packed || !self.packing.insert(id) {
            return Ok(());
        }
        let (world, cancel) = (self.world, self.cancel);
        // A known layer costs one look at the index: no thread for that.
        if let Some(layer) = layer::known(&world, &snapshot)
            .map_err(|error| self.failure_of(id, error, Vec::new()))?
        {
            self.packed(id, layer);
            return Ok(());
        }
        self.spawn(move || {
            let describe = || layer::describe(&world, &snapshot, cancel);
            let result = world.pool.install(describe);
            Message::Packed { vertex: id, result }
        })
    }
}

/// Name of the file with a step's output, in the directory of its build.
pub(super) fn log_name(id: VertexId) -> String {
    format!("{:04}.log", id.0)
}

/// Whether what a step made is not all in its layer: a later step may find it in a cache mount.
fn leaves_traces(op: &Op) -> bool {
    let Op::Run(run) = op else { return false };
    run.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Cache(_)))
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
