//! What is done about processes that died, machines that lost power, and a lost index.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rbuild_types::Digest;
use rusqlite::Connection;
use serde::Deserialize;

use crate::error::{At as _, CacheError};
use crate::image_json::{Descriptor, MAX_JSON};
use crate::index::Durability;
use crate::lease::{self, Protected};
use crate::lock::GcLock;
use crate::measure::blocks_at;
use crate::remove::remove_tree;
use crate::sizes::{grow_snapshot, signed};
use crate::snapshots::{self, Snapshot, SnapshotId};
use crate::store::Store;
use crate::{body, file, images, lock};

/// How long opening a store may spend on removing what others left. The rest is removed by the
/// next one, and by prune.
pub(crate) const SWEEP_TIME: Duration = Duration::from_millis(300);

/// A plain file in `tmp/` (made before there is an owner's directory) is old after this.
const OLD_FILE: Duration = Duration::from_secs(60);

/// Longest `index.json` that is read back: 10,000 images are about 4 MB.
const MAX_INDEX_JSON: usize = 256 << 20;

/// Removes from `tmp/` and `locks/` what belongs to no living process. What cannot be removed
/// (files of another user in a rootless store) is left, because opening must not fail for it.
pub(crate) fn sweep(store: &Store, time: Option<Duration>) -> Result<(), CacheError> {
    let deadline = time.map(|time| Instant::now() + time);
    let tmp = store.root().join("tmp");
    for name in file::names(&tmp)? {
        let path = tmp.join(name);
        let Ok(Some(file)) = file::open_if_there(&path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        let young =
            || metadata.modified().is_ok_and(|time| time.elapsed().unwrap_or_default() < OLD_FILE);
        if (!metadata.is_dir() && young()) || !lock::try_lock(&file, &path).unwrap_or(false) {
            continue;
        }
        // Still locked while it is removed, so that no other sweep works on it too.
        if remove_tree(&path, deadline).is_ok_and(|removal| !removal.done) {
            break;
        }
    }
    let locks = store.locks();
    for name in file::names(&locks)? {
        if !name.starts_with(lease::PREFIX) && !name.starts_with("step-") {
            continue;
        }
        let path = locks.join(name);
        let Ok(Some(file)) = file::open_if_there(&path) else { continue };
        if lock::try_lock(&file, &path).unwrap_or(false) && lock::is_at(&file, &path) {
            let _ = file::unlink(&path);
        }
    }
    Ok(())
}

/// Once per boot (and after the index was made anew): drops what was not synced before the power
/// went, and snapshots that no row knows.
pub(crate) fn after_boot(store: &Store) -> Result<(), CacheError> {
    let boot = store.boot();
    if store.meta("boot")?.as_deref() == Some(boot) {
        return Ok(());
    }
    let guard = GcLock::exclusive(&store.gc_path())?;
    if store.meta("boot")?.as_deref() == Some(boot) {
        return Ok(());
    }
    store.index().write(Durability::Lazy, |index| {
        let lost = "synced = 0 AND boot <> ?1";
        index.execute(&format!("DELETE FROM records WHERE {lost}"), [boot])?;
        index.execute(&format!("DELETE FROM snapshots WHERE {lost}"), [boot]).map(drop)
    })?;
    let trash = take_orphans(store, &Protected::read(&store.locks())?)?;
    store.set_meta("boot", boot)?;
    drop(guard);
    let deadline = Instant::now() + SWEEP_TIME;
    for path in trash {
        // What is left stays in this process's directory below `tmp/`, for the next sweep.
        if remove_tree(&path, Some(deadline)).is_ok_and(|removal| !removal.done) {
            break;
        }
    }
    Ok(())
}

/// Moves snapshot directories without a row to `tmp/`, removes sidecars without a directory, and
/// rows without one. The caller holds the exclusive gc lock and removes what is returned.
pub(crate) fn take_orphans(
    store: &Store,
    protected: &Protected,
) -> Result<Vec<std::path::PathBuf>, CacheError> {
    let directory = store.root().join("snapshots");
    let known: HashSet<String> = store.index().read(|index| {
        index.prepare("SELECT id FROM snapshots")?.query_map([], |row| row.get(0))?.collect()
    })?;
    let names: HashSet<String> = file::names(&directory)?.into_iter().collect();
    let mut trash = Vec::new();
    for name in &names {
        let id = name.strip_suffix(".json").unwrap_or(name);
        let keep = |id: SnapshotId| protected.snapshots.contains(&id);
        if known.contains(id) && names.contains(id) || id.parse().is_ok_and(keep) {
            continue;
        }
        if name.ends_with(".json") {
            file::unlink(&directory.join(name))?;
        } else {
            let aside = store.temporary("trash")?;
            file::rename(&directory.join(name), &aside)?;
            trash.push(aside);
        }
    }
    let gone: Vec<_> = known.iter().filter(|id| !names.contains(*id)).collect();
    if !gone.is_empty() {
        store.index().write(Durability::Lazy, |index| {
            let mut statement = index.prepare("DELETE FROM snapshots WHERE id = ?1")?;
            gone.iter().try_for_each(|id| statement.execute([id]).map(drop))
        })?;
    }
    Ok(trash)
}

/// Makes the names of all blobs durable, those that other processes published among them.
pub(crate) fn sync_blob_names(store: &Store) -> Result<(), CacheError> {
    file::sync_dir(&store.root().join("blobs/sha256"))
}

/// Makes all rows of this boot durable, with what they stand for. Order: look which rows there
/// are; prepare their sidecars; flush the file system; give the sidecars their names; mark the
/// rows and flush the index's log.
pub(crate) fn sync(store: &Store) -> Result<(), CacheError> {
    let boot = store.boot();
    let last = |index: &Connection, table: &str| {
        let sql = format!("SELECT max(seq) FROM {table} WHERE synced = 0 AND boot = ?1");
        index.prepare_cached(&sql)?.query_row([boot], |row| row.get::<_, Option<i64>>(0))
    };
    let (snapshots, records) =
        store.index().read(|index| Ok((last(index, "snapshots")?, last(index, "records")?)))?;
    let root = file::open(store.root())?;
    if snapshots.is_none() && records.is_none() {
        // Blobs have durable bytes, but perhaps not yet a durable name.
        if store.take_new_blobs() {
            return sync_blob_names(store).inspect_err(|_| store.note_blob());
        }
        return Ok(());
    }
    let fresh: Vec<Option<Snapshot>> = store.index().read(|index| {
        let sql = "SELECT body FROM snapshots WHERE synced = 0 AND boot = ?1 AND seq <= ?2";
        let mut statement = index.prepare_cached(sql)?;
        statement.query_map((boot, snapshots), snapshots::decode)?.collect()
    })?;
    let mut sidecars = Vec::new();
    let mut sizes = HashMap::new();
    for snapshot in fresh.iter().flatten() {
        let target = store.snapshots().sidecar(&snapshot.id);
        let temporary = store.snapshots().prepare_sidecar(snapshot)?;
        sizes.insert(snapshot.id.as_str(), signed(blocks_at(&temporary)));
        sidecars.push((temporary, target));
    }
    rustix::fs::syncfs(&root).at("sync", store.root())?;
    for (temporary, target) in &sidecars {
        file::rename(temporary, target)?;
    }
    if !sidecars.is_empty() {
        file::sync_dir(&store.root().join("snapshots"))?;
    }
    mark(store, snapshots, records, &sizes)
}

/// Marks rows as durable. Of several who do it at the same time each counts the descriptions of
/// those that it marked.
fn mark(
    store: &Store,
    snapshots: Option<i64>,
    records: Option<i64>,
    sizes: &HashMap<&str, i64>,
) -> Result<(), CacheError> {
    let marking = |table: &str| {
        format!("UPDATE {table} SET synced = 1 WHERE synced = 0 AND boot = ?1 AND seq <= ?2")
    };
    store.index().write(Durability::Synced, |index| {
        let sql = marking("snapshots") + " RETURNING id";
        let marked: Vec<String> = index
            .prepare_cached(&sql)?
            .query_map((store.boot(), snapshots), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in &marked {
            grow_snapshot(index, id, sizes.get(id.as_str()).copied().unwrap_or(0))?;
        }
        index.prepare_cached(&marking("records"))?.execute((store.boot(), records)).map(drop)
    })
}

/// Fills a new index from `index.json` and the sidecars of synced snapshots.
pub(crate) fn refill(root: &Path, index: &Connection) -> rusqlite::Result<()> {
    images::refill(root, index)?;
    let directory = root.join("snapshots");
    let names: HashSet<String> = file::names(&directory).unwrap_or_default().into_iter().collect();
    for name in &names {
        let Some(id) = name.strip_suffix(".json").filter(|id| names.contains(*id)) else {
            continue;
        };
        let Some(bytes) = read_json(&directory.join(name), None) else { continue };
        let Some(snapshot) = body::decode::<Snapshot>(&bytes) else { continue };
        if snapshot.id.as_str() == id {
            snapshots::insert_described(index, &snapshot, &directory.join(name))?;
        }
    }
    Ok(())
}

/// Reads a small file, verifying its digest; `None` when anything is wrong with it.
pub(crate) fn read_json(path: &Path, digest: Option<&Digest>) -> Option<Vec<u8>> {
    let bytes = file::read_capped(file::open(path).ok()?, path, MAX_JSON).ok()?;
    let fits = bytes.len() <= MAX_JSON && digest.is_none_or(|digest| Digest::of(&bytes) == *digest);
    fits.then_some(bytes)
}

/// The descriptors in `index.json`; none when it is damaged.
pub(crate) fn read_index_json(root: &Path) -> Vec<Descriptor> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let path = root.join("index.json");
    let read = file::open(&path).and_then(|file| file::read_capped(file, &path, MAX_INDEX_JSON));
    let parsed = read.ok().and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok());
    parsed.map_or_else(Vec::new, |index| index.manifests)
}

#[cfg(test)]
mod tests {
    use rbuild_types::{CancelToken, Digest};

    use super::*;
    use crate::{SnapshotMeta, StepRecord};

    fn make(store: &Store, name: &str) -> SnapshotId {
        let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
        let id = store.snapshots().publish(new, SnapshotMeta::default()).unwrap();
        let mut record = StepRecord::new(Digest::of(name), "run", name, serde_json::Value::Null);
        record.snapshot = Some(id.clone());
        store.records().put(&record).unwrap();
        id
    }

    #[test]
    fn a_power_cut_takes_what_was_not_synced() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = Store::open_in_boot(&root, "first".into()).unwrap();
        let synced = make(&store, "synced");
        store.sync().unwrap();
        let lost = make(&store, "lost");
        drop(store);
        // The same boot sees both, whoever died.
        let store = Store::open_in_boot(&root, "first".into()).unwrap();
        assert!(store.records().get(&Digest::of("lost")).unwrap().is_some());
        drop(store);
        let store = Store::open_in_boot(&root, "second".into()).unwrap();
        assert!(store.records().get(&Digest::of("synced")).unwrap().is_some());
        assert!(store.records().get(&Digest::of("lost")).unwrap().is_none());
        assert!(store.snapshots().path(&synced).exists());
        assert!(!store.snapshots().path(&lost).exists());
        assert_eq!(store.records().list().unwrap().len(), 1);
    }

    #[test]
    fn a_tree_whose_row_was_lost_is_removed_and_a_synced_one_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = Store::open_in_boot(&root, "first".into()).unwrap();
        let synced = make(&store, "synced");
        store.sync().unwrap();
        let orphan = make(&store, "orphan");
        drop(store);
        for name in ["index.db", "index.db-wal", "index.db-shm"] {
            file::unlink(&root.join(name)).unwrap();
        }
        let store = Store::open_in_boot(&root, "second".into()).unwrap();
        assert!(store.snapshots().contains(&synced).unwrap());
        assert!(!store.snapshots().path(&orphan).exists());
    }

    #[test]
    fn who_syncs_beside_others_counts_only_what_he_marked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let id = make(&store, "step");
        let recorded = || crate::sizes::of_kind(&store, "snapshot").unwrap()[id.as_str()];
        let before = recorded();
        // Both found it unmarked and wrote its description.
        let sizes = HashMap::from([(id.as_str(), 4096)]);
        for _ in 0..2 {
            mark(&store, Some(1), Some(1), &sizes).unwrap();
        }
        assert_eq!(recorded(), before + 4096);
    }

    #[test]
    fn a_read_only_store_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = Store::open_in_boot(&root, "boot".into()).unwrap();
        make(&store, "step");
        let blob = store.blobs().put(b"bytes").unwrap();
        drop(store);
        let store = Store::open_as(&root, "boot".into(), true).unwrap();
        assert!(store.is_read_only());
        assert!(store.records().get(&Digest::of("step")).unwrap().is_some());
        assert_eq!(store.blobs().read_small(&blob, 10).unwrap(), b"bytes");
        assert!(store.tags().list().unwrap().is_empty());
        let refused = [
            store.blobs().put(b"other").map(drop),
            store.lease().map(drop),
            store.snapshots().allocate("run", &CancelToken::default()).map(drop),
            store.records().remove(&Digest::of("step")).map(drop),
        ];
        for result in refused {
            assert!(matches!(result, Err(CacheError::ReadOnly { .. })), "{result:?}");
        }
    }
}
