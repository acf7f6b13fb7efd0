//! Sending cache mounts, when a build's steps are done.
//!
//! A mount is held alone only while it is read, and never waited for: one that somebody else uses is
//! left out this time. What the cache has already is looked at before that, and packs are sent after
//! it, so others wait for the disk at most. The index is the caller's to write.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rbuild_cache::{HeldVolume, Hold, Origin, Volume, VolumeInfo};
use rbuild_image::manifest::Descriptor;
use rbuild_plan::Graph;
use rbuild_plan::mount::MountKind;
use rbuild_plan::op::Op;
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Ctx, Digest, Event};

use super::list::{Chunk, LIST_TYPE, List};
use super::pack::{KnownPacks, Packer, Packs, cut};
use super::restore::fetch_list;
use super::{Mount, MountError, side_by_side};
use crate::cache_mount::walk;
use crate::cache_store::{CacheStore, CacheStoreError, Found};
use crate::remote_cache::CacheMounts;
use crate::remote_cache::index::Index;
use crate::sources::image::chain;
use crate::{BuildError, CacheFile, CacheFileKind, Engine};

/// What became of the cache mounts that go to one cache.
#[derive(Default)]
pub(crate) struct Sent {
    /// Those that the index has to name from now on.
    pub(crate) mounts: Vec<Mount>,
    /// The volumes of those that stay as they are there.
    pub(crate) unchanged: BTreeSet<String>,
    pub(crate) bytes: u64,
    /// The first thing that went wrong.
    pub(crate) failure: Option<String>,
}

/// The ids of all cache mounts that steps name, as people write them.
pub(crate) fn cache_mount_ids(graph: &Graph) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for (_, vertex) in graph.vertices() {
        let Op::Run(run) = &vertex.op else { continue };
        for mount in &run.mounts {
            if let MountKind::Cache(cache) = &mount.kind {
                ids.insert(cache.id.strip_prefix('/').unwrap_or(&cache.id).to_owned());
            }
        }
    }
    ids
}

/// Where and how mounts are sent.
pub(crate) struct Sending<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) store: &'a dyn CacheStore,
    /// The ids that the build's steps name.
    pub(crate) named: &'a BTreeSet<String>,
    /// Volumes that this build could not take from this cache: whether what it has of them is of no
    /// use to anybody. What may be whole stays: the mount here began with nothing.
    pub(crate) failed: BTreeMap<String, bool>,
    /// Whether nothing could be taken, because the cache did not say what it has.
    pub(crate) is_unread: bool,
    /// One reads mounts at a time: those of one build are not in each other's way.
    pub(crate) reading: &'a Mutex<()>,
}

impl Sending<'_> {
    /// Sends the mounts that are asked for.
    pub(crate) fn send(&self, wanted: &[CacheMounts], ctx: Ctx<'_>) -> Sent {
        let mut sent = Sent::default();
        if wanted.is_empty() {
            return sent;
        }
        let problem = |what: String, error: MountError| match error.is_cancelled() {
            true => format!("{what} did not get there in time"),
            false => format!("{what}: {}", chain(&error)),
        };
        let (index, volumes) = match self.look(wanted, ctx) {
            Ok(found) => found,
            Err(error) => {
                let failure = Some(problem("its cache mounts".to_owned(), error));
                return Sent { failure, ..sent };
            }
        };
        let is_here = |id: &str| volumes.iter().any(|(_, info)| info.shown_id() == id);
        for there in index.mounts.values().filter(|mount| !is_here(&mount.id)) {
            if self.is_wanted(wanted, &there.id) {
                sent.unchanged.insert(there.volume.clone());
            }
        }
        for id in wanted.iter().filter_map(CacheMounts::id).filter(|id| !is_here(id)) {
            if !index.mounts.values().any(|mount| mount.id == id) {
                let name = self.store.name();
                let message = format!(
                    "there is no cache mount {id} that could go to {name}: \
                     `rbuild cache ls` lists those that are there"
                );
                ctx.report(Event::Notice { message });
            }
        }
        for (volume, info) in &volumes {
            let known = index.mounts.get(&volume.name);
            match self.send_one(volume, info, known, &mut sent.bytes, ctx) {
                Ok(Some(mount)) => sent.mounts.push(mount),
                Ok(None) => _ = sent.unchanged.insert(volume.name.clone()),
                Err(error) => {
                    let what = format!("cache mount {}", info.shown_id());
                    sent.failure.get_or_insert_with(|| problem(what, error));
                }
            }
        }
        sent
    }

    fn is_wanted(&self, wanted: &[CacheMounts], id: &str) -> bool {
        wanted.iter().any(|one| match one {
            CacheMounts::Named => self.named.contains(id),
            CacheMounts::Id(wanted) => wanted == id,
        })
    }

    /// The index as it is, and the volumes that are asked for.
    fn look(
        &self,
        wanted: &[CacheMounts],
        ctx: Ctx<'_>,
    ) -> Result<(Index, Vec<(Volume, VolumeInfo)>), MountError> {
        let index = match self.store.read_index(ctx)? {
            // One that is damaged starts anew.
            Found::Index { bytes, .. } => Index::parse(&bytes).unwrap_or_default(),
            _ => Index::default(),
        };
        // Of those that differ only in what they started with, the one that is used.
        let mut latest = BTreeMap::new();
        for volume in self.engine.store.volumes().list()?.into_iter().filter(Volume::is_cache) {
            let Some(info) = volume.info.clone() else { continue };
            if self.is_wanted(wanted, info.shown_id()) {
                let key = (info.id.clone(), info.mode, info.uid, info.gid);
                let known = latest.entry(key).or_insert_with(|| (volume.clone(), info.clone()));
                if known.0.last_used < volume.last_used {
                    *known = (volume, info);
                }
            }
        }
        Ok((index, latest.into_values().collect()))
    }

    /// Sends what the cache has not. `None` when nothing has changed.
    fn send_one(
        &self,
        volume: &Volume,
        info: &VolumeInfo,
        known: Option<&Mount>,
        bytes: &mut u64,
        ctx: Ctx<'_>,
    ) -> Result<Option<Mount>, MountError> {
        let failed = self.failed.get(&volume.name).copied();
        let mut is_broken = failed == Some(true);
        if let (Some(known), Some(false)) = (known, failed) {
            for blob in known.blobs() {
                is_broken |= !self.store.has_blob(blob, ctx)?;
            }
        }
        if !is_broken && known.is_some() && (failed == Some(false) || self.is_unread) {
            let (id, name) = (info.shown_id(), self.store.name());
            let message = format!(
                "cache mount {id} could not be taken from {name}, and does not replace what is there"
            );
            ctx.report(Event::Notice { message });
            return Ok(None);
        }
        let known = known.filter(|_| !is_broken);
        let place = self.store.place();
        let is_there = |origin: &Origin| {
            let list = known.map(|known| known.list.digest);
            origin.published && origin.place == place && Some(origin.list) == list
        };
        if self.engine.store.volumes().origins(&volume.name)?.iter().any(is_there) {
            return Ok(None);
        }
        let old = known.and_then(|known| self.old(known, ctx).transpose()).transpose()?;
        let (old_list, old_packs) = old.unwrap_or_default();
        let there: Vec<_> = old_packs.iter().map(|(pack, _)| pack.digest).collect();
        let is_whole = known.is_some_and(|known| known.packs.len() == there.len());
        let (list, packs, blob) = {
            let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            let held = self.engine.store.volumes().try_take(&volume.name, Hold::Alone)?;
            let Some(held) = held.filter(|held| held.path().exists()) else {
                let (id, name) = (info.shown_id(), self.store.name());
                let message =
                    format!("cache mount {id} is in use elsewhere and does not go to {name}");
                ctx.report(Event::Notice { message });
                return Ok(None);
            };
            let (list, packs) = self.read(&held, old_packs, ctx.cancel)?;
            let mut origins = held.origins().to_vec();
            origins.retain(|origin| origin.place != place);
            if let Some(known) = known.filter(|_| is_whole && list == old_list) {
                origins.push(Origin { place, list: known.list.digest, published: true });
                held.set_origins(&origins)?;
                return Ok(None);
            }
            let bytes = list.to_bytes(self.engine.pool()?)?;
            let blob = Descriptor::of(LIST_TYPE, &bytes);
            self.engine.store.blobs().put(&bytes)?;
            origins.push(Origin { place, list: blob.digest, published: false });
            held.set_origins(&origins)?;
            (list, packs, blob)
        };
        let new = packs.blobs.iter().filter(|pack| !there.contains(&pack.digest));
        let new: Vec<_> = new.collect();
        *bytes = bytes.saturating_add(self.upload(&new, is_broken, ctx)?);
        *bytes = bytes.saturating_add(self.upload(&[&blob], is_broken, ctx)?);
        let (files, size) = list.size();
        Ok(Some(Mount {
            volume: volume.name.clone(),
            id: info.shown_id().to_owned(),
            list: blob,
            packs: packs.blobs,
            files,
            bytes: size,
            used: 0,
        }))
    }

    /// The list that the cache has, and those of its packs that are still there.
    fn old(&self, known: &Mount, ctx: Ctx<'_>) -> Result<Option<(List, KnownPacks)>, MountError> {
        let list = match fetch_list(self.engine, self.store, known, ctx) {
            Ok(list) => list,
            Err(error) if error.is_cancelled() => return Err(error),
            // What nobody can read is sent anew.
            Err(_) => return Ok(None),
        };
        let there = Mutex::new(BTreeSet::new());
        side_by_side(known.packs.iter(), &|pack| {
            if self.store.has_blob(pack, ctx)? {
                there.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.digest);
            }
            Ok(())
        })?;
        let there = there.into_inner().unwrap_or_else(PoisonError::into_inner);
        let packs = known.packs.iter().cloned().zip(list.packs.iter().cloned());
        let packs = packs.filter(|(pack, _)| there.contains(&pack.digest)).collect();
        Ok(Some((list, packs)))
    }

    /// Reads a mount; puts what no pack has into new ones.
    fn read(
        &self,
        held: &HeldVolume,
        old: KnownPacks,
        cancel: &CancelToken,
    ) -> Result<(List, Packs), MountError> {
        let root = Root::open(held.path())?;
        let mut cuts: Vec<Vec<Chunk>> = Vec::new();
        let mut see = |_: &Path, file| {
            let (chunks, digest) = cut(file, cancel)?;
            let size = chunks.iter().map(|chunk| u64::from(chunk.1)).sum();
            cuts.push(chunks);
            Ok((size, digest))
        };
        let files = walk(&root, &mut see, cancel)?;
        let wanted: BTreeMap<_, _> =
            cuts.iter().flatten().map(|Chunk(digest, length)| (*digest, *length)).collect();
        let mut packs = Packs::keep(old, &wanted);
        let mut packer = Packer::new(self.engine, &wanted, cancel);
        let regular = files.iter().filter(|file| matches!(file.kind, CacheFileKind::File { .. }));
        for (file, chunks) in regular.zip(&cuts) {
            pack(&root, file, chunks, &mut packer, &mut packs, cancel)?;
        }
        packer.finish(&mut packs)?;
        let runs = cuts.iter().map(|chunks| packs.runs(chunks)).collect();
        Ok((List::of(files, runs, packs.chunks.clone()), packs))
    }

    /// Makes sure that the cache has these; the bytes that had to be sent.
    fn upload(&self, blobs: &[&Descriptor], anew: bool, ctx: Ctx<'_>) -> Result<u64, MountError> {
        let sent = AtomicU64::new(0);
        side_by_side(blobs.iter(), &|blob| {
            ctx.cancel.check()?;
            if anew || !self.store.has_blob(blob, ctx)? {
                self.store.put_blob(blob, &self.engine.store, ctx)?;
                sent.fetch_add(blob.size, Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(sent.into_inner())
    }
}

/// Puts those chunks of a file that are in no pack into a new one.
fn pack(
    root: &Root,
    file: &CacheFile,
    chunks: &[Chunk],
    packer: &mut Packer<'_>,
    packs: &mut Packs,
    cancel: &CancelToken,
) -> Result<(), MountError> {
    let path = || file.path.display().to_string();
    let failed = |source| BuildError::Io { what: format!("read {}", path()), source };
    let (mut open, mut offset) = (None, 0_u64);
    for chunk in chunks {
        if !packs.has(chunk) && !packer.has(chunk) {
            cancel.check()?;
            let source = match &mut open {
                Some(source) => source,
                none => none.insert(root.open_seen_file(&file.path)?.0),
            };
            source.seek(SeekFrom::Start(offset)).map_err(failed)?;
            let mut bytes = Vec::new();
            source.take(chunk.1.into()).read_to_end(&mut bytes).map_err(failed)?;
            if Digest::of(&bytes) != chunk.0 {
                return Err(MountError::Changed { path: path() });
            }
            packer.add(*chunk, &bytes, packs)?;
        }
        offset += u64::from(chunk.1);
    }
    Ok(())
}

/// Notes that the index of a cache names what was sent.
pub(crate) fn note_published(
    engine: &Engine,
    store: &dyn CacheStore,
    sent: &Sent,
) -> Result<(), CacheStoreError> {
    let (volumes, place) = (engine.store.volumes(), store.place());
    for mount in &sent.mounts {
        volumes.note_published(&mount.volume, &place, &mount.list.digest)?;
    }
    Ok(())
}
