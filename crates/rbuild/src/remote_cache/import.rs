//! Results from caches elsewhere.
//!
//! Each cache's index is read by a thread of its own from the start of the build; nobody waits for
//! them before the store misses a step. A cache that cannot be read is a warning. Where several
//! know the same step upon the same root, the one that was named first counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rbuild_cache::{CacheError, SnapshotId, VolumeInfo};
use rbuild_image::manifest::Descriptor;
use rbuild_image::media_type::layer_compression;
use rbuild_solver::{EarlierStep, Imports, RemoteResult, StepError};
use rbuild_types::{CacheTraffic, CancelToken, Ctx, Digest, Event, Progress};

use super::index::{Index, IndexError, Record};
use super::mounts::{Mount, Restoring};
use super::{CacheImport, inline};
use crate::cache_store::{self, CacheStore, CacheStoreError, Found};
use crate::export::layers;
use crate::sources::image::chain;
use crate::sources::layers::{LayerBlob, StoreSink, diff_id_of, unpack_blob};
use crate::{BuildError, Engine};

/// How often a wait looks at the cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// The caches that one build takes results from.
pub(crate) struct CacheImports<'a> {
    engine: &'a Engine,
    stores: Vec<Box<dyn CacheStore>>,
    /// By the numbers of `stores`; `None` until it was tried.
    read: Mutex<Vec<Option<Index>>>,
    one_more: Condvar,
    known: OnceLock<Known>,
    traffic: Mutex<Traffic>,
    mounts: Restoring,
    /// Places that did not say what they have.
    unread: Mutex<BTreeSet<String>>,
    progress: &'a dyn Progress,
}

/// What all caches know together.
#[derive(Default)]
struct Known {
    /// With the numbers of the stores that have the layer.
    records: HashMap<Digest, Vec<(Record, Vec<usize>)>>,
    aliases: HashMap<Digest, Digest>,
    /// The steps of the build that wrote last to the first cache that has any.
    last_build: Vec<EarlierStep>,
    /// Cache mounts by volume, with the numbers of the stores that have them.
    mounts: HashMap<String, Vec<(Mount, usize)>>,
}

#[derive(Default)]
struct Traffic {
    index_bytes: u64,
    /// By step: sizes of the layers that were found, and whether they were fetched.
    layers: BTreeMap<Digest, (u64, bool)>,
}

/// Why a result from elsewhere is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("{name}: {source}")]
    Store { name: String, source: Box<CacheStoreError> },
    #[error("layer {layer} of {name} is {found}, its index says {expected}")]
    Lie { name: String, layer: String, found: String, expected: String },
    #[error(transparent)]
    Engine(Box<BuildError>),
}

impl From<BuildError> for ImportError {
    fn from(error: BuildError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl<'a> CacheImports<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        from: &[CacheImport],
        progress: &'a dyn Progress,
    ) -> Result<Self, BuildError> {
        let mut stores = Vec::new();
        for one in from {
            let Some(store) = cache_store::open(engine, &one.location)? else {
                let message = "steps that are in an image are taken from the image's name";
                return Err(BuildError::Request { message: message.to_owned() });
            };
            stores.push(store);
        }
        let read = Mutex::new(stores.iter().map(|_| None).collect());
        let (one_more, known, traffic, mounts, unread) = <_>::default();
        Ok(Self { engine, stores, read, one_more, known, traffic, mounts, unread, progress })
    }

    /// Starts to read all indexes.
    pub(crate) fn start<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        ctx: Ctx<'scope>,
    ) {
        for number in 0..self.stores.len() {
            scope.spawn(move || self.read(number, ctx));
        }
    }

    fn read(&self, number: usize, ctx: Ctx<'_>) {
        let Some(store) = self.stores.get(number) else { return };
        let index = match store.read_index(ctx) {
            Ok(Found::Index { bytes, .. }) => {
                self.lock_traffic().index_bytes += bytes.len() as u64;
                Index::parse(&bytes).map_err(|error| error.to_string())
            }
            Ok(Found::Images { images, .. }) => images
                .iter()
                .try_fold(Index::default(), |mut all, image| {
                    self.lock_traffic().index_bytes += image.bytes.len() as u64;
                    inline::parse(image)?.into_records().for_each(|record| all.insert(record));
                    Ok(all)
                })
                .map_err(|error: IndexError| error.to_string()),
            Ok(Found::Foreign { .. }) => Err("what is there is no cache of rbuild".to_owned()),
            Ok(Found::Broken { problem, .. }) => Err(problem),
            Ok(Found::Nothing) => Ok(Index::default()),
            Err(CacheStoreError::Cancelled(_)) => Ok(Index::default()),
            Err(error) => {
                if !error.is_damage() {
                    let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
                    unread.insert(store.place());
                }
                Err(chain(&error))
            }
        };
        let index = index.unwrap_or_else(|problem| {
            let message = format!("nothing is taken from {}: {problem}", store.name());
            ctx.report(Event::Notice { message });
            Index::default()
        });
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = read.get_mut(number) {
            *slot = Some(index);
        }
        if read.iter().all(Option::is_some) {
            let indexes = std::mem::take(&mut *read).into_iter().flatten();
            let _ = self.known.set(Known::of(indexes));
        }
        self.one_more.notify_all();
    }

    fn lock_traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a result, and the numbers of the stores that have its layer.
    fn record(&self, result: &RemoteResult) -> Option<&(Record, Vec<usize>)> {
        let known = self.known.get()?.records.get(&result.key)?;
        known
            .iter()
            .find(|(record, _)| record.upon == result.upon && record.diff_id == result.diff_id)
    }

    /// The record behind a result, as an export writes it.
    pub(super) fn record_of(&self, result: &RemoteResult) -> Option<Record> {
        self.record(result).map(|(record, _)| record.clone())
    }

    /// Makes sure that the bytes of a result's layer are in the store.
    pub(super) fn bring(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), ImportError> {
        let Some((record, stores)) = self.record(result) else { return Ok(()) };
        let Some(blob) = &record.blob else { return Ok(()) };
        let store = &self.engine.store;
        let there = || store.blobs().size(&blob.digest).map_err(BuildError::from);
        if there()? == Some(blob.size) {
            return Ok(());
        }
        // Two steps, or two builds, that need the same layer fetch it once.
        let _lock = store.step_lock(&blob.digest, ctx.cancel).map_err(BuildError::from)?;
        if there()? == Some(blob.size) {
            return Ok(());
        }
        let mut failure = None;
        for source in stores.iter().filter_map(|number| self.stores.get(*number)) {
            match self.fetch_from(source.as_ref(), blob, ctx) {
                Ok(()) => {
                    self.lock_traffic().layers.insert(record.key, (blob.size, true));
                    return Ok(());
                }
                Err(error) => failure.get_or_insert(error),
            };
        }
        failure.map_or(Ok(()), Err)
    }

    fn fetch_from(
        &self,
        source: &dyn CacheStore,
        blob: &Descriptor,
        ctx: Ctx<'_>,
    ) -> Result<(), ImportError> {
        let mut sink = StoreSink::new(&self.engine.store, blob.size, ctx.cancel);
        source.fetch_blob(blob, &mut sink, ctx).map_err(|source_error| match source_error {
            CacheStoreError::Cancelled(cancelled) => BuildError::from(cancelled).into(),
            source_error => {
                ImportError::Store { name: source.name(), source: Box::new(source_error) }
            }
        })?;
        sink.commit(blob).map_err(|error| match error {
            CacheError::Mismatch { expected, found, .. } => {
                let (name, layer) = (source.name(), blob.digest.short());
                ImportError::Lie { name, layer, found, expected }
            }
            error => BuildError::from(error).into(),
        })
    }

    /// Checks that the fetched bytes are the layer that the index says.
    fn check_layer(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), ImportError> {
        let Some((record, stores)) = self.record(result) else { return Ok(()) };
        let Some(blob) = layer_blob(record) else { return Ok(()) };
        if layers::is_kept(self.engine, &result.diff_id, blob.compression, &blob.digest)? {
            return Ok(());
        }
        let (found, size) = diff_id_of(&self.engine.store, &blob, ctx.cancel)?;
        if (found, size) != (record.diff_id, record.tar_size) {
            let name = self.name_of(stores);
            let (layer, expected) = (blob.digest.short(), record.diff_id.to_string());
            return Err(ImportError::Lie { name, layer, found: found.to_string(), expected });
        }
        Ok(layers::keep(self.engine, &record.diff_id, blob.compression, &blob.digest)?)
    }

    fn name_of(&self, stores: &[usize]) -> String {
        let first = stores.first().and_then(|number| self.stores.get(*number));
        first.map_or_else(String::new, |store| store.name())
    }

    /// The volumes of cache mounts that could not be taken from this cache, and whether they are of
    /// no use.
    pub(super) fn failed_mounts(&self, store: &dyn CacheStore) -> BTreeMap<String, bool> {
        self.mounts.failed(store)
    }

    /// Whether this cache was asked what it has, and did not say.
    pub(super) fn is_unread(&self, store: &dyn CacheStore) -> bool {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).contains(&store.place())
    }

    /// What all this cost.
    pub(crate) fn traffic(&self) -> CacheTraffic {
        let traffic = self.lock_traffic();
        let fetched = traffic.layers.values().filter(|(_, fetched)| *fetched);
        let bytes = |layers: &mut dyn Iterator<Item = &(u64, bool)>| {
            layers.map(|(size, _)| size).fold(0_u64, |sum, size| sum.saturating_add(*size))
        };
        CacheTraffic {
            imported: traffic.layers.len(),
            fetched_layers: fetched.clone().count(),
            fetched_bytes: traffic.index_bytes.saturating_add(bytes(&mut fetched.clone())),
            avoided_bytes: bytes(&mut traffic.layers.values().filter(|(_, fetched)| !fetched)),
            fetched_mount_bytes: self.mounts.bytes(),
            ..CacheTraffic::default()
        }
    }
}

impl Known {
    fn of(indexes: impl Iterator<Item = Index>) -> Self {
        let mut known = Self::default();
        for (number, index) in indexes.enumerate() {
            for (volume, mount) in &index.mounts {
                let there = known.mounts.entry(volume.clone()).or_default();
                there.push((mount.clone(), number));
            }
            let generation = index.generation;
            let mut records: Vec<_> = index.into_records().collect();
            records.sort_by_key(|record| std::cmp::Reverse(record.created));
            if known.last_build.is_empty() {
                let last = records.iter().filter(|record| record.used == generation);
                known.last_build = last.map(Record::earlier).collect();
            }
            for record in records {
                for definition in &record.definitions {
                    known.aliases.entry(*definition).or_insert(record.key);
                }
                let same_key = known.records.entry(record.key).or_default();
                let same = same_key.iter_mut().find(|(known, _)| {
                    known.upon == record.upon && known.diff_id == record.diff_id
                });
                match same {
                    Some((known, stores)) if known.blob == record.blob => stores.push(number),
                    Some(_) => {}
                    None => same_key.push((record, vec![number])),
                }
            }
        }
        known
    }
}

impl Imports for CacheImports<'_> {
    fn wait(&self, cancel: &CancelToken) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        while self.known.get().is_none() && !cancel.is_cancelled() {
            let waited = self.one_more.wait_timeout(read, CANCEL_TICK);
            read = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn alias(&self, definition: &Digest) -> Option<Digest> {
        self.known.get()?.aliases.get(definition).copied()
    }

    fn find(&self, key: &Digest, upon: &[Option<Digest>]) -> Vec<RemoteResult> {
        let known = self.known.get().and_then(|known| known.records.get(key));
        let records = known.into_iter().flatten().map(|(record, _)| record);
        let results: Vec<_> = records
            .filter(|record| record.blob.is_some() && upon.contains(&record.upon))
            .map(|record| RemoteResult {
                key: *key,
                upon: record.upon,
                diff_id: record.diff_id,
                tar_size: record.tar_size,
                created: record.created,
                duration_ms: record.duration_ms,
                inputs: serde_json::from_str(&record.inputs).unwrap_or_default(),
            })
            .collect();
        if let Some((record, _)) = results.first().and_then(|first| self.record(first)) {
            let size = record.blob.as_ref().map_or(0, |blob| blob.size);
            self.lock_traffic().layers.entry(*key).or_insert((size, false));
        }
        results
    }

    fn last_build(&self) -> Vec<EarlierStep> {
        self.known.get().map_or_else(Vec::new, |known| known.last_build.clone())
    }

    fn fetch(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), StepError> {
        self.bring(result, ctx).map_err(step_error)
    }

    fn check(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), StepError> {
        self.check_layer(result, ctx).map_err(step_error)
    }

    fn unpack(
        &self,
        result: &RemoteResult,
        below: &[SnapshotId],
        ctx: Ctx<'_>,
    ) -> Result<SnapshotId, StepError> {
        let Some((record, stores)) = self.record(result) else {
            return Err(StepError::Missing("its layer is not known any more".to_owned()));
        };
        let Some(blob) = layer_blob(record) else {
            return Err(StepError::Missing("its layer has an unknown form".to_owned()));
        };
        let engine = self.engine;
        let unpacked = unpack_blob(&engine.store, &blob, below, result.upon, ctx)
            .and_then(|snapshot| {
                layers::keep(engine, &record.diff_id, blob.compression, &blob.digest)?;
                Ok(snapshot)
            })
            .map_err(|error| match error {
                // A broken archive says which layer it is, but not where that came from.
                BuildError::Image(source) => {
                    let name = self.name_of(stores);
                    ImportError::Store { name, source: Box::new(CacheStoreError::Image(source)) }
                }
                error => error.into(),
            });
        unpacked.map_err(step_error)
    }

    fn restore(&self, volume: &VolumeInfo, cancel: &CancelToken) {
        self.wait(cancel);
        let known = self.known.get().and_then(|known| known.mounts.get(&volume.volume_name()));
        let from = known
            .into_iter()
            .flatten()
            .filter_map(|(mount, number)| Some((mount, self.stores.get(*number)?.as_ref())));
        self.mounts.restore(self.engine, volume, from, Ctx::new(self.progress, cancel));
    }
}

/// The layer of a record as it is in the store.
fn layer_blob(record: &Record) -> Option<LayerBlob> {
    let blob = record.blob.as_ref()?;
    Some(LayerBlob {
        digest: blob.digest,
        compression: layer_compression(&blob.media_type)?,
        diff_id: record.diff_id,
        tar_size: Some(record.tar_size),
        made: Some(record.created),
    })
}

fn step_error(error: ImportError) -> StepError {
    match error {
        ImportError::Engine(error) => match *error {
            BuildError::Cancelled(cancelled) => StepError::Cancelled(cancelled),
            error => StepError::Remote(Box::new(error)),
        },
        error => StepError::Remote(Box::new(error)),
    }
}
