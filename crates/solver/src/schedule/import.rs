//! Results that lie in caches elsewhere.
//!
//! The caches are asked only about steps that the store does not know, and not before their indexes
//! are read: until then such a step is [`State::Asking`], and a copy whose definition nobody here
//! knows keeps waiting for its key. A step that is found is done, but its files are *elsewhere*:
//! all that is known is its layer's digests. They are fetched when somebody needs to see them
//! ([`Coordinator::need_files`]), all layers of a chain at once, and unpacked from the bottom up.
//!
//! A layer is only taken upon what it was made upon, by chain id: a step that ran here may have
//! given other bytes than it gave there. Two machines may have given different results of the same
//! step too; as long as nobody needs the one or the other, a step has all of them, and which is
//! taken follows from the topmost result that is wanted ([`Coordinator::settle_on_one`]), so that
//! what only one of the machines did further up is found. Where a layer cannot be had or is not what it was said to
//! be, its step runs after all, and so do those that were taken upon it.

use rbuild_cache::{SnapshotId, StepRecord};
use rbuild_image::manifest::{chain_id, chain_ids};
use rbuild_plan::VertexId;
use rbuild_plan::op::{Op, Source};
use rbuild_types::{Ctx, Digest, Event, Reason};

use super::Coordinator;
use super::node::State;
use super::threads::Message;
use crate::elsewhere::{FinishedStep, Imports, RemoteResult};
use crate::error::{SolveError, StepError};
use crate::layer::Layer;
use crate::world::World;

/// Whether the indexes of the caches are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Indexes {
    /// Nothing was missed yet.
    Unread,
    /// A thread waits for them.
    Reading,
    Read,
}

/// One of the results that a step may have, none of whose files are here.
#[derive(Debug, Clone)]
pub(super) struct Unseen {
    /// Chain id of what its layer was made upon, or is laid upon.
    upon: Option<Digest>,
    diff_id: Digest,
    /// Where it is; a merge has only what its inputs have.
    result: Option<RemoteResult>,
}

impl Unseen {
    fn chain_id(&self) -> Digest {
        chain_id(self.upon.as_ref(), &self.diff_id)
    }
}

/// How far a layer from elsewhere has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Its bytes are on their way.
    Fetching,
    /// Its bytes are in the store.
    Fetched,
    Unpacking,
}

impl<'env> Coordinator<'_, 'env> {
    /// Whether the caches can be asked. If not yet, everybody goes on once they can.
    pub(super) fn indexes_are_read(&mut self) -> Result<bool, SolveError> {
        let Some(imports) = self.world.imports else { return Ok(true) };
        if self.indexes == Indexes::Unread {
            self.indexes = Indexes::Reading;
            let cancel = self.cancel;
            self.spawn(move || {
                imports.wait(cancel);
                Message::IndexesRead
            })?;
        }
        Ok(self.indexes == Indexes::Read)
    }

    /// The key that a definition leads to elsewhere.
    pub(super) fn alias_elsewhere(&self, definition: &Digest) -> Option<Digest> {
        self.world.imports?.alias(definition)
    }

    /// The store does not know the step: asks the caches, once they can be asked.
    pub(super) fn ask(&mut self, id: VertexId) -> Result<(), SolveError> {
        if !self.indexes_are_read()? {
            self.node_mut(id).state = State::Asking;
            return Ok(());
        }
        if let Some(layer) = self.layer_of(id) {
            return self.merge_unseen(id, layer);
        }
        let found = match self.key_of(Some(id)) {
            Some(key) => self.find_elsewhere(id, &key)?,
            None => Vec::new(),
        };
        if found.is_empty() {
            if let Some(same) = self.same_elsewhere(id)? {
                self.take_the_place_of(id, same);
                // What is here counts more.
                let here = self.world.store.records().get(&same)?;
                let young = |record: &StepRecord| self.expired(id, record.created).is_none();
                return match here.filter(young) {
                    Some(record) => self.hit(id, record),
                    None => self.ask(id),
                };
            }
            self.node_mut(id).state = State::Missed;
            return self.run_when_possible(id);
        }
        let unseen = |result: RemoteResult| {
            let RemoteResult { upon, diff_id, .. } = result;
            Unseen { upon, diff_id, result: Some(result) }
        };
        self.node_mut(id).unseen = found.into_iter().map(unseen).collect();
        self.count_cached(id);
        self.done(id, None)
    }

    /// The step whose place this one took on another machine, if its result is to be had.
    fn same_elsewhere(&self, id: VertexId) -> Result<Option<Digest>, SolveError> {
        let Some(key) = self.key_of(Some(id)).filter(|_| self.node(id).own_key.is_none()) else {
            return Ok(None);
        };
        let Some(same) = self.alias_elsewhere(&key) else { return Ok(None) };
        Ok((!self.find_elsewhere(id, &same)?.is_empty()).then_some(same))
    }

    fn find_elsewhere(&self, id: VertexId, key: &Digest) -> Result<Vec<RemoteResult>, SolveError> {
        let Some(imports) = self.world.imports else { return Ok(Vec::new()) };
        let upon = match self.root_of(id) {
            None => vec![None],
            Some(root) => self.chains_of(root)?,
        };
        let mut found = imports.find(key, &upon);
        found.retain(|result| self.expired(id, result.created).is_none());
        Ok(found)
    }

    /// Lays a linked layer upon its root without looking at the files of either.
    fn merge_unseen(&mut self, id: VertexId, layer: VertexId) -> Result<(), SolveError> {
        let is_done = |id| self.node(id).state == State::Done;
        let root = self.root_of(id).filter(|root| is_done(*root) && is_done(layer));
        let Some(root) = root.filter(|_| self.world.imports.is_some()) else {
            self.node_mut(id).state = State::Missed;
            return self.run_when_possible(id);
        };
        let mut unseen = Vec::new();
        for upon in self.chains_of(root)? {
            for diff_id in self.diff_ids_of(layer)? {
                unseen.push(Unseen { upon, diff_id, result: None });
            }
        }
        self.node_mut(id).unseen = unseen;
        self.done(id, None)
    }

    /// What the layer of a linked copy may be, as far as it is known.
    fn diff_ids_of(&self, layer: VertexId) -> Result<Vec<Digest>, SolveError> {
        let node = self.node(layer);
        let Some(snapshot) = &node.snapshot else {
            return Ok(node.unseen.iter().map(|unseen| unseen.diff_id).collect());
        };
        let known = self.world.store.snapshots().meta(snapshot)?;
        Ok(known.and_then(|snapshot| snapshot.meta.diff_id).into_iter().collect())
    }

    /// What the chain id of a result with everything below it may be, as far as it is known. That
    /// of nothing is `None`.
    fn chains_of(&self, id: VertexId) -> Result<Vec<Option<Digest>>, SolveError> {
        let node = self.node(id);
        if let Op::Source(Source::Image { reference, platform }) = self.op(id) {
            let diff_ids = self
                .world
                .images
                .diff_ids(reference, platform)
                .map_err(|error| self.failure_of(id, error, Vec::new()))?;
            return Ok(vec![chain_ids(&diff_ids).pop()]);
        }
        let Some(snapshot) = node.snapshot.as_ref().filter(|_| node.state == State::Done) else {
            return Ok(node.unseen.iter().map(|unseen| Some(unseen.chain_id())).collect());
        };
        let known = self.world.store.snapshots().meta(snapshot)?;
        let chain_id = known.and_then(|snapshot| snapshot.meta.chain_id);
        Ok(chain_id.map(Some).into_iter().collect())
    }

    /// Whether `id` has a result that nobody here has seen the files of.
    pub(super) fn is_unseen(&self, id: VertexId) -> bool {
        let node = self.node(id);
        let has_none = node.state == State::Done && node.snapshot.is_none();
        has_none && !matches!(self.op(id), Op::Source(_))
    }

    /// An unseen result is wanted: decides which it is, and which those below it are. Says whether
    /// there still is one: since it was found, others may have decided otherwise further down.
    pub(super) fn settle_on_one(&mut self, id: VertexId) -> Result<bool, SolveError> {
        // A merge with a layer that is not packed yet lays no condition upon what is below it.
        if !self.is_unseen(id) || self.node(id).settled || self.node(id).unseen.is_empty() {
            return Ok(true);
        }
        let choices = 0..self.node(id).unseen.len();
        let mut way = None;
        for choice in choices {
            way = self.way_down(id, choice)?;
            if way.is_some() {
                break;
            }
        }
        let Some(way) = way else {
            self.run_after_all(id)?;
            return Ok(false);
        };
        for (at, choice) in way {
            let one = self.node_mut(at).unseen.swap_remove(choice);
            if let Some(layer) = self.layer_of(at) {
                self.node_mut(layer).unseen.retain(|unseen| unseen.diff_id == one.diff_id);
            }
            let node = self.node_mut(at);
            (node.unseen, node.settled) = (vec![one], true);
        }
        Ok(true)
    }

    /// The results below `id` that one of its own was made upon.
    fn way_down(
        &self,
        id: VertexId,
        choice: usize,
    ) -> Result<Option<Vec<(VertexId, usize)>>, SolveError> {
        let (mut at, mut choice) = (id, choice);
        let mut way = Vec::new();
        loop {
            let one = &self.node(at).unseen[choice];
            if let Some(layer) = self.layer_of(at)
                && !self.diff_ids_of(layer)?.contains(&one.diff_id)
            {
                return Ok(None);
            }
            let upon = one.upon;
            way.push((at, choice));
            let Some(root) = self.root_of(at) else { return Ok(Some(way)) };
            if !self.is_unseen(root) || self.node(root).settled {
                let fits = self.chains_of(root)?.contains(&upon);
                return Ok(fits.then_some(way));
            }
            let mut below = self.node(root).unseen.iter();
            match below.position(|unseen| Some(unseen.chain_id()) == upon) {
                Some(found) => (at, choice) = (root, found),
                None => return Ok(None),
            }
        }
    }

    /// The result that was decided on, as a cache has it.
    fn elsewhere(&self, id: VertexId) -> Option<&RemoteResult> {
        self.node(id).unseen.first()?.result.as_ref().filter(|_| self.node(id).snapshot.is_none())
    }

    /// The layer of an unseen result. That of a merge is its linked layer's.
    pub(super) fn layer_elsewhere(&self, id: VertexId) -> Option<Layer> {
        let RemoteResult { diff_id, tar_size, created, .. } = *self.elsewhere(id)?;
        Some(Layer { snapshot: None, diff_id, tar_size, created })
    }

    /// Starts to bring the bytes of an unseen result's layer.
    pub(super) fn fetch(&mut self, id: VertexId) -> Result<(), SolveError> {
        let found = self.elsewhere(id).cloned();
        let (Some(imports), Some(found)) = (self.world.imports, found) else { return Ok(()) };
        if self.node(id).arrival.is_some() {
            return Ok(());
        }
        self.node_mut(id).arrival = Some(Arrival::Fetching);
        let (ctx, cancel, checked) = (self.ctx, self.cancel, self.policy.bytes);
        self.spawn(move || {
            let ctx = Ctx::new(ctx.progress, cancel);
            let fetched = imports.fetch(&found, ctx);
            let result = match checked {
                true => fetched.and_then(|()| imports.check(&found, ctx)),
                false => fetched,
            };
            Message::Fetched { vertex: id, result }
        })
    }

    /// Everything below an unseen result is there: makes it a snapshot. Says whether it is one.
    pub(super) fn bring(&mut self, id: VertexId) -> Result<bool, SolveError> {
        if let Some(layer) = self.layer_of(id) {
            if !self.need_files(layer)? {
                return Ok(false);
            }
            let parent = self.root_of(id).and_then(|root| self.chain(root).pop());
            let Some(files) = &self.node(layer).snapshot else { return Ok(false) };
            let snapshot = self.world.store.snapshots().stack(files, parent, "merge")?;
            self.record(id, snapshot.clone(), None, std::time::Duration::ZERO, None)?;
            self.node_mut(id).snapshot = Some(snapshot);
            return Ok(true);
        }
        if self.node(id).arrival != Some(Arrival::Fetched) {
            return Ok(false);
        }
        let found = self.elsewhere(id).cloned();
        let (Some(imports), Some(found)) = (self.world.imports, found) else { return Ok(false) };
        self.node_mut(id).arrival = Some(Arrival::Unpacking);
        let below = self.root_of(id).map(|root| self.chain(root)).unwrap_or_default();
        let record = self.record_of(id, found.key, found.inputs.clone(), found.duration_ms);
        let record = StepRecord { created: found.created, ..record };
        let definition = self.node(id).definition;
        let (world, ctx, cancel) = (self.world, self.ctx, self.cancel);
        self.spawn(move || {
            let ctx = Ctx::new(ctx.progress, cancel);
            let result = unpack(&world, imports, &found, &below, record, definition, ctx);
            Message::Arrived { vertex: id, result }
        })?;
        Ok(false)
    }

    /// Bytes of a layer are in the store.
    pub(super) fn fetched(
        &mut self,
        id: VertexId,
        result: Result<(), StepError>,
    ) -> Result<(), SolveError> {
        match result {
            // The step was begun meanwhile.
            _ if self.elsewhere(id).is_none() => Ok(()),
            Ok(()) => {
                self.node_mut(id).arrival = Some(Arrival::Fetched);
                self.advance_all();
                Ok(())
            }
            Err(error) => self.refuse(id, error),
        }
    }

    /// A layer is a snapshot.
    pub(super) fn arrived(
        &mut self,
        id: VertexId,
        result: Result<SnapshotId, StepError>,
    ) -> Result<(), SolveError> {
        match result {
            _ if self.elsewhere(id).is_none() => Ok(()),
            Ok(snapshot) => {
                let node = self.node(id);
                if let (Some(own), Some(key)) = (node.own_key, &node.key) {
                    let record = self.record_of(id, own, key.inputs.clone(), 0);
                    let result = node.unseen.first().and_then(|unseen| unseen.result.as_ref());
                    let created = result.map_or(record.created, |result| result.created);
                    let record = StepRecord { created, ..record };
                    let (snapshot, same_as) = (Some(snapshot.clone()), Some(key.digest));
                    let record = StepRecord { snapshot, same_as, ..record };
                    self.world.store.records().put(&record)?;
                }
                self.node_mut(id).snapshot = Some(snapshot);
                self.advance_all();
                Ok(())
            }
            Err(error) => self.refuse(id, error),
        }
    }

    /// A layer is not what it should be: says so, and goes on without it.
    fn refuse(&mut self, id: VertexId, error: StepError) -> Result<(), SolveError> {
        if let StepError::Cancelled(cancelled) = error {
            return Err(cancelled.into());
        }
        let name = &self.graph.vertex(id).name;
        let message = format!("{name} is not taken from the cache: {error}");
        self.ctx.report(Event::Notice { message });
        self.node_mut(id).refused = Some(Reason::Lost);
        self.run_after_all(id)
    }

    /// A result from elsewhere is of no use: its step runs, and so do the steps whose results were
    /// taken upon it.
    fn run_after_all(&mut self, id: VertexId) -> Result<(), SolveError> {
        let mut above = vec![id];
        let mut renamed = Vec::new();
        while let Some(at) = above.pop() {
            if !matches!(self.op(at), Op::Merge) {
                self.cached -= 1;
            }
            self.forget_unseen(at);
            let node = self.node_mut(at);
            node.state = State::Missed;
            // It takes nobody's place any more.
            if let (Some(own), Some(key)) = (node.own_key.take(), &mut node.key) {
                key.digest = own;
                renamed.push(at);
            }
            for user in self.graph.users(at) {
                let stands_on = self.root_of(user) == Some(at) || self.layer_of(user) == Some(at);
                if stands_on && self.is_unseen(user) {
                    above.push(user);
                }
            }
        }
        for at in renamed {
            self.forget_keys_above(at);
        }
        self.advance_all();
        Ok(())
    }

    fn forget_unseen(&mut self, id: VertexId) {
        let node = self.node_mut(id);
        (node.settled, node.arrival) = (false, None);
        node.unseen.clear();
        self.packed[id.0] = None;
        self.packing.remove(&id);
    }

    /// A result of the store stands upon a tree of the store, whatever lies elsewhere.
    pub(super) fn prefer_local(&mut self, id: VertexId, snapshot: SnapshotId) {
        self.forget_unseen(id);
        self.node_mut(id).snapshot = Some(snapshot);
    }

    /// Tells the caches that results go to of a step that has one.
    pub(super) fn tell_exports(&self, id: VertexId) {
        let (Some(exports), Some(key)) = (self.world.exports, self.key_of(Some(id))) else {
            return;
        };
        if matches!(self.op(id), Op::Source(_) | Op::Merge) {
            return;
        }
        let node = self.node(id);
        let in_target = self.layers_of_targets[id.0];
        let tell = |elsewhere| {
            let definition = node.definition;
            let own_key = node.own_key;
            exports.finished(FinishedStep { key, definition, own_key, elsewhere, in_target });
        };
        match node.snapshot {
            Some(_) => tell(None),
            None => node.unseen.iter().for_each(|unseen| tell(unseen.result.clone())),
        }
    }
}

/// Makes a layer from elsewhere a snapshot with a record, unless somebody else has made one of the
/// step meanwhile: what was made here counts more.
fn unpack(
    world: &World<'_>,
    imports: &dyn Imports,
    found: &RemoteResult,
    below: &[SnapshotId],
    record: StepRecord,
    definition: Option<Digest>,
    ctx: Ctx<'_>,
) -> Result<SnapshotId, StepError> {
    let records = world.store.records();
    let _lock = world.store.step_lock(&found.key, ctx.cancel)?;
    let snapshot = imports.unpack(found, below, ctx)?;
    if records.get(&found.key)?.is_none() {
        records.put(&StepRecord { snapshot: Some(snapshot.clone()), ..record })?;
        if let Some(definition) = definition {
            records.alias(&definition, &found.key)?;
        }
    }
    Ok(snapshot)
}
