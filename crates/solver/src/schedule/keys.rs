//! From a vertex to its key, and from a key to a result.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_cache::{SnapshotId, StepRecord};
use rbuild_image::manifest::chain_ids;
use rbuild_plan::VertexId;
use rbuild_plan::op::{CopySource, Op, Source};
use rbuild_types::{Ctx, Diagnostic, Digest, Event, Reason, StepId};

use super::Coordinator;
use super::node::State;
use super::threads::Message;
use crate::error::{SolveError, StepError};
use crate::key::{self, Key};
use crate::steps::copy::Trees;
use crate::steps::mounts::context;
use crate::steps::run;

impl Coordinator<'_, '_> {
    /// All inputs have keys: makes the vertex' own, or finds out what that takes.
    pub(super) fn find_key(&mut self, id: VertexId) -> Result<(), SolveError> {
        self.node_mut(id).fresh = self.is_fresh(id);
        match self.op(id) {
            Op::Source(Source::Image { reference, platform }) => {
                let diff_ids = self
                    .world
                    .images
                    .diff_ids(reference, platform)
                    .map_err(|error| self.failure_of(id, error, Vec::new()))?;
                self.node_mut(id).key = Some(key::source(&diff_ids));
                self.take_unpacked(id, &diff_ids)?;
                self.done(id, None)
            }
            Op::Source(source @ (Source::Http(_) | Source::Git(_))) => {
                self.node_mut(id).state = State::Selecting;
                // A server may take its time: who waits for it uses that for the other inputs.
                self.stall(id);
                let (remotes, ctx, cancel) = (self.world.remotes, self.ctx, self.cancel);
                self.spawn(move || {
                    let ctx = Ctx::new(ctx.progress, cancel);
                    Message::Identified { vertex: id, result: remotes.identify(source, ctx) }
                })
            }
            Op::Run(run) if context::shows_context(run) => {
                self.node_mut(id).state = State::Selecting;
                let (world, cancel) = (self.world, self.cancel);
                self.spawn(move || {
                    let result = context::shown_of_context(&world, run, cancel);
                    Message::Digested { vertex: id, result }
                })
            }
            Op::Run(_) | Op::Mkdir(_) | Op::Merge => {
                let key = self.step_key(id, &self.input_keys(id))?;
                self.look_up(id, key)
            }
            Op::Copy(copy) => {
                let reads_context =
                    copy.sources.iter().any(|source| matches!(source, CopySource::Context { .. }));
                if !reads_context {
                    let definition = key::definition(self.op(id), &self.input_keys(id), None);
                    self.node_mut(id).definition = Some(definition);
                    let mut known = self.world.store.records().get_alias(&definition)?;
                    let fresh = self.node(id).fresh
                        || self.files_of(id).iter().any(|input| self.node(*input).fresh);
                    if known.is_none() && !fresh {
                        if !self.indexes_are_read()? {
                            return Ok(());
                        }
                        known = self.alias_elsewhere(&definition);
                    }
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

    /// The key of a step that is no copy, with these keys and digests of what it reads.
    pub(super) fn step_key(&self, id: VertexId, content: &[Digest]) -> Result<Key, SolveError> {
        let root = self.key_of(self.root_of(id));
        let secrets = self.world.secrets.of(self.op(id), self.world.store)?;
        Ok(key::step(self.op(id), root, content, &secrets.in_key))
    }

    /// Whether earlier results of a vertex do not count. Those of what stands on something fresh
    /// do not either.
    fn is_fresh(&self, id: VertexId) -> bool {
        let fresh = |input: VertexId| self.node(input).fresh;
        self.graph.vertex(id).no_cache
            || match self.op(id) {
                Op::Run(_) | Op::Merge => self.inputs(id).iter().any(|input| fresh(*input)),
                _ => self.root_of(id).is_some_and(fresh),
            }
    }

    pub(super) fn look_up(&mut self, id: VertexId, key: Key) -> Result<(), SolveError> {
        let digest = key.digest;
        self.node_mut(id).key = Some(key);
        let mut record =
            if self.node(id).fresh { None } else { self.world.store.records().get(&digest)? };
        if let Some(expired) = record.as_ref().and_then(|found| self.expired(id, found.created)) {
            let node = self.node_mut(id);
            (node.fresh, node.refused) = (true, Some(expired));
            record = None;
        }
        if let Some(found) = &record
            && let Some(root) = self.stands_elsewhere(id, found)?
        {
            let changed = self.below(root);
            let node = self.node_mut(id);
            (node.fresh, node.refused) = (true, Some(changed));
            record = None;
        }
        match record {
            Some(record) => {
                if let Some(definition) = self.node(id).definition {
                    self.world.store.records().alias(&definition, &digest)?;
                }
                self.hit(id, record)
            }
            None => {
                self.advance_users(id);
                if !self.node(id).fresh {
                    return self.ask(id);
                }
                self.node_mut(id).state = State::Missed;
                self.run_when_possible(id)
            }
        }
    }

    /// The root of a result that was not made upon what that root is now: one that was made anew
    /// has the same key, and perhaps other files.
    fn stands_elsewhere(
        &self,
        id: VertexId,
        record: &StepRecord,
    ) -> Result<Option<VertexId>, SolveError> {
        let root = self.root_of(id).filter(|root| self.node(*root).state == State::Done);
        let Some((root, snapshot)) = root.zip(record.snapshot.as_ref()) else { return Ok(None) };
        let node = self.node(root);
        let top = node.snapshot.as_ref().or(node.unpacked.as_ref().and_then(|all| all.last()));
        let Some(top) = top else { return Ok(None) };
        let snapshots = self.world.store.snapshots();
        let Some(found) = snapshots.meta(snapshot)? else { return Ok(None) };
        let Some(parent) = found.meta.parent.filter(|parent| parent != top) else {
            return Ok(None);
        };
        // Of one content there may be two trees.
        let chain_id =
            |id| Ok::<_, SolveError>(snapshots.meta(id)?.and_then(|it| it.meta.chain_id));
        let (was, is) = (chain_id(&parent)?, chain_id(top)?);
        Ok((was.is_none() || was != is).then_some(root))
    }

    /// Whether a result of this time, in milliseconds since 1970, is older than one of `id` may be.
    pub(super) fn expired(&self, id: VertexId, created: i64) -> Option<Reason> {
        let vertex = self.graph.vertex(id);
        // A merge is as old as what it lays together.
        if matches!(vertex.op, Op::Merge) {
            return None;
        }
        let of_all = self.world.ttl.filter(|_| matches!(vertex.op, Op::Run(_)));
        let ttl = vertex.ttl.or(of_all)?.as_secs();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // A clock that was set back makes nothing old.
        let age = u64::try_from(i128::try_from(now).ok()? - i128::from(created)).ok()? / 1000;
        (age >= ttl).then_some(Reason::Expired { age, ttl })
    }

    /// A result is used whatever value a secret had when it was made; if it had another, somebody
    /// may wonder.
    fn warn_of_secrets(&self, id: VertexId, record: &StepRecord) -> Result<(), SolveError> {
        let used = self.world.secrets.of(self.op(id), self.world.store)?.others;
        let changed = used
            .iter()
            .find(|(secret, mac)| record.secrets.get(*secret).is_some_and(|known| known != *mac));
        let Some((secret, _)) = changed else { return Ok(()) };
        let vertex = self.graph.vertex(id);
        let message = format!(
            "secret {secret} has another value than when this step ran, and its result was taken \
             from the cache"
        );
        let warning = Diagnostic::warning("stale-secret", vertex.span.unwrap_or_default(), message)
            .help(format!("with --secret id={secret},…,key=content the value counts"));
        self.ctx.report(Event::Warning(warning));
        Ok(())
    }

    /// An image whose layers are all in the store needs nobody to unpack it.
    fn take_unpacked(&mut self, id: VertexId, diff_ids: &[Digest]) -> Result<(), SolveError> {
        let mut layers = Vec::new();
        for chain_id in chain_ids(diff_ids) {
            match self.world.store.snapshots().by_chain_id(&chain_id)? {
                Some(snapshot) => layers.push(snapshot),
                None => return Ok(()),
            }
        }
        self.node_mut(id).unpacked = Some(layers);
        self.ctx.report(Event::StepCached { step: StepId(id.0) });
        Ok(())
    }

    pub(super) fn hit(&mut self, id: VertexId, record: StepRecord) -> Result<(), SolveError> {
        self.count_cached(id);
        self.warn_of_secrets(id, &record)?;
        self.node_mut(id).log = record.log;
        if let Some(key) = record.same_as {
            self.take_the_place_of(id, key);
        }
        self.done(id, record.snapshot)
    }

    /// The result of `id` is one of an earlier build. To lay a layer upon another is no step.
    pub(super) fn count_cached(&mut self, id: VertexId) {
        if !matches!(self.op(id), Op::Merge) {
            self.cached += 1;
            self.ctx.report(Event::StepCached { step: StepId(id.0) });
        }
    }

    pub(super) fn done(
        &mut self,
        id: VertexId,
        snapshot: Option<SnapshotId>,
    ) -> Result<(), SolveError> {
        let node = self.node_mut(id);
        node.state = State::Done;
        node.snapshot = snapshot;
        node.selection = None;
        let wanted = node.wanted;
        self.tell_exports(id);
        self.advance_users(id);
        if wanted { self.want_below(id) } else { Ok(()) }
    }

    pub(super) fn select_when_possible(&mut self, id: VertexId) -> Result<(), SolveError> {
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
            let select = || {
                let trees = Trees::mount(world, copy, &chains)?;
                Ok((trees.select(copy, cancel)?, trees.owner(copy)?))
            };
            Message::Selected { vertex: id, result: select() }
        })
    }

    pub(super) fn run_when_possible(&mut self, id: VertexId) -> Result<(), SolveError> {
        if !self.node(id).wanted {
            return Ok(());
        }
        if let Some(layer) = self.layer_of(id) {
            return self.merge_when_possible(id, layer);
        }
        let by_alias = self.node(id).key.as_ref().is_some_and(|key| key.inputs.is_null());
        if by_alias && self.forget_keys_above(id) {
            // The files have to be there now, and may be others than an alias said.
            let node = self.node_mut(id);
            (node.state, node.key, node.own_key) = (State::NeedsFiles, None, None);
            return self.select_when_possible(id);
        }
        if let Op::Run(run) = self.op(id) {
            // Said before what it needs is made, which may take its time.
            run::check_platform(&self.world, run)
                .map_err(|error| self.failure_of(id, error, Vec::new()))?;
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

    /// Lays a linked layer upon its root as soon as both are there.
    fn merge_when_possible(&mut self, id: VertexId, layer: VertexId) -> Result<(), SolveError> {
        let Some(root) = self.root_of(id) else { return Ok(()) };
        let layer_is_there = self.need_files(layer)?;
        let below = self.need_files(root)?;
        let Some(files) = &self.node(layer).snapshot else { return Ok(()) };
        if !below || !layer_is_there || self.node(id).state != State::Missed {
            return Ok(());
        }
        let parent = self.chain(root).pop();
        let snapshot = self.world.store.snapshots().stack(files, parent, "merge")?;
        self.record(id, snapshot.clone(), None, Duration::ZERO, None)?;
        self.done(id, Some(snapshot))
    }

    /// Writes down what the key of `id` led to.
    pub(super) fn record(
        &self,
        id: VertexId,
        snapshot: SnapshotId,
        same_as: Option<Digest>,
        duration: Duration,
        log: Option<String>,
    ) -> Result<(), SolveError> {
        let Some(key) = &self.node(id).key else { return Ok(()) };
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let record = self.record_of(id, key.digest, key.inputs.clone(), duration_ms);
        let same_as = same_as.filter(|same| *same != key.digest);
        let secrets = self.world.secrets.of(self.op(id), self.world.store)?.others;
        let record = StepRecord { snapshot: Some(snapshot), same_as, secrets, log, ..record };
        self.world.store.records().put(&record)?;
        if let Some(definition) = self.node(id).definition {
            self.world.store.records().alias(&definition, &key.digest)?;
        }
        Ok(())
    }

    /// A record of `id` that has no result yet.
    pub(super) fn record_of(
        &self,
        id: VertexId,
        key: Digest,
        inputs: serde_json::Value,
        duration_ms: u64,
    ) -> StepRecord {
        let vertex = self.graph.vertex(id);
        let record = StepRecord::new(key, kind(&vertex.op), &vertex.name, inputs);
        StepRecord { root: self.key_of(self.root_of(id)), duration_ms, ..record }
    }

    /// Files of the context changed after they were selected: the step's result belongs to what
    /// it really read, and so do the keys of all that depend on it.
    pub(super) fn read_something_else(
        &mut self,
        id: VertexId,
        read: Vec<Digest>,
    ) -> Result<(), SolveError> {
        let root = self.key_of(self.root_of(id));
        let key = match (self.op(id), read.as_slice()) {
            (Op::Copy(copy), [content]) => key::copy(copy, root, self.node(id).owner, *content),
            (_, read) => {
                let mut content = self.input_keys(id);
                content.extend(read);
                self.step_key(id, &content)?
            }
        };
        if self.key_of(Some(id)) == Some(key.digest) {
            return Ok(());
        }
        self.node_mut(id).key = Some(key);
        self.node_mut(id).definition = None;
        if self.forget_keys_above(id) {
            return Ok(());
        }
        // Something was found by a key that does not hold.
        let message = "files of the build context changed while they were read: build again";
        Err(self.failure_of(id, StepError::Missing(message.to_owned()), Vec::new()))
    }

    /// The result of `id` is that of an earlier step: what stands upon it is looked up as if it
    /// were that one.
    pub(super) fn take_the_place_of(&mut self, id: VertexId, key: Digest) {
        let node = self.node_mut(id);
        node.fresh = false;
        if let Some(found) = &mut node.key {
            node.own_key = Some(std::mem::replace(&mut found.digest, key));
        }
        // Whatever was found by the other key is right too.
        self.forget_keys_above(id);
    }

    /// The key of `id` is another: those that were made of it are made anew. Says whether nobody
    /// has used them yet.
    pub(super) fn forget_keys_above(&mut self, id: VertexId) -> bool {
        let mut unused = true;
        let mut above = VecDeque::from(self.graph.users(id));
        while let Some(user) = above.pop_front() {
            let node = self.node_mut(user);
            match node.state {
                State::Waiting => continue,
                State::NeedsFiles | State::Asking | State::Missed => {}
                State::Selecting | State::Running | State::Done => {
                    unused = false;
                    continue;
                }
            }
            (node.state, node.key, node.own_key, node.definition) =
                (State::Waiting, None, None, None);
            self.ready.remove(&user);
            above.extend(self.graph.users(user));
        }
        unused
    }

    /// An input has no key yet: if that takes a while, the other inputs use the time.
    pub(super) fn want_meanwhile(&mut self, id: VertexId) -> Result<(), SolveError> {
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

    pub(super) fn stall(&mut self, id: VertexId) {
        if !std::mem::replace(&mut self.node_mut(id).stalled, true) {
            self.advance_users(id);
        }
    }
}

/// A word for what a vertex does.
pub(super) fn kind(op: &Op) -> &'static str {
    match op {
        Op::Run(_) => "run",
        Op::Copy(_) => "copy",
        Op::Mkdir(_) => "mkdir",
        Op::Source(_) => "source",
        Op::Merge => "merge",
    }
}
