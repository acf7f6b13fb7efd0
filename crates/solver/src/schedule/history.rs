//! What the last build of the same did: why a step runs now, and what the next build is told.
//!
//! A step of the last build is *the same step* as one of this when it is of the same stage and
//! reads the same; what is left over is paired in its order. The last build is read when the first
//! step misses: a build that runs nothing only writes.

use std::collections::HashMap;

use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::{BuildRecord, BuiltStep, FailedStep, Outcome, SnapshotId, StepRecord};
use rbuild_plan::op::{Op, Source};
use rbuild_plan::{Graph, VertexId, without_passwords};
use rbuild_types::{Digest, Event, Reason, StepId};
use serde_json::Value;

use super::Coordinator;
use super::import::Indexes;
use super::keys::kind;
use super::node::State;
use super::threads::log_name;
use crate::copy::{Listing, Selection};
use crate::elsewhere::EarlierStep;
use crate::error::{SolveError, StepError};
use crate::why::{self, Step, Surroundings, text_of};

/// What a step made before, and out of which files.
pub(super) struct Nearest {
    pub(super) record: StepRecord,
    pub(super) listing: Option<Listing>,
}

/// The last build, seen from this one.
pub(super) struct History {
    /// By vertex: what became of it then.
    steps: Vec<Option<BuiltStep>>,
    /// What is known of its steps where it was another machine's.
    elsewhere: HashMap<Digest, EarlierStep>,
    /// Made before the caches elsewhere could say what they know.
    is_early: bool,
}

impl History {
    /// Of a build on another machine.
    fn of_other(steps: Vec<EarlierStep>, graph: &Graph) -> Self {
        let stages: HashMap<&str, &str> = graph
            .vertices()
            .map(|(_, vertex)| (place_of(&vertex.name).0, vertex.stage.as_str()))
            .collect();
        let mut steps: Vec<_> = steps
            .into_iter()
            .filter_map(|step| Some((stages.get(place_of(&step.name).0)?.to_string(), step)))
            .collect();
        steps.sort_by_key(|(_, step)| place_of(&step.name).1);
        let built = |(stage, step): &(String, EarlierStep)| BuiltStep {
            name: step.name.clone(),
            stage: stage.clone(),
            op: step.op.clone(),
            outcome: Outcome::Ran,
            key: Some(step.key),
            known: Some(step.key),
            identity: None,
            reasons: Vec::new(),
            duration_ms: 0,
            snapshot: None,
            log: None,
            inputs: Vec::new(),
            failure: None,
        };
        let last = BuildRecord { steps: steps.iter().map(built).collect(), ..<_>::default() };
        let elsewhere = steps.into_iter().map(|(_, step)| (step.key, step)).collect();
        Self { elsewhere, ..Self::new(last, graph) }
    }

    fn new(last: BuildRecord, graph: &Graph) -> Self {
        let mut last: Vec<Option<BuiltStep>> = last.steps.into_iter().map(Some).collect();
        let mut steps: Vec<Option<BuiltStep>> = graph.vertices().map(|_| None).collect();
        // Once for those with the same text, then for those that it was taken from.
        for same_text in [true, false] {
            let mut waiting: HashMap<(String, &str, String), Vec<usize>> = HashMap::new();
            let text =
                |name: &str| if same_text { text_of(name).to_owned() } else { String::new() };
            for (at, step) in last.iter().enumerate().rev() {
                let Some(step) = step else { continue };
                let place = (step.stage.clone(), static_kind(&step.op), text(&step.name));
                waiting.entry(place).or_default().push(at);
            }
            for (id, vertex) in graph.vertices() {
                let place = (vertex.stage.clone(), kind(&vertex.op), text(&vertex.name));
                if steps[id.0].is_none()
                    && let Some(at) = waiting.get_mut(&place).and_then(Vec::pop)
                {
                    steps[id.0] = last[at].take();
                }
            }
        }
        Self { steps, elsewhere: HashMap::new(), is_early: false }
    }

    fn of(&self, id: VertexId) -> Option<&BuiltStep> {
        self.steps.get(id.0)?.as_ref()
    }
}

/// The stage and the number in a name: `build` and 2 of `[build 2/5] RUN make`.
fn place_of(name: &str) -> (&str, usize) {
    let place = name.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let place = place.map_or("", |(place, _)| place);
    let (stage, number) = place.rsplit_once(' ').unwrap_or(("", place));
    let number = number.split_once('/').and_then(|(number, _)| number.parse().ok());
    (stage, number.unwrap_or_default())
}

/// The word of [`kind`] that this is.
fn static_kind(op: &str) -> &'static str {
    ["run", "copy", "mkdir", "source", "merge"].into_iter().find(|kind| *kind == op).unwrap_or("")
}

impl Coordinator<'_, '_> {
    fn history(&mut self) -> Result<&History, SolveError> {
        let is_read = self.indexes == Indexes::Read;
        if self.history.as_ref().is_none_or(|history| history.is_early && is_read) {
            let last = self.world.store.builds().last_of(self.world.project)?;
            self.history = Some(match (last, self.world.imports) {
                (Some(last), _) => History::new(last, self.graph),
                // The first build here, but perhaps not the first.
                (None, Some(imports)) if is_read => {
                    History::of_other(imports.last_build(), self.graph)
                }
                (None, Some(_)) => {
                    let none = History::new(BuildRecord::default(), self.graph);
                    History { is_early: true, ..none }
                }
                (None, None) => History::new(BuildRecord::default(), self.graph),
            });
        }
        // Set above.
        self.history.as_ref().ok_or(SolveError::Stuck)
    }

    /// Says why `id`, which is about to run, was not found.
    pub(super) fn explain(&mut self, id: VertexId) -> Result<(), SolveError> {
        self.history()?;
        let earlier = self.earlier(id)?;
        let reasons = self.reasons(id, earlier.as_ref())?;
        if let Some(reason) = reasons.first().cloned() {
            self.ctx.report(Event::StepMissed { step: StepId(id.0), reason });
        }
        let node = self.node_mut(id);
        (node.reasons, node.earlier) = (reasons, earlier);
        Ok(())
    }

    fn reasons(&self, id: VertexId, earlier: Option<&Nearest>) -> Result<Vec<Reason>, SolveError> {
        let vertex = self.graph.vertex(id);
        if vertex.no_cache {
            return Ok(vec![Reason::NoCache]);
        }
        if let Some(refused) = &self.node(id).refused {
            return Ok(vec![refused.clone()]);
        }
        if self.node(id).fresh {
            let fresh = self.inputs(id).iter().find(|input| self.node(**input).fresh);
            return Ok(fresh.map(|input| self.below(*input)).into_iter().collect());
        }
        let Some(key) = &self.node(id).key else { return Ok(vec![Reason::Unknown]) };
        let records = self.world.store.records();
        if let Some(at) = records.evicted(&key.digest)? {
            return Ok(vec![Reason::Evicted { at }]);
        }
        let last = self.history.as_ref().and_then(|history| history.of(id));
        let known = last.and_then(|last| last.known);
        if known == Some(key.digest) && self.is_elsewhere(&key.digest) {
            // What it made was made upon other files.
            let below = self.root_of(id).map(|root| self.below(root));
            return Ok(vec![below.unwrap_or(Reason::Lost)]);
        }
        if known == Some(key.digest) || records.peek(&key.digest)?.is_some() {
            return Ok(vec![Reason::Lost]);
        }
        if last.is_some_and(|last| last.key == Some(key.digest)) {
            return Ok(vec![Reason::Unfinished]);
        }
        Ok(match (earlier, last) {
            (Some(earlier), _) => self.compare(id, earlier),
            (None, None) => vec![Reason::New],
            (None, Some(last)) => {
                let (old, new) = (text_of(&last.name), text_of(&vertex.name));
                let text = Reason::Text { old: old.to_owned(), new: new.to_owned() };
                vec![match (old == new, known) {
                    (false, _) => text,
                    (true, Some(_)) => Reason::Unknown,
                    (true, None) => Reason::Unfinished,
                }]
            }
        })
    }

    /// The nearest earlier result of the step, if one is known and counts.
    fn earlier(&self, id: VertexId) -> Result<Option<Nearest>, SolveError> {
        let vertex = self.graph.vertex(id);
        if vertex.no_cache {
            return Ok(None);
        }
        let last = self.history.as_ref().and_then(|history| history.of(id));
        let store = self.world.store;
        let record = match last.and_then(|last| last.known) {
            Some(known) => match store.records().peek(&known)? {
                None => self.record_elsewhere(&known),
                found => found,
            },
            // Another project, or a checkout of it elsewhere, may have had the step.
            None => store.records().by_step_name(&vertex.name, 1)?.into_iter().next(),
        };
        let Some(record) = record else { return Ok(None) };
        let listing = match &record.snapshot {
            Some(snapshot) => Listing::of(store, snapshot)?,
            None => None,
        };
        Ok(Some(Nearest { record, listing }))
    }

    fn is_elsewhere(&self, key: &Digest) -> bool {
        self.history.as_ref().is_some_and(|history| history.elsewhere.contains_key(key))
    }

    /// What another machine's record of a step says.
    fn record_elsewhere(&self, key: &Digest) -> Option<StepRecord> {
        let step = self.history.as_ref()?.elsewhere.get(key)?;
        let EarlierStep { key, op, name, inputs } = step.clone();
        (!inputs.is_null()).then(|| StepRecord::new(key, &op, &name, inputs))
    }

    fn compare(&self, id: VertexId, earlier: &Nearest) -> Vec<Reason> {
        let node = self.node(id);
        let Some(key) = &node.key else { return vec![Reason::Unknown] };
        let vertex = self.graph.vertex(id);
        let root = self.root_of(id);
        let others = self.inputs(id).iter().filter(|input| Some(**input) != root);
        let changed = others.filter(|input| self.has_changed(**input));
        let inputs = changed.map(|input| match self.below(*input) {
            Reason::Below { step } => Reason::Input { step },
            source => source,
        });
        let surroundings = Surroundings {
            args: &vertex.args,
            root: root.map(|root| self.below(root)),
            inputs: inputs.collect(),
        };
        let selected = node.selection.as_ref().map(Selection::inputs);
        let is = selected.as_deref().unwrap_or(&node.shown.files);
        // Of two steps one of which has forgotten its files, nothing can be said of them.
        let was = earlier.listing.as_ref().map(|listing| listing.files.as_slice());
        let (was, is) = was.map_or((&[][..], &[][..]), |was| (was, is));
        let record = &earlier.record;
        let old = Step { name: &record.step_name, inputs: &record.inputs, files: was };
        let new = Step { name: &vertex.name, inputs: &key.inputs, files: is };
        why::differences(old, new, &surroundings)
    }

    fn has_changed(&self, id: VertexId) -> bool {
        let Some(history) = &self.history else { return true };
        // Caches elsewhere do not say what sources were.
        if !history.elsewhere.is_empty() && matches!(self.op(id), Op::Source(_)) {
            return false;
        }
        history.of(id).and_then(|last| last.known) != self.own_key(id)
    }

    /// What to say of a step that builds upon `id`, which is another than it was.
    pub(super) fn below(&self, id: VertexId) -> Reason {
        let last = self.history.as_ref().and_then(|history| history.of(id));
        let old = last.and_then(|last| last.identity.clone()).unwrap_or_default();
        let new = self.identity(id).unwrap_or_default();
        match self.op(id) {
            Op::Source(Source::Image { reference, .. }) => {
                let image = reference.without_digest().familiar();
                Reason::Base { image, old, new }
            }
            Op::Source(Source::Http(http)) => {
                Reason::Remote { name: without_passwords(&http.url), old, new }
            }
            Op::Source(Source::Git(git)) => {
                Reason::Remote { name: without_passwords(&git.remote), old, new }
            }
            Op::Merge => match (self.root_of(id), self.layer_of(id)) {
                (Some(root), _) if self.has_changed(root) => self.below(root),
                (_, Some(layer)) if self.has_changed(layer) => self.below(layer),
                (Some(below), _) | (None, Some(below)) => self.below(below),
                (None, None) => Reason::Unknown,
            },
            Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => {
                Reason::Below { step: self.graph.vertex(id).name.clone() }
            }
        }
    }

    /// What a source's name stands for: the digest of an image or a file, a commit.
    fn identity(&self, id: VertexId) -> Option<String> {
        let Op::Source(source) = self.op(id) else { return None };
        let inputs = &self.node(id).key.as_ref()?.inputs;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match source {
            Source::Image { reference, .. } => match reference.digest() {
                Some(digest) => Some(digest.to_string()),
                None => inputs["diff_ids"].as_array()?.last().and_then(text),
            },
            Source::Http(_) => text(&inputs["identity"]["digest"]),
            Source::Git(_) => text(&inputs["identity"]["commit"]),
        }
    }

    /// Writes down that steps run now, once: should the build be killed, what they wrote is found.
    pub(super) fn remember_begin(&mut self) -> Result<(), SolveError> {
        if self.began.is_some() {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.began = i64::try_from(now).ok();
        let build = self.build(false);
        Ok(self.world.store.builds().begin(self.world.project, build)?)
    }

    /// Writes down what became of every step, for the next build and for whoever asks.
    pub(super) fn remember(&mut self, succeeded: bool) -> Result<(), SolveError> {
        let is_known = |id: VertexId| self.node(id).state == State::Done;
        if !self.graph.vertices().all(|(id, _)| is_known(id)) {
            self.history()?;
        }
        let build = self.build(succeeded);
        Ok(self.world.store.builds().put(self.world.project, build)?)
    }

    /// Keeps how the first step to fail did.
    pub(super) fn note_failure(
        &mut self,
        id: VertexId,
        source: &StepError,
        kept: Option<SnapshotId>,
    ) {
        if self.failed() || matches!(source, StepError::Cancelled(_)) {
            return;
        }
        let code = match source {
            StepError::Exit { code, .. } | StepError::OutOfMemory { code, .. } => Some(*code),
            _ => None,
        };
        let node = self.node_mut(id);
        let inputs = node.key.as_ref().map_or(Value::Null, |key| key.inputs.clone());
        let message = source.to_string();
        node.failure = Some(FailedStep { message, code, snapshot: kept, inputs });
    }

    fn build(&self, succeeded: bool) -> BuildRecord {
        let steps = self.graph.vertices().filter(|(_, vertex)| !matches!(vertex.op, Op::Merge));
        BuildRecord {
            id: self.world.log_directory.to_owned(),
            title: self.world.project.to_owned(),
            context: self.world.context.and_then(|context| context.path.clone()),
            ignore_file: self.world.context.and_then(|context| context.ignore_path.clone()),
            network: self.world.network.map(|network| network.name().to_owned()),
            began: self.began.unwrap_or_default(),
            ended: 0,
            succeeded,
            steps: steps.map(|(id, _)| self.built(id)).collect(),
        }
    }

    fn built(&self, id: VertexId) -> BuiltStep {
        let (vertex, node) = (self.graph.vertex(id), self.node(id));
        let key = self.own_key(id);
        let done = node.state == State::Done;
        let known = match done {
            true => key,
            false => self.history.as_ref().and_then(|last| last.of(id)?.known),
        };
        let outcome = match (done, node.ran) {
            (true, Some(_)) => Outcome::Ran,
            (true, None) => Outcome::Cached,
            (false, _) if node.started.is_some() => Outcome::Failed,
            (false, _) => Outcome::Skipped,
        };
        let is_run = matches!(vertex.op, Op::Run(_));
        let log = match done || !is_run {
            true => node.log.clone(),
            false => Some(format!("{}/{}", self.world.log_directory, log_name(id))),
        };
        let inputs = match is_run && !self.files_of(id).is_empty() {
            true => self.inputs(id).iter().map(|input| self.top(*input)).collect(),
            false => Vec::new(),
        };
        BuiltStep {
            name: vertex.name.clone(),
            stage: vertex.stage.clone(),
            op: kind(&vertex.op).to_owned(),
            outcome,
            key,
            known,
            identity: self.identity(id),
            reasons: node.reasons.clone(),
            duration_ms: node.ran.unwrap_or_default().as_millis() as u64,
            snapshot: self.whole(id),
            log,
            inputs,
            failure: node.failure.clone(),
        }
    }

    /// The root filesystem after a step: that of a linked copy lies upon what it was laid upon.
    fn whole(&self, id: VertexId) -> Option<SnapshotId> {
        let is_linked = matches!(self.op(id), Op::Copy(copy) if copy.link);
        let users = if is_linked { self.graph.users(id) } else { Vec::new() };
        let merge = users.into_iter().find(|user| self.layer_of(*user) == Some(id));
        self.top(merge.unwrap_or(id))
    }

    /// The uppermost snapshot of a root filesystem, where its files are here.
    fn top(&self, id: VertexId) -> Option<SnapshotId> {
        let node = self.node(id);
        node.snapshot.clone().or_else(|| node.unpacked.as_ref()?.last().cloned())
    }
}
