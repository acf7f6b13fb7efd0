//! This build's results, sent to caches elsewhere while it still runs.
//!
//! The scheduler names each step that has a result; it never waits. For each cache one thread packs
//! and compresses their layers in that order, behind the steps, as exports of images do; a few
//! others ask whether the cache has a layer and send it. When the build is done, what is under way
//! may go on for the time that the cache allows, then its index is written, once, with what is
//! there by then. No cache waits for another: a slow one costs the others nothing.
//!
//! Writers do not know of each other. Each reads the index, adds its records, and replaces exactly
//! what it read; where the place cannot compare and replace in one step it looks again a little
//! later whether its records are still there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rbuild_cache::{SnapshotId, StepRecord};
use rbuild_image::manifest::{Descriptor, chain_id};
use rbuild_image::media_type::{Family, layer_compression};
use rbuild_solver::{Exports, FinishedStep, Imports as _, Layer, RemoteResult};
use rbuild_types::{CacheTraffic, CancelToken, Ctx, Digest, Event, ImageConfig};

use super::import::CacheImports;
use super::index::{Identity, Index, Record, shortened};
use super::mounts::{Sending, Sent, note_published};
use super::{CacheExport, CacheMode, inline};
use crate::cache_store::{self, CacheStore, CacheStoreError, Found};
use crate::export::layers;
use crate::sources::image::chain;
use crate::{BuildError, Engine};

/// Layers sent to one cache at once, as BuildKit's caches do.
const PARALLEL_LAYERS: usize = 4;
/// How often a wait looks at the cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);
/// Least and most time that writing the indexes may take beyond that.
const INDEX_TIME_MIN: Duration = Duration::from_secs(5);
const INDEX_TIME_MAX: Duration = Duration::from_secs(60);
/// Tries to write an index beside others that do the same.
const MAX_TRIES: usize = 30;

/// The caches that one build's results go to.
pub(crate) struct Exporting<'a> {
    engine: &'a Engine,
    imports: Option<&'a CacheImports<'a>>,
    targets: Vec<Target<'a>>,
    /// Whether the steps of images go into their configs.
    is_inline: bool,
    /// Those steps, where they do.
    inline: Mutex<Vec<FinishedStep>>,
    /// To the threads that compress; taken away when nothing more will come.
    steps: Mutex<Vec<Sender<FinishedStep>>>,
    /// The ids of cache mounts that steps name.
    named: &'a BTreeSet<String>,
    /// Held by the one who reads cache mounts.
    reading: Mutex<()>,
}

struct Target<'a> {
    request: &'a CacheExport,
    store: Box<dyn CacheStore>,
    made: Mutex<Made>,
    /// Ends what is under way: with the caller's token, when the build fails, and when the time of
    /// this cache is over.
    stop: CancelToken,
}

/// What has been sent to one cache.
#[derive(Default)]
struct Made {
    records: BTreeMap<Identity, Record>,
    /// By layer that is on its way: the records that it is sent for.
    waiting: BTreeMap<Digest, Vec<Record>>,
    sent_layers: usize,
    sent_bytes: u64,
    sent_mount_bytes: u64,
    /// The first thing that went wrong.
    failure: Option<String>,
}

/// A layer on its way.
struct Job {
    blob: Descriptor,
    /// Where its bytes are if not here.
    elsewhere: Option<RemoteResult>,
}

impl Target<'_> {
    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, problem: String) {
        self.lock().failure.get_or_insert(problem);
    }
}

/// Runs a build whose results go to `to`. What they cost is added to `traffic`.
///
/// # Errors
///
/// Those of the build; [`BuildError::CacheExport`] when a cache that must be written could not be.
pub(crate) fn with_exports<R>(
    engine: &Engine,
    imports: Option<&CacheImports<'_>>,
    to: &[CacheExport],
    named: &BTreeSet<String>,
    ctx: Ctx<'_>,
    traffic: &mut CacheTraffic,
    build: impl FnOnce(Option<&Exporting<'_>>) -> Result<R, BuildError>,
) -> Result<R, BuildError> {
    if to.is_empty() {
        return build(None);
    }
    let (mut targets, mut steps, mut finished) = (Vec::new(), Vec::new(), Vec::new());
    for request in to {
        if let Some(store) = cache_store::open(engine, &request.location)? {
            targets.push(Target { request, store, made: <_>::default(), stop: <_>::default() });
            let (sender, receiver) = channel();
            steps.push(sender);
            finished.push(receiver);
        }
    }
    let (is_inline, inline) = (targets.len() < to.len(), Mutex::default());
    let steps = Mutex::new(steps);
    let reading = Mutex::default();
    let exporting =
        Exporting { engine, imports, targets, is_inline, inline, steps, named, reading };
    let pool = engine.quiet_pool()?;
    pool.stand_back();
    let built = std::thread::scope(|scope| {
        let exporting = &exporting;
        let mut working = Vec::new();
        for (target, finished) in exporting.targets.iter().zip(finished) {
            let (done, is_done) = channel();
            working.push((target, is_done));
            scope.spawn(move || {
                exporting.work(target, &finished, Ctx::new(ctx.progress, &target.stop));
                let _ = done.send(());
            });
        }
        let built = build(Some(exporting));
        exporting.close();
        pool.hurry();
        for (target, is_done) in working {
            match built {
                Ok(_) => _ = scope.spawn(move || exporting.finish(target, &is_done, ctx)),
                Err(_) => target.stop.cancel(),
            }
        }
        built
    })?;
    ctx.cancel.check()?;
    exporting.tell(ctx, traffic)?;
    Ok(built)
}

/// Runs something that is cancelled with the caller's token, and when its time is over.
fn within<R>(limit: Duration, ctx: Ctx<'_>, work: impl FnOnce(Ctx<'_>) -> R) -> R {
    let stop = CancelToken::default();
    let (done, is_done) = channel::<()>();
    std::thread::scope(|scope| {
        let token = stop.clone();
        scope.spawn(move || {
            let began = Instant::now();
            while is_done.recv_timeout(CANCEL_TICK) == Err(RecvTimeoutError::Timeout) {
                if ctx.cancel.is_cancelled() || began.elapsed() >= limit {
                    token.cancel();
                }
            }
        });
        let result = work(Ctx::new(ctx.progress, &stop));
        drop(done);
        result
    })
}

impl Exporting<'_> {
    /// Puts the steps of an image that is solved into its config, if that is asked for.
    pub(crate) fn put_inline(
        &self,
        config: &mut ImageConfig,
        diff_ids: &[Digest],
    ) -> Result<(), BuildError> {
        if !self.is_inline {
            return Ok(());
        }
        let mut records = BTreeMap::new();
        for step in self.inline.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let record = match &step.elsewhere {
                Some(result) => self.imports.and_then(|imports| imports.record_of(result)),
                None => self.record_without_blob(step)?,
            };
            if let Some(mut record) = record {
                record.define(step.definition);
                record.define(step.own_key);
                records.insert(record.identity(), record);
            }
        }
        let failed = |source| BuildError::Io { what: "write the image's cache".to_owned(), source };
        inline::put(config, diff_ids, &records, self.engine.pool()?).map_err(failed)
    }

    /// The record of a step whose layer has its digests, as those of an image have.
    fn record_without_blob(&self, step: &FinishedStep) -> Result<Option<Record>, BuildError> {
        let store = &self.engine.store;
        let Some(known) = store.records().get(&step.key)? else { return Ok(None) };
        let Some(snapshot) = &known.snapshot else { return Ok(None) };
        let Some(made) = store.snapshots().meta(snapshot)? else { return Ok(None) };
        let upon = match &made.meta.parent {
            Some(parent) => store.snapshots().meta(parent)?.and_then(|parent| parent.meta.chain_id),
            None => None,
        };
        let Some((diff_id, tar_size)) = made.meta.diff_id.zip(made.meta.tar_size) else {
            return Ok(None);
        };
        let created = made.made();
        let layer = Layer { snapshot: Some(snapshot.clone()), diff_id, tar_size, created };
        Ok(Some(record(step, &known, upon, &layer)))
    }

    fn close(&self) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for what is under way to a cache, no longer than it allows, and writes its index.
    fn finish(&self, target: &Target<'_>, done: &Receiver<()>, ctx: Ctx<'_>) {
        let timeout = target.request.timeout;
        let began = Instant::now();
        while done.recv_timeout(CANCEL_TICK) == Err(RecvTimeoutError::Timeout) {
            let is_late = began.elapsed() >= timeout;
            if is_late {
                target.fail(format!("not all layers were sent within {} s", timeout.as_secs()));
            }
            if is_late || ctx.cancel.is_cancelled() {
                target.stop.cancel();
                let _ = done.recv();
                break;
            }
        }
        let mounts = within(timeout.saturating_sub(began.elapsed()), ctx, |inner| {
            self.send_mounts(target, inner)
        });
        let records = std::mem::take(&mut target.lock().records);
        let limit = timeout.clamp(INDEX_TIME_MIN, INDEX_TIME_MAX);
        match within(limit, ctx, |inner| self.write(target, &records, &mounts, inner)) {
            Ok(()) => {}
            Err(CacheStoreError::Cancelled(_)) => {
                target.fail("its index could not be written in time".to_owned());
            }
            // Without an index nobody finds the layers, whatever became of them.
            Err(error) => target.lock().failure = Some(chain(&error)),
        }
    }

    /// Compresses until no more steps come, with threads beside it that send.
    fn work(&self, target: &Target<'_>, finished: &Receiver<FinishedStep>, ctx: Ctx<'_>) {
        let (jobs, waiting) = channel();
        let waiting = Mutex::new(waiting);
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL_LAYERS {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = next else { break };
                        self.send(target, &job, ctx);
                    }
                });
            }
            for step in finished {
                if ctx.cancel.is_cancelled() {
                    break;
                }
                self.prepare(&step, target, &jobs, ctx);
            }
            drop(jobs);
        });
    }

    fn prepare(&self, step: &FinishedStep, target: &Target<'_>, jobs: &Sender<Job>, ctx: Ctx<'_>) {
        if target.request.mode == CacheMode::Min && !step.in_target {
            return;
        }
        let record = match &step.elsewhere {
            Some(result) => self.record_elsewhere(result, target, ctx),
            None => self.record(step, target, ctx),
        };
        match record {
            Ok(Some(mut record)) => {
                record.define(step.definition);
                record.define(step.own_key);
                let Some(blob) = record.blob.clone() else { return };
                let elsewhere = step.elsewhere.clone();
                // Several steps may give the same layer.
                let mut made = target.lock();
                let waiting = made.waiting.entry(blob.digest).or_default();
                waiting.push(record);
                if waiting.len() == 1 {
                    let _ = jobs.send(Job { blob, elsewhere });
                }
            }
            Err(_) if ctx.cancel.is_cancelled() => {}
            Ok(None) => {}
            Err(error) => target.fail(chain(&error)),
        }
    }

    /// The record of a step whose result is in the store, with its layer compressed.
    fn record(
        &self,
        step: &FinishedStep,
        target: &Target<'_>,
        ctx: Ctx<'_>,
    ) -> Result<Option<Record>, BuildError> {
        let store = &self.engine.store;
        let Some(known) = store.records().get(&step.key)? else { return Ok(None) };
        let Some(snapshot) = &known.snapshot else { return Ok(None) };
        let Some(made) = store.snapshots().meta(snapshot)? else { return Ok(None) };
        let upon = match &made.meta.parent {
            Some(parent) => Some(self.chain_id(parent, target, ctx)?),
            None => None,
        };
        let encoding = target.request.encoding;
        let (layer, blob) = layers::of_snapshot(self.engine, snapshot, encoding, ctx.cancel)?;
        let chain = chain_id(upon.as_ref(), &layer.diff_id);
        if made.meta.chain_id.is_none() {
            store.snapshots().set_diff(snapshot, layer.diff_id, layer.tar_size, chain)?;
        }
        let mut record = record(step, &known, upon, &layer);
        record.blob = Some(blob.descriptor);
        record.explain(known.inputs);
        Ok(Some(record))
    }

    /// The record of a step whose result came from a cache, as that cache has it.
    fn record_elsewhere(
        &self,
        result: &RemoteResult,
        target: &Target<'_>,
        ctx: Ctx<'_>,
    ) -> Result<Option<Record>, BuildError> {
        let Some(imports) = self.imports else { return Ok(None) };
        let Some(mut record) = imports.record_of(result) else { return Ok(None) };
        let encoding = target.request.encoding;
        let compression = record.blob.as_ref().map(|blob| layer_compression(&blob.media_type));
        let fits = compression == Some(Some(encoding.compression()));
        if target.request.force_compression && !fits {
            let failed = |error| BuildError::of_fetch(record.name.clone(), error);
            imports.fetch(result, ctx).map_err(failed)?;
            imports.check(result, ctx).map_err(failed)?;
            let RemoteResult { diff_id, tar_size, created, .. } = *result;
            let layer = Layer { snapshot: None, diff_id, tar_size, created };
            let family = Family::Oci;
            let blob = layers::recoded(self.engine, &layer, encoding, family, ctx.cancel)?;
            record.blob = Some(blob.descriptor);
        }
        Ok(Some(record))
    }

    /// The chain id of a snapshot, which is remembered for all below it too.
    fn chain_id(
        &self,
        snapshot: &SnapshotId,
        target: &Target<'_>,
        ctx: Ctx<'_>,
    ) -> Result<Digest, BuildError> {
        let snapshots = self.engine.store.snapshots();
        let missing = || rbuild_cache::CacheError::NoSnapshot { id: snapshot.to_string() };
        let mut below = None;
        for id in snapshots.chain(snapshot)? {
            let meta = snapshots.meta(&id)?.ok_or_else(missing)?.meta;
            let known = match meta.chain_id {
                Some(known) => known,
                None => {
                    let encoding = target.request.encoding;
                    let (layer, _) = layers::of_snapshot(self.engine, &id, encoding, ctx.cancel)?;
                    let chain = chain_id(below.as_ref(), &layer.diff_id);
                    snapshots.set_diff(&id, layer.diff_id, layer.tar_size, chain)?;
                    chain
                }
            };
            below = Some(known);
        }
        Ok(below.ok_or_else(missing)?)
    }

    /// Makes sure that a cache has a layer.
    fn send(&self, target: &Target<'_>, job: &Job, ctx: Ctx<'_>) {
        let sent = self.send_layer(target, job, ctx);
        let mut made = target.lock();
        let records = made.waiting.remove(&job.blob.digest).unwrap_or_default();
        match sent {
            Ok(sent) => {
                if sent {
                    made.sent_layers += 1;
                    made.sent_bytes = made.sent_bytes.saturating_add(job.blob.size);
                }
                made.records.extend(records.into_iter().map(|record| (record.identity(), record)));
            }
            Err(_) if ctx.cancel.is_cancelled() => {}
            Err(problem) => {
                made.failure.get_or_insert(problem);
            }
        }
    }

    /// Says whether it had to be sent.
    fn send_layer(&self, target: &Target<'_>, job: &Job, ctx: Ctx<'_>) -> Result<bool, String> {
        let blob = &job.blob;
        let said = |error: CacheStoreError| chain(&error);
        if target.store.has_blob(blob, ctx).map_err(said)? {
            return Ok(false);
        }
        let stores_blob = self.engine.store.blobs().contains(&blob.digest);
        if let (Some(result), Some(imports)) = (&job.elsewhere, self.imports)
            && !stores_blob.map_err(|error| error.to_string())?
        {
            imports.bring(result, ctx).map_err(|error| error.to_string())?;
        }
        target.store.put_blob(blob, &self.engine.store, ctx).map_err(said)?;
        Ok(true)
    }

    /// Counts what was sent, and says which caches are not complete: the first that must be is the
    /// error.
    fn tell(&self, ctx: Ctx<'_>, traffic: &mut CacheTraffic) -> Result<(), BuildError> {
        let mut error = None;
        for target in &self.targets {
            let mut made = target.lock();
            traffic.sent_layers += made.sent_layers;
            traffic.sent_bytes = traffic.sent_bytes.saturating_add(made.sent_bytes);
            traffic.sent_mount_bytes += made.sent_mount_bytes;
            let Some(problem) = made.failure.take() else { continue };
            let name = target.store.name();
            if target.request.must_succeed && error.is_none() {
                error = Some(BuildError::CacheExport { name, problem });
            } else {
                let message = format!("{name} is not complete: {problem}");
                ctx.report(Event::Notice { message });
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Sends the cache mounts that are asked for.
    fn send_mounts(&self, target: &Target<'_>, ctx: Ctx<'_>) -> Sent {
        let store = target.store.as_ref();
        let imports = self.imports;
        let failed = imports.map(|imports| imports.failed_mounts(store)).unwrap_or_default();
        let is_unread = imports.is_some_and(|imports| imports.is_unread(store));
        let (engine, named, reading) = (self.engine, self.named, &self.reading);
        let sending = Sending { engine, store, named, failed, is_unread, reading };
        let sent = sending.send(&target.request.mounts, ctx);
        if let Some(problem) = &sent.failure {
            target.fail(problem.clone());
        }
        target.lock().sent_mount_bytes = sent.bytes;
        sent
    }

    /// Adds records to the index of a cache so that nobody's are lost.
    fn write(
        &self,
        target: &Target<'_>,
        records: &BTreeMap<Identity, Record>,
        mounts: &Sent,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let store = target.store.as_ref();
        let mut replaced = None;
        let anew = |problem: &str, version| {
            let message = format!("{} starts anew: {problem}", store.name());
            ctx.report(Event::Notice { message });
            (Index::default(), Some(version))
        };
        for _ in 0..MAX_TRIES {
            ctx.cancel.check()?;
            let (index, expected) = match store.read_index(ctx)? {
                Found::Nothing => (Index::default(), None),
                Found::Foreign { version } | Found::Images { version, .. } => {
                    (Index::default(), Some(version))
                }
                Found::Index { bytes, version } => match Index::parse(&bytes) {
                    Ok(index) => (index, Some(version)),
                    Err(error) => anew(&error.to_string(), version),
                },
                Found::Broken { problem, version } => anew(&problem, version),
            };
            if index.covers(records) && index.covers_mounts(mounts, replaced.as_ref()) {
                return note_published(self.engine, store, mounts);
            }
            let found = index.mounts.clone();
            let next = index.with(records).with_mounts(mounts);
            let bytes = self.engine.pool().map_err(engine).and_then(|pool| {
                next.to_bytes(pool).map_err(|source| CacheStoreError::Io {
                    what: "write the index of a cache".to_owned(),
                    source,
                })
            })?;
            let written = store.write_index(&bytes, &next.layers(), expected, ctx)?;
            if written {
                replaced = Some(found);
            }
            match store.settles_after() {
                None if written => return note_published(self.engine, store, mounts),
                Some(pause) if written => sleep(jittered(pause), ctx.cancel),
                _ => sleep(jittered(CANCEL_TICK), ctx.cancel),
            }
        }
        let problem = "others write it all the time".to_owned();
        Err(CacheStoreError::Damaged { problem })
    }
}

impl Exports for Exporting<'_> {
    fn finished(&self, step: FinishedStep) {
        if self.is_inline && step.in_target {
            let mut inline = self.inline.lock().unwrap_or_else(PoisonError::into_inner);
            inline.push(step.clone());
        }
        for steps in &*self.steps.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = steps.send(step.clone());
        }
    }
}

fn record(step: &FinishedStep, known: &StepRecord, upon: Option<Digest>, layer: &Layer) -> Record {
    Record {
        key: step.key,
        upon,
        op: shortened(&known.op),
        name: shortened(&known.step_name),
        definitions: Vec::new(),
        diff_id: layer.diff_id,
        tar_size: layer.tar_size,
        blob: None,
        created: layer.created,
        duration_ms: known.duration_ms,
        used: 0,
        inputs: String::new(),
    }
}

fn engine(error: BuildError) -> CacheStoreError {
    CacheStoreError::Damaged { problem: error.to_string() }
}

/// Between one and two times `pause`, so that writers do not meet again and again.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without random bytes everybody waits equally long.
    let _ = getrandom::fill(&mut bytes);
    pause + pause.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

fn sleep(mut pause: Duration, cancel: &CancelToken) {
    while !pause.is_zero() && !cancel.is_cancelled() {
        let part = pause.min(CANCEL_TICK);
        std::thread::sleep(part);
        pause -= part;
    }
}
