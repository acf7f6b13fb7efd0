//! Removes what nobody uses.
//!
//! Under the exclusive gc lock: read leases, images and pins; decide (plan.rs); move the victims'
//! trees to `tmp/` and delete their rows. After the lock is free: delete the trees, which may take
//! long and disturbs nobody. A tree is moved *before* its row goes: a row without a tree is no
//! snapshot, while a tree without a row would be a leak. Images without a name that go are
//! forgotten before their trees; one that got a name meanwhile stays, and all is decided anew.
//!
//! One prune runs at a time: whoever waits for `locks/prune.lock` finds room made by the other, and
//! what a removal frees is known only while no other removes files that it shares.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use rbuild_types::{CancelToken, Cancelled, Ctx, Silent};

use crate::error::CacheError;
use crate::gc::{Nameless, Reach};
use crate::index::Durability;
use crate::lease::Protected;
use crate::limits::{Disk, SpaceLimits};
use crate::lock::{self, GcLock, Try};
use crate::measure::blocks_at;
use crate::plan::{Plan, decide};
use crate::remove::remove_tree;
use crate::rows::{Inventory, Row, RowFilter};
use crate::sizes::{self, Part};
use crate::snapshots::SnapshotId;
use crate::store::Store;
use crate::volumes::Hold;
use crate::{file, logs, records, recovery};

/// What to prune. The default is everything that no image, container or running build uses, but
/// for cache mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also cache mounts, records without a snapshot, and images without a name. Where nothing is
    /// chosen and no limit given, also the records of snapshots that images use, the stat cache,
    /// and what remote names stood for. Running builds keep what they use.
    pub all: bool,
    /// Only these rows. Images have no part in a choice.
    pub filter: RowFilter,
    /// Only as much as these demand.
    pub limits: SpaceLimits,
}

impl PruneOptions {
    /// Whether some of the cache stays by the caller's choice, so that what has no row stays too.
    fn is_selective(&self) -> bool {
        !self.filter.is_empty() || !self.limits.is_none()
    }
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The removed rows.
    pub removed: Vec<Row>,
    /// Bytes that the file system got back.
    pub bytes: u64,
}

/// Trees that are out of the store and left to delete.
#[derive(Debug, Default)]
struct Trash {
    /// With the bytes that were recorded.
    snapshots: Vec<(PathBuf, u64)>,
    caches: Vec<PathBuf>,
    /// Logs, and directories of them; still at their places, where nobody looks for them.
    logs: Vec<PathBuf>,
    orphans: Vec<PathBuf>,
    /// Bytes of files that are gone already.
    freed: u64,
}

impl Store {
    /// Removes build cache. Never removes an image with a name, nor anything that an image, a
    /// container or a running build of any process uses. Also finishes the removal of what dead
    /// processes left.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`] when `ctx` is cancelled: what was decided is out of the index
    /// then, and the next prune or opening removes the rest of the files.
    pub fn prune(&self, options: &PruneOptions, ctx: &Ctx<'_>) -> Result<Pruned, CacheError> {
        if self.is_read_only() {
            return Err(self.refusal());
        }
        let _one = self.prune_lock(ctx.cancel)?;
        recovery::sweep(self, None)?;
        self.volumes().sweep()?;
        if !options.limits.is_none() {
            sizes::refresh(self)?;
        }
        self.prune_rounds(options, ctx)
    }

    /// Makes room as the limits of this handle demand: called before a tree is begun and after
    /// one, or a blob, was published, so that the store is larger than they say by no more than
    /// what is being made, and what running builds use.
    ///
    /// A step does not fail because something old cannot be removed: the next call tries again,
    /// and [`Store::room_failure`] says it.
    pub(crate) fn keep_limits(&self, cancel: &CancelToken) -> Result<(), Cancelled> {
        let made = self.make_room(cancel);
        if let Err(CacheError::Cancelled(cancelled)) = made {
            return Err(cancelled);
        }
        self.note_room(made.err());
        Ok(())
    }

    fn make_room(&self, cancel: &CancelToken) -> Result<(), CacheError> {
        let Some(limits) = self.limits() else { return Ok(()) };
        let is_enough = |store: &Self| {
            Ok::<_, CacheError>(limits.excess(store.used()?, Disk::of(store.root())) == 0)
        };
        if is_enough(self)? {
            return Ok(());
        }
        let _one = self.prune_lock(cancel)?;
        // The one that was waited for may have made enough room.
        if is_enough(self)? {
            return Ok(());
        }
        let options = PruneOptions { all: true, limits: *limits, ..PruneOptions::default() };
        self.prune_rounds(&options, &Ctx::new(&Silent, cancel)).map(drop)
    }

    fn prune_lock(&self, cancel: &CancelToken) -> Result<File, CacheError> {
        lock::wait(cancel, || Ok(self.try_prune_lock()?.map_or(Try::Busy, Try::Held)))
    }

    fn try_prune_lock(&self) -> Result<Option<File>, CacheError> {
        let path = self.locks().join("prune.lock");
        let file = lock::open_or_create(&path)?;
        Ok(lock::try_lock(&file, &path)?.then_some(file))
    }

    /// With limits, victims that shared files with others may have given less than was recorded:
    /// then others follow. Not so because the file system is late to say what it got back.
    fn prune_rounds(&self, options: &PruneOptions, ctx: &Ctx<'_>) -> Result<Pruned, CacheError> {
        self.records().flush_used()?;
        let mut pruned = Pruned::default();
        let limits = &options.limits;
        let before = Disk::of(self.root());
        loop {
            let excess = match limits.is_none() {
                true => None,
                false => {
                    let disk = Disk::of(self.root()).without(pruned.bytes, before);
                    Some(limits.excess(sizes::used(self)?, disk))
                }
            };
            let (rows, trash) = self.take_out(options, excess)?;
            let freed = self.delete(trash, ctx)?;
            pruned.bytes += freed;
            let nothing = rows.is_empty();
            pruned.removed.extend(rows);
            if nothing || excess.is_none() {
                break;
            }
        }
        if limits.min_free.is_some() {
            self.settle(limits, pruned.bytes, before)?;
        }
        Ok(pruned)
    }

    /// Lets the file system say what it got back, where the next look would take more otherwise.
    fn settle(&self, limits: &SpaceLimits, freed: u64, before: Disk) -> Result<(), CacheError> {
        let (used, now) = (sizes::used(self)?, Disk::of(self.root()));
        if limits.excess(used, now) > limits.excess(used, now.without(freed, before)) {
            // A file system that cannot be synced says so when something is written.
            let _ = rustix::fs::syncfs(file::open(self.root())?);
        }
        Ok(())
    }

    /// Takes the victims of one round out of the store.
    fn take_out(
        &self,
        options: &PruneOptions,
        excess: Option<u64>,
    ) -> Result<(Vec<Row>, Trash), CacheError> {
        let nameless = match options.all && options.filter.is_empty() {
            true => Nameless::Cache,
            false => Nameless::Images,
        };
        let _guard = GcLock::exclusive(&self.gc_path())?;
        let protected = Protected::read(&self.locks())?;
        loop {
            let reach = Reach::find(self, &protected, nameless)?;
            let inventory = Inventory::take(self)?;
            let mut plan = decide(&inventory, &reach, options, excess);
            if !self.tags().forget_nameless(&plan.images)? {
                continue;
            }
            let mut trash = carry_out(self, &mut plan)?;
            trash.orphans = recovery::take_orphans(self, &protected)?;
            let gone: HashSet<_> = plan.records.iter().collect();
            let stay = inventory.records.iter().filter(|record| !gone.contains(&record.key));
            let named = stay.filter_map(|record| record.log.as_deref()).collect();
            trash.logs = logs::nameless(self, &named, &protected)?;
            if options.all && !options.is_selective() {
                self.index().write(Durability::Lazy, |index| {
                    index.execute_batch("DELETE FROM stat_cache; DELETE FROM remembered;")
                })?;
            }
            return Ok((plan.rows, trash));
        }
    }

    /// Deletes what was taken out, and corrects the running figure by what that really freed. What
    /// cannot be deleted is in nobody's way: the sweep tries it again.
    fn delete(&self, trash: Trash, ctx: &Ctx<'_>) -> Result<u64, CacheError> {
        let mut failure = None;
        let mut remove = |path: &PathBuf| {
            let removed = match ctx.cancel.check() {
                Ok(()) => remove_tree(path, None),
                Err(cancelled) => Err(cancelled.into()),
            };
            removed.map_err(|error| failure.get_or_insert(error)).ok().map(|it| it.freed)
        };
        let mut bytes = trash.freed;
        let mut links = 0;
        for (path, recorded) in &trash.snapshots {
            let Some(freed) = remove(path) else { continue };
            links += sizes::signed(*recorded) - sizes::signed(freed);
            bytes += freed;
        }
        let logs = trash.logs.iter().filter_map(&mut remove).sum::<u64>();
        bytes += trash.caches.iter().chain(&trash.orphans).filter_map(&mut remove).sum::<u64>();
        if links != 0 || logs != 0 {
            self.index().write(Durability::Lazy, |index| {
                sizes::grow(index, Part::Links, links)?;
                sizes::grow(index, Part::Logs, -sizes::signed(logs))
            })?;
        }
        failure.map_or(Ok(bytes + logs), Err)
    }
}

/// Takes the victims out of the store. The caller holds the exclusive gc lock.
fn carry_out(store: &Store, plan: &mut Plan) -> Result<Trash, CacheError> {
    let mut trash = Trash::default();
    let recorded = sizes::of_kind(store, "snapshot")?;
    for id in &plan.snapshots {
        let aside = store.temporary("trash")?;
        file::rename(&store.snapshots().path(id), &aside)?;
        let sidecar = store.snapshots().sidecar(id);
        let beside = blocks_at(&sidecar);
        file::unlink(&sidecar)?;
        trash.freed += beside;
        let recorded = recorded.get(id.as_str()).copied().unwrap_or(0);
        trash.snapshots.push((aside, recorded.saturating_sub(beside)));
    }
    let blobs: u64 = plan.blobs.iter().map(|digest| blocks_at(&store.blobs().path(digest))).sum();
    let now = file::now_ms();
    store.index().write(Durability::Lazy, |index| {
        for id in &plan.snapshots {
            let sql = "DELETE FROM snapshots WHERE id = ?1";
            index.prepare_cached(sql)?.execute([id.as_str()])?;
        }
        for key in &plan.records {
            records::remove(index, key, Some(now))?;
        }
        for digest in &plan.blobs {
            let sql = "DELETE FROM aliases WHERE key = ?1";
            index.prepare_cached(sql)?.execute([digest.as_bytes()])?;
        }
        sizes::grow(index, Part::Blobs, -sizes::signed(blobs))?;
        records::trim_evicted(index)
    })?;
    for digest in &plan.blobs {
        file::unlink(&store.blobs().path(digest))?;
    }
    trash.freed += blobs;
    for name in std::mem::take(&mut plan.caches) {
        match store.volumes().try_take(&name, Hold::Alone)? {
            Some(held) => trash.caches.extend(held.discard()?),
            // Somebody began to use it.
            None => plan.rows.retain(|row| row.id != name),
        }
    }
    Ok(trash)
}

/// Removes snapshots with all that needs them, but for what is in use, and the records that lead
/// to any of them; says which went.
pub(crate) fn remove_snapshots(
    store: &Store,
    wanted: HashSet<SnapshotId>,
) -> Result<HashSet<SnapshotId>, CacheError> {
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let cancel = CancelToken::default();
    let _one = store.prune_lock(&cancel)?;
    let guard = GcLock::exclusive(&store.gc_path())?;
    let reach = Reach::find(store, &Protected::read(&store.locks())?, Nameless::Images)?;
    let inventory = Inventory::take(store)?;
    // Rows without a tree are in no inventory; the orphans that a prune looks for are.
    let mut gone = wanted;
    loop {
        let before = gone.len();
        let needs_one = |it: &&crate::Snapshot| it.meta.needs().any(|needed| gone.contains(needed));
        let above: Vec<_> =
            inventory.snapshots.iter().filter(needs_one).map(|it| it.id.clone()).collect();
        gone.extend(above);
        if gone.len() == before {
            break;
        }
    }
    // Nobody finds any of them any more, but those that a running build has found.
    let is_ours = |id: &SnapshotId| gone.contains(id) && !reach.leased.contains(id);
    let records = inventory.records.iter();
    let records = records.filter(|record| record.snapshot.as_ref().is_some_and(is_ours));
    let records = records.map(|record| record.key).collect();
    // What is in use keeps what it needs.
    gone.retain(|id| !reach.snapshots.contains(id));
    let there = inventory.snapshots.iter().map(|snapshot| &snapshot.id);
    let there = there.filter(|id| gone.contains(id)).cloned().collect();
    let mut plan = Plan { records, snapshots: there, ..Plan::default() };
    let trash = carry_out(store, &mut plan)?;
    drop(guard);
    store.delete(trash, &Ctx::new(&Silent, &cancel))?;
    Ok(gone)
}

/// [`Snapshots::remove`](crate::Snapshots::remove).
pub(crate) fn remove_snapshot(store: &Store, id: &SnapshotId) -> Result<(), CacheError> {
    let _one = store.prune_lock(&CancelToken::default())?;
    remove_alone(store, id)
}

/// Removes those that nobody uses; none of them where a prune runs, which may take long.
pub(crate) fn try_remove_snapshots(
    store: &Store,
    ids: impl IntoIterator<Item = SnapshotId>,
) -> Result<(), CacheError> {
    let Some(_one) = store.try_prune_lock()? else { return Ok(()) };
    for id in ids {
        match remove_alone(store, &id) {
            Err(CacheError::InUse { .. }) => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// The caller holds the lock of prunes.
fn remove_alone(store: &Store, id: &SnapshotId) -> Result<(), CacheError> {
    let guard = GcLock::exclusive(&store.gc_path())?;
    let reach = Reach::find(store, &Protected::read(&store.locks())?, Nameless::Images)?;
    let inventory = Inventory::take(store)?;
    let Some(_) = inventory.snapshots.iter().find(|snapshot| snapshot.id == *id) else {
        return Ok(());
    };
    let needs_it = |it: &crate::Snapshot| it.meta.needs().any(|needed| needed == id);
    if reach.snapshots.contains(id) || inventory.snapshots.iter().any(needs_it) {
        return Err(CacheError::InUse { id: id.to_string() });
    }
    let ours = inventory.records.iter().filter(|record| record.snapshot.as_ref() == Some(id));
    let records = ours.map(|record| record.key).collect();
    let mut plan = Plan { snapshots: vec![id.clone()], records, ..Plan::default() };
    let trash = carry_out(store, &mut plan)?;
    drop(guard);
    store.delete(trash, &Ctx::new(&Silent, &CancelToken::default())).map(drop)
}
