//! Taking cache mounts from caches, when a step is about to use them.
//!
//! What is here is kept, with two exceptions: a mount with nothing in it, and one that nobody has
//! used since it came from, or went to, the same cache, which has another by now. A mount is taken
//! at most once in a build, and held alone meanwhile: whoever wants it too waits, and one that is in
//! use is left alone. It is put together beside and appears whole; what cannot be had or is damaged
//! is a warning, and the step finds what it would have found without the cache.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::{HeldVolume, Hold, Origin, VolumeInfo};
use rbuild_image::blob::Verified;
use rbuild_image::manifest::Descriptor;
use rbuild_registry::BlobSink;
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Event};

use super::list::{List, Run};
use super::pack::unpack;
use super::{Mount, MountError, side_by_side};
use crate::cache_mount::restore_files;
use crate::cache_store::CacheStore;
use crate::sources::image::chain;
use crate::{BuildError, CacheFile, CacheFileKind, Engine};

/// What one build has taken.
#[derive(Default)]
pub(crate) struct Restoring {
    /// By volume: whether it was tried.
    tried: Mutex<HashMap<String, Arc<Mutex<bool>>>>,
    /// Places and volumes that could not be taken: whether they are of no use to anybody.
    failed: Mutex<BTreeMap<(String, String), bool>>,
    bytes: AtomicU64,
}

impl Restoring {
    /// Fills a cache mount with what the first of these caches has, unless that would lose something
    /// or was done already.
    pub(crate) fn restore<'m>(
        &self,
        engine: &Engine,
        info: &VolumeInfo,
        from: impl Iterator<Item = (&'m Mount, &'m dyn CacheStore)>,
        ctx: Ctx<'_>,
    ) {
        let tried = {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            tried.entry(info.volume_name()).or_default().clone()
        };
        let mut is_tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *is_tried, true) {
            return;
        }
        for (mount, store) in from {
            match self.restore_from(engine, info, mount, store, ctx) {
                Ok(()) => return,
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.insert((store.place(), mount.volume.clone()), error.is_damage());
                    let (id, name) = (info.shown_id(), store.name());
                    let problem = chain(&error);
                    let message = format!("cache mount {id} is not taken from {name}: {problem}");
                    ctx.report(Event::Notice { message });
                }
            }
        }
    }

    /// The volumes that could not be taken from a cache, and whether they are of no use.
    pub(crate) fn failed(&self, store: &dyn CacheStore) -> BTreeMap<String, bool> {
        let (failed, place) = (&self.failed, store.place());
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        let here = failed.iter().filter(|((at, _), _)| *at == place);
        here.map(|((_, volume), is_broken)| (volume.clone(), *is_broken)).collect()
    }

    /// Bytes that were fetched.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn restore_from(
        &self,
        engine: &Engine,
        info: &VolumeInfo,
        mount: &Mount,
        store: &dyn CacheStore,
        ctx: Ctx<'_>,
    ) -> Result<(), MountError> {
        let held = engine.store.volumes().try_take(&mount.volume, Hold::Alone)?;
        let Some(held) = held else { return Ok(()) };
        let place = store.place();
        let is_old = |origin: &Origin| {
            origin.published && origin.place == place && origin.list != mount.list.digest
        };
        if !is_empty(held.path())? && !held.origins().iter().any(is_old) {
            return Ok(held.set_origins(held.origins())?);
        }
        let filled = self.fill(engine, info, &held, mount, store, ctx);
        let origins = match filled {
            Ok(()) => vec![Origin { place, list: mount.list.digest, published: true }],
            Err(_) => held.origins().to_vec(),
        };
        held.set_origins(&origins)?;
        filled
    }

    fn fill(
        &self,
        engine: &Engine,
        info: &VolumeInfo,
        held: &HeldVolume,
        mount: &Mount,
        store: &dyn CacheStore,
        ctx: Ctx<'_>,
    ) -> Result<(), MountError> {
        let list = fetch_list(engine, store, mount, ctx)?;
        let scratch = engine.store.scratch("packs")?;
        let plain = Plain::new(temporary(scratch.path(), "plain")?, &list);
        let packs = mount.packs.iter().zip(&list.packs).zip(&plain.bounds);
        side_by_side(packs, &|((pack, chunks), bounds)| {
            let bytes = fetch(store, pack, scratch.path(), ctx)?;
            let at = bounds.first().copied().unwrap_or_default();
            unpack(pack, bytes, chunks, (&plain.file, at), ctx.cancel)
        })?;
        let bytes = mount.blobs().map(|blob| blob.size).fold(0, u64::saturating_add);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (files, runs): (Vec<_>, Vec<_>) = list.files().into_iter().unzip();
        let is_file = |file: &CacheFile| matches!(file.kind, CacheFileKind::File { .. });
        held.note(Some(info))?;
        let dress = (info.mode, info.uid, info.gid);
        engine.fill_volume(held, dress, &mut |root| {
            let mut regular =
                files.iter().zip(&runs).filter(|(file, _)| is_file(file)).map(|(_, runs)| *runs);
            let mut read = |_: &CacheFile| {
                let runs = regular.next().unwrap_or_default();
                Ok(Box::new(plain.read(runs)) as Box<dyn Read>)
            };
            restore_files(root, &files, &mut read, ctx.cancel)
        })?;
        // Before it is written down that this is what the cache has.
        let io = |source| BuildError::Io { what: "sync a cache mount".to_owned(), source };
        let root = fs_err::File::open(engine.store.root()).map_err(io)?;
        rustix::fs::syncfs(root).map_err(|errno| io(errno.into()))?;
        Ok(())
    }
}

/// Whether nothing would be lost.
fn is_empty(path: &Path) -> Result<bool, MountError> {
    Ok(!path.exists() || Root::open(path)?.read_dir("")?.is_empty())
}

/// The list of a mount.
pub(super) fn fetch_list(
    engine: &Engine,
    store: &dyn CacheStore,
    mount: &Mount,
    ctx: Ctx<'_>,
) -> Result<List, MountError> {
    let scratch = engine.store.scratch("list")?;
    let Descriptor { digest, size, .. } = mount.list;
    let bytes = fetch(store, &mount.list, scratch.path(), ctx)?;
    let list = List::parse(Verified::new(bytes, digest, size))?;
    match list.packs.len() == mount.packs.len() {
        true => Ok(list),
        false => {
            let problem = "is one of another number than its list has".to_owned();
            let pack = format!("of {}", mount.packs.len());
            Err(MountError::Pack { pack, problem })
        }
    }
}

/// A file in a scratch directory.
fn temporary(directory: &Path, name: &str) -> Result<File, MountError> {
    Ok(Root::open(directory)?.create_file(name, 0o600)?)
}

/// Fetches bytes that whoever reads them checks.
fn fetch(
    store: &dyn CacheStore,
    blob: &Descriptor,
    directory: &Path,
    ctx: Ctx<'_>,
) -> Result<File, MountError> {
    let name = blob.digest.hex();
    let failed = |source| BuildError::Io { what: format!("fetch {}", blob.digest), source };
    let mut sink =
        FileSink { file: temporary(directory, &name)?, left: blob.size, size: blob.size };
    // Nobody finds it by its name any more, and its room is free when it was read.
    Root::open(directory)?.remove(&name)?;
    store.fetch_blob(blob, &mut sink, ctx)?;
    sink.file.rewind().map_err(failed)?;
    Ok(sink.file)
}

/// A file, and how many bytes may still come.
struct FileSink {
    file: File,
    left: u64,
    size: u64,
}

impl BlobSink for FileSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| std::io::Error::other("more bytes than the index names"))?;
        self.file.write_all(bytes)
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.left = self.size;
        self.file.rewind()?;
        self.file.set_len(0)
    }
}

/// The chunks of all packs, in one file: there may be more packs than files may be open.
struct Plain {
    file: Arc<File>,
    /// Where each chunk of each pack begins, and where the last one ends.
    bounds: Vec<Vec<u64>>,
}

impl Plain {
    fn new(file: File, list: &List) -> Self {
        let mut end = 0_u64;
        let mut bounds = |chunks: &Vec<super::list::Chunk>| {
            let mut bounds = vec![end];
            for chunk in chunks {
                end += u64::from(chunk.1);
                bounds.push(end);
            }
            bounds
        };
        let bounds = list.packs.iter().map(&mut bounds).collect();
        Self { file: Arc::new(file), bounds }
    }

    /// The bytes of a file.
    fn read(&self, runs: &[Run]) -> Pieces {
        let piece = |Run(pack, first, count): &Run| {
            let bounds = self.bounds.get(*pack as usize)?;
            let end = *bounds.get(first.checked_add(*count)? as usize)?;
            Some((*bounds.get(*first as usize)?, end))
        };
        Pieces { file: self.file.clone(), left: runs.iter().filter_map(piece).collect() }
    }
}

/// Pieces of a file, one after the other.
struct Pieces {
    file: Arc<File>,
    /// From where, and to where.
    left: VecDeque<(u64, u64)>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some((from, to)) = self.left.front_mut() {
            let wanted = usize::try_from(*to - *from).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let count = self.file.read_at(part, *from)?;
            if count > 0 || buffer.is_empty() {
                *from += count as u64;
                return Ok(count);
            }
            self.left.pop_front();
        }
        Ok(0)
    }
}
