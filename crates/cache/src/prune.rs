//! Removes what nobody uses.
//!
//! Under the exclusive gc lock: read leases, images and pins; decide; move the victims' trees to
//! `tmp/` and delete their rows. After the lock is free: delete the trees, which may take long and
//! disturbs nobody. A tree is moved *before* its row goes: a row without a tree is no snapshot,
//! while a tree without a row would be a leak.
//!
//! Unit of removal is a snapshot with its records. It can go when nobody uses it and none that needs
//! it stays: no child, and none that shows its files. Victims go oldest use first, so that
//! `keep_bytes` keeps what was used last.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rbuild_types::{Ctx, Digest};

use crate::error::CacheError;
use crate::file;
use crate::gc::{Class, Inventory, Reach, Row};
use crate::index::Durability;
use crate::lease::Protected;
use crate::lock::GcLock;
use crate::remove::remove_tree;
use crate::snapshots::SnapshotId;
use crate::store::Store;
use crate::{records, recovery};

/// What to prune. The default is everything that no image, container or running build uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also forget the records of snapshots that images use, records without a snapshot, the stat
    /// cache, and what remote names stood for. Running builds keep what they use.
    pub all: bool,
    /// Only what was last used before this time, milliseconds since 1970.
    pub until: Option<i64>,
    /// Only rows of one of these kinds; all when empty.
    pub kinds: Vec<String>,
    /// Only rows whose id starts with one of these texts; all when empty.
    pub ids: Vec<String>,
    /// Stop once the cache has at most this many bytes.
    pub keep_bytes: Option<u64>,
}

impl PruneOptions {
    fn takes(&self, row: &Row) -> bool {
        self.until.is_none_or(|until| row.last_used < until)
            && (self.kinds.is_empty() || self.kinds.contains(&row.kind))
            && (self.ids.is_empty() || self.ids.iter().any(|id| names(&row.id, id)))
    }

    /// Whether the caller chose among rows, so that what has no row stays.
    fn is_filtered(&self) -> bool {
        self.until.is_some()
            || self.keep_bytes.is_some()
            || !self.kinds.is_empty()
            || !self.ids.is_empty()
    }
}

/// Whether `wanted` is the id or the start of it, with or without `sha256:`.
fn names(id: &str, wanted: &str) -> bool {
    let bare = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    !bare(wanted).is_empty() && bare(id).starts_with(&bare(wanted))
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The removed rows.
    pub removed: Vec<Row>,
    /// Their bytes.
    pub bytes: u64,
}

/// What was decided.
#[derive(Debug, Default)]
struct Plan {
    rows: Vec<Row>,
    snapshots: Vec<SnapshotId>,
    records: Vec<Digest>,
    blobs: Vec<Digest>,
}

impl Store {
    /// Removes build cache. Never removes an image, nor anything that an image, a container or a
    /// running build of any process uses. Also finishes the removal of what dead processes left.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`] when `ctx` is cancelled: what was decided is out of the index
    /// then, and the next prune or opening removes the rest of the files.
    pub fn prune(&self, options: &PruneOptions, ctx: &Ctx<'_>) -> Result<Pruned, CacheError> {
        if self.is_read_only() {
            return Err(self.refusal());
        }
        ctx.cancel.check()?;
        recovery::sweep(self, None)?;
        self.records().flush_used()?;
        let guard = GcLock::exclusive(&self.gc_path())?;
        let protected = Protected::read(&self.locks())?;
        let reach = Reach::find(self, &protected)?;
        let inventory = Inventory::take(self)?;
        let plan = decide(&inventory, &reach, options);
        let mut trash = carry_out(self, &plan)?;
        trash.extend(recovery::take_orphans(self, &protected)?);
        if options.all && !options.is_filtered() {
            self.index().write(Durability::Lazy, |index| {
                index.execute_batch("DELETE FROM stat_cache; DELETE FROM remembered;")
            })?;
        }
        drop(guard);
        for path in &trash {
            ctx.cancel.check()?;
            remove_tree(path, None)?;
        }
        let bytes = plan.rows.iter().map(|row| row.size).sum();
        Ok(Pruned { removed: plan.rows, bytes })
    }
}

fn decide(inventory: &Inventory, reach: &Reach, options: &PruneOptions) -> Plan {
    let mut rows = inventory.rows(reach);
    // The order of creation breaks ties, which a stopped clock makes of everything.
    rows.sort_by_key(|row| row.last_used);
    let mut left: u64 = rows.iter().filter(|row| !row.in_use).map(|row| row.size).sum();
    let mut records_of: HashMap<&str, Vec<Digest>> = HashMap::new();
    for record in &inventory.records {
        if let Some(snapshot) = &record.snapshot {
            records_of.entry(snapshot.as_str()).or_default().push(record.key);
        }
    }
    let needs: HashMap<&str, Vec<&str>> = inventory
        .snapshots
        .iter()
        .map(|it| (it.id.as_str(), it.meta.needs().map(SnapshotId::as_str).collect()))
        .collect();
    let mut users: HashMap<&str, usize> = HashMap::new();
    for needed in needs.values().flatten() {
        *users.entry(needed).or_default() += 1;
    }
    let mut plan = Plan::default();
    let mut gone = HashSet::new();
    // A parent is looked at before its child when it was used longer ago; after the child went it
    // gets its turn in the next round. Rounds are bounded by the depth of a chain.
    loop {
        let before = gone.len();
        for row in &rows {
            let is_enough = options.keep_bytes.is_some_and(|keep| left <= keep);
            if is_enough || row.in_use || gone.contains(&row.id) || !options.takes(row) {
                continue;
            }
            match row.class {
                Class::Record if !options.all => continue,
                Class::Snapshot if users.get(row.id.as_str()).is_some_and(|it| *it > 0) => {
                    continue;
                }
                Class::Record => plan.records.extend(row.id.parse::<Digest>()),
                Class::Blob => plan.blobs.extend(row.id.parse::<Digest>()),
                Class::Snapshot => {
                    plan.snapshots.extend(row.id.parse::<SnapshotId>());
                    plan.records.extend(records_of.get(row.id.as_str()).into_iter().flatten());
                    for needed in needs.get(row.id.as_str()).into_iter().flatten() {
                        if let Some(count) = users.get_mut(needed) {
                            *count -= 1;
                        }
                    }
                }
            }
            left = left.saturating_sub(row.size);
            gone.insert(row.id.clone());
            plan.rows.push(row.clone());
        }
        if gone.len() == before {
            break;
        }
    }
    if options.all {
        forget_records(inventory, reach, options, &rows, &mut plan);
    }
    forget_broken(inventory, &mut plan);
    plan
}

/// `all`: the records of snapshots that stay go too, except for running builds.
fn forget_records(
    inventory: &Inventory,
    reach: &Reach,
    options: &PruneOptions,
    rows: &[Row],
    plan: &mut Plan,
) {
    let taken: HashSet<&str> = rows
        .iter()
        .filter(|row| row.class == Class::Snapshot && options.takes(row))
        .map(|row| row.id.as_str())
        .collect();
    let is_ours = |id: &SnapshotId| {
        taken.contains(id.as_str()) && reach.snapshots.contains(id) && !reach.leased.contains(id)
    };
    if options.keep_bytes.is_none() {
        let records = inventory.records.iter();
        let ours = records.filter(|record| record.snapshot.as_ref().is_some_and(is_ours));
        plan.records.extend(ours.map(|record| record.key));
    }
}

/// Records whose snapshot is gone lead nowhere.
fn forget_broken(inventory: &Inventory, plan: &mut Plan) {
    let there: HashSet<_> = inventory.snapshots.iter().map(|snapshot| &snapshot.id).collect();
    let broken = inventory
        .records
        .iter()
        .filter(|record| record.snapshot.as_ref().is_some_and(|id| !there.contains(id)));
    plan.records.extend(broken.map(|record| record.key));
}

/// Takes the victims out of the store; returns the trees that are left to delete. The caller holds
/// the exclusive gc lock.
fn carry_out(store: &Store, plan: &Plan) -> Result<Vec<PathBuf>, CacheError> {
    let mut trash = Vec::new();
    for id in &plan.snapshots {
        let aside = store.temporary("trash")?;
        file::rename(&store.snapshots().path(id), &aside)?;
        trash.push(aside);
        file::unlink(&store.snapshots().sidecar(id))?;
    }
    let now = file::now_ms();
    store.index().write(Durability::Lazy, |index| {
        for id in &plan.snapshots {
            let sql = "DELETE FROM snapshots WHERE id = ?1";
            index.prepare_cached(sql)?.execute([id.as_str()])?;
        }
        for key in &plan.records {
            records::remove(index, key, Some(now))?;
        }
        records::trim_evicted(index)
    })?;
    for digest in &plan.blobs {
        file::unlink(&store.blobs().path(digest))?;
    }
    Ok(trash)
}

/// [`Snapshots::remove`](crate::Snapshots::remove).
pub(crate) fn remove_snapshot(store: &Store, id: &SnapshotId) -> Result<(), CacheError> {
    let guard = GcLock::exclusive(&store.gc_path())?;
    let reach = Reach::find(store, &Protected::read(&store.locks())?)?;
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
    let plan = Plan { snapshots: vec![id.clone()], records, ..Plan::default() };
    let trash = carry_out(store, &plan)?;
    drop(guard);
    trash.iter().try_for_each(|path| remove_tree(path, None).map(drop))
}
