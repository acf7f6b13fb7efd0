//! Tests of the store as its users see it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests too"
)]

mod blobs;
mod child;
mod damage;
mod figures;
mod full_disk;
mod gc;
mod images;
mod kill;
mod locks;
mod space;
mod steps;

use rbuild_cache::{SnapshotId, SnapshotMeta, StepRecord, Store};
use rbuild_types::{CancelToken, Digest};
use tempfile::TempDir;

/// A new store in a directory that goes away with the first value.
fn store() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    (directory, store)
}

/// Publishes a tree with one file.
fn snapshot(store: &Store, parent: Option<&SnapshotId>, chain: Option<Digest>) -> SnapshotId {
    let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
    fs_err::write(new.path().join("file"), "content").unwrap();
    let meta = SnapshotMeta { parent: parent.cloned(), chain_id: chain, ..SnapshotMeta::default() };
    store.snapshots().publish(new, meta).unwrap()
}

/// Writes a record of a step that made `snapshot`.
fn record(store: &Store, name: &str, snapshot: Option<&SnapshotId>) -> StepRecord {
    let inputs = serde_json::json!({"command": name, "parents": ["a", "b"]});
    let mut record = StepRecord::new(Digest::of(name), "run", name, inputs);
    record.snapshot = snapshot.cloned();
    store.records().put(&record).unwrap();
    record
}

/// Names in a directory of the store, sorted.
fn names(store: &Store, directory: &str) -> Vec<String> {
    let entries = fs_err::read_dir(store.root().join(directory)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
