//! How large a store is, and that it stays below its limits.

use std::path::Path;
use std::process::Command;

use rbuild_cache::{
    Class, Hold, PruneOptions, RowFilter, SnapshotId, Space, SpaceLimits, Store, Usage, VolumeInfo,
};
use rbuild_types::{CancelToken, Digest};

use crate::gc::{classes, prune};
use crate::images::{MANIFEST, image, reference};
use crate::{names, record, snapshot, store};

/// What `du` says.
fn du(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Publishes a tree with files of these sizes, or links to these files.
fn tree(store: &Store, files: &[usize], links: &[&Path]) -> SnapshotId {
    let new = store.snapshots().allocate("copy", &CancelToken::default()).unwrap();
    for (number, size) in files.iter().enumerate() {
        fs_err::write(new.path().join(format!("file-{number}")), vec![7; *size]).unwrap();
    }
    for (number, file) in links.iter().enumerate() {
        fs_err::hard_link(file, new.path().join(format!("link-{number}"))).unwrap();
    }
    store.snapshots().publish(new, Default::default()).unwrap()
}

fn file(store: &Store, id: &SnapshotId, name: &str) -> std::path::PathBuf {
    store.snapshots().path(id).join(name)
}

/// The running figure against a walk.
fn assert_figure(store: &Store) {
    // Asking may make the index grow, the first time.
    store.used().unwrap();
    let used = store.used().unwrap();
    let usage = store.usage().unwrap();
    assert_near(used, usage.total - usage.temporary, &usage);
}

/// Within a hundredth: a file system counts other blocks for a file once it has written it.
#[track_caller]
fn assert_near(one: u64, other: u64, usage: &Usage) {
    assert!(one.abs_diff(other) <= other / 100, "{one} is not {other}: {usage:?}");
}

fn limited(root: &Path, max_used: u64) -> Store {
    let store = Store::open(root).unwrap();
    store.limit(SpaceLimits { max_used: Some(Space::Bytes(max_used)), ..Default::default() });
    store
}

/// Much more than the index grows meanwhile.
const MEGABYTE: usize = 1 << 20;

const NOBODY: fn() -> CancelToken = CancelToken::default;

fn name_of(id: &str) -> String {
    VolumeInfo::plain(id).volume_name()
}

/// Makes a cache mount with a file of this size.
fn cache(store: &Store, id: &str, size: usize) -> String {
    let name = name_of(id);
    let held = store.volumes().take(&name, Hold::Shared, &NOBODY()).unwrap();
    fs_err::create_dir(held.path()).unwrap();
    fs_err::write(held.path().join("file"), vec![1; size]).unwrap();
    held.note(Some(&VolumeInfo::plain(id))).unwrap();
    name
}

#[test]
fn usage_is_what_du_says() {
    let (_directory, store) = store();
    let first = tree(&store, &[100_000, 0, 5], &[]);
    tree(&store, &[3], &[&file(&store, &first, "file-0"), &file(&store, &first, "file-0")]);
    let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
    let sparse = fs_err::File::create(new.path().join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), new.path().join("long link")).unwrap();
    fs_err::create_dir_all(new.path().join("a/b/c")).unwrap();
    for number in 0..500 {
        fs_err::write(new.path().join(format!("a/{number}-{}", "n".repeat(60))), "").unwrap();
    }
    let whiteout = new.path().join("gone");
    // As a layer has it for a name that is deleted; only root may.
    let _ = rustix::fs::mknodat(
        rustix::fs::CWD,
        &whiteout,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    );
    let top = store.snapshots().publish(new, Default::default()).unwrap();
    record(&store, "step", Some(&top));
    store.blobs().put(&vec![1; 70_000]).unwrap();
    let (manifest, size) = image(&store, &[Digest::of("layer")], &[]);
    store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    cache(&store, "id", 40_000);
    for path in ["volumes/data/x", "containers/c/fs/f", "logs/b/1.log"] {
        let path = store.root().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, vec![2; 30_000]).unwrap();
    }
    let _in_progress = tree(&store, &[10], &[]);
    let usage = store.usage().unwrap();
    assert_near(usage.total, du(store.root()), &usage);
    assert_eq!(classes(&usage), usage.total, "{usage:?}");
    let sizes = usage.rows.iter().map(|row| (row.id.clone(), row.size));
    let sizes: std::collections::HashMap<_, _> = sizes.collect();
    let shared = sizes[first.as_str()];
    assert!(shared < 50_000, "what it shares is nobody's: {shared}");
    assert!(sizes[top.as_str()] < 100_000, "a hole takes no room");
}

#[test]
fn the_running_figure_is_exact() {
    let (_directory, store) = store();
    // As a build under limits begins.
    let store = limited(store.root(), u64::MAX);
    let lease = store.lease().unwrap();
    let one = tree(&store, &[200_000, 10], &[]);
    assert_figure(&store);
    let two = tree(&store, &[20_000], &[&file(&store, &one, "file-0")]);
    let three = tree(&store, &[], &[&file(&store, &two, "link-0"), &file(&store, &two, "file-0")]);
    store.blobs().put(&vec![1; 70_000]).unwrap();
    store.blobs().put(&vec![1; 70_000]).unwrap();
    let mut step = record(&store, "step", Some(&three));
    fs_err::create_dir(store.root().join("logs/b")).unwrap();
    fs_err::write(store.root().join("logs/b/1.log"), vec![b'x'; 9000]).unwrap();
    step.log = Some("b/1.log".to_owned());
    store.records().put(&step).unwrap();
    cache(&store, "id", 40_000);
    store.sync().unwrap();
    drop(lease);
    // The directory of the first log of a build.
    drop(store.lease().unwrap());
    assert_figure(&store);
    // What is shared comes back with the last that has it.
    for (id, least, most) in
        [(&one, 4096, 20_000), (&two, 4096, 20_000), (&three, 220_000, 240_000)]
    {
        let trees = || du(&store.root().join("snapshots"));
        let before = trees();
        store.snapshots().remove(id).unwrap();
        let freed = before - trees();
        assert!((least..most).contains(&freed), "{id}: {freed}");
        assert_figure(&store);
    }
    let held = store.volumes().take(&name_of("id"), Hold::Shared, &NOBODY()).unwrap();
    fs_err::write(held.path().join("more"), vec![1; 90_000]).unwrap();
    drop(held);
    assert_figure(&store);
    let pruned = prune(&store, &PruneOptions { all: true, ..Default::default() });
    assert!(pruned.bytes > 200_000, "{}", pruned.bytes);
    assert_figure(&store);
    assert!(names(&store, "logs").is_empty() && names(&store, "volumes").is_empty());
}

#[test]
fn the_figure_of_an_old_store_is_made_up_for() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    tree(&store, &[50_000], &[]);
    drop(store);
    // As a version without the table left it.
    let index = rusqlite::Connection::open(root.join("index.db")).unwrap();
    index
        .execute_batch("DROP TRIGGER sizes_of_snapshots; DROP TABLE sizes; PRAGMA user_version=2")
        .unwrap();
    drop(index);
    let store = limited(&root, u64::MAX);
    drop(store.lease().unwrap());
    assert_figure(&store);
}

#[test]
fn limits_take_the_oldest_and_nothing_that_is_used() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let old = tree(&store, &[MEGABYTE], &[]);
    let chain = Digest::of("layer");
    let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
    fs_err::write(new.path().join("file"), vec![1; MEGABYTE]).unwrap();
    let meta = rbuild_cache::SnapshotMeta { chain_id: Some(chain), ..Default::default() };
    let named = store.snapshots().publish(new, meta).unwrap();
    let (manifest, size) = image(&store, &[chain], &[]);
    store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    let young = tree(&store, &[MEGABYTE], &[]);
    let unlimited = store.used().unwrap();
    drop(store);

    let store = limited(&root, unlimited + MEGABYTE as u64 / 2);
    let lease = store.lease().unwrap();
    let left = |store: &Store| -> Vec<SnapshotId> {
        store.snapshots().list().unwrap().into_iter().map(|it| it.id).collect()
    };
    // Room for one more is made by the oldest.
    let third = tree(&store, &[MEGABYTE], &[]);
    assert_eq!(left(&store), [named.clone(), young.clone(), third.clone()]);
    assert!(!store.snapshots().contains(&old).unwrap());
    assert!(store.used().unwrap() <= unlimited + MEGABYTE as u64 / 2);
    // What this build looked at stays, however large it makes the store.
    assert!(store.snapshots().contains(&young).unwrap());
    let more: Vec<_> = (0..3).map(|_| tree(&store, &[MEGABYTE], &[])).collect();
    assert_eq!(left(&store).len(), 6);
    assert_figure(&store);
    drop(lease);
    // The next one finds them unused.
    let _lease = store.lease().unwrap();
    let last = tree(&store, &[MEGABYTE], &[]);
    assert_eq!(left(&store), [named.clone(), more[2].clone(), last]);
    // An image that loses its name is cache.
    store.tags().remove(&reference("app")).unwrap();
    tree(&store, &[MEGABYTE], &[]);
    assert!(!left(&store).contains(&named) && left(&store).contains(&more[2]));
    assert_figure(&store);
}

#[test]
fn an_image_without_a_name_goes_with_its_trees_when_its_time_comes() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let chains = [Digest::of("one"), Digest::of("two")];
    for chain in &chains {
        let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
        fs_err::write(new.path().join("file"), vec![1; MEGABYTE]).unwrap();
        let meta = rbuild_cache::SnapshotMeta { chain_id: Some(*chain), ..Default::default() };
        store.snapshots().publish(new, meta).unwrap();
        let (manifest, size) = image(&store, &[*chain], &[]);
        store.tags().add_image(&manifest, size, MANIFEST).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kept = store.used().unwrap() + MEGABYTE as u64 / 4;
    drop(store);
    let store = limited(&root, kept);
    let _lease = store.lease().unwrap();
    tree(&store, &[MEGABYTE / 2], &[]);
    assert_eq!(store.tags().list().unwrap().len(), 1);
    assert!(store.snapshots().by_chain_id(&chains[0]).unwrap().is_none());
    assert!(store.snapshots().by_chain_id(&chains[1]).unwrap().is_some());
    assert!(store.used().unwrap() <= kept);
}

#[test]
fn room_is_waited_for_until_the_token_is_cancelled() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    drop(store);
    let store = limited(&root, 1);
    let token = CancelToken::default();
    let new = store.snapshots().allocate("run", &token).unwrap();
    // Another process prunes, for ever.
    let lock = fs_err::File::create(root.join("locks/prune.lock")).unwrap();
    lock.file().lock().unwrap();
    token.cancel();
    let refused = store.snapshots().allocate("run", &token);
    assert!(matches!(refused, Err(rbuild_cache::CacheError::Cancelled(_))), "{refused:?}");
    let mut blob = store.blobs().writer(&token).unwrap();
    std::io::Write::write_all(&mut blob, b"layer").unwrap();
    // What is there is published all the same.
    let (digest, _) = blob.commit(None, None).unwrap();
    let id = store.snapshots().publish(new, Default::default()).unwrap();
    assert!(store.snapshots().contains(&id).unwrap() && store.blobs().contains(&digest).unwrap());
}

#[test]
fn what_cannot_be_removed_fails_no_step() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let old = tree(&store, &[MEGABYTE], &[]);
    let most = store.used().unwrap() + MEGABYTE as u64 / 2;
    drop(store);
    let beside = root.join(format!("snapshots/{old}.json"));
    fs_err::create_dir(&beside).unwrap();
    let store = limited(&root, most);
    let _lease = store.lease().unwrap();
    tree(&store, &[MEGABYTE], &[]);
    assert!(store.used().unwrap() > most);
    let failure = store.room_failure().unwrap().to_string();
    assert!(failure.contains(beside.to_str().unwrap()), "{failure}");
    // The next one tries again.
    fs_err::remove_dir(&beside).unwrap();
    tree(&store, &[10], &[]);
    assert!(store.room_failure().is_none());
    assert!(!store.snapshots().path(&old).exists());
}

#[test]
fn cache_mounts_are_pruned_when_nobody_uses_them() {
    let (_directory, store) = store();
    let [idle, busy] = ["idle", "busy"].map(|id| cache(&store, id, 5000));
    fs_err::create_dir(store.root().join("volumes/data")).unwrap();
    let held = store.volumes().take(&busy, Hold::Shared, &NOBODY()).unwrap();
    let shown = |store: &Store| store.usage().unwrap().rows;
    let rows = shown(&store);
    let row = |id: &str| rows.iter().find(|row| row.id == id).unwrap().clone();
    assert!(row(&busy).in_use && !row(&idle).in_use);
    assert_eq!((row(&idle).class, row(&idle).buildkit_type()), (Class::Cache, "exec.cachemount"));
    assert!(row(&idle).description.contains("idle") && row(&idle).size >= 8192);
    // They are not taken by the way.
    assert_eq!(prune(&store, &PruneOptions::default()).removed, []);
    let kinds = vec!["exec.cachemount".to_owned()];
    let filter = RowFilter { kinds, ..RowFilter::default() };
    let pruned = prune(&store, &PruneOptions { filter, ..PruneOptions::default() });
    assert_eq!(pruned.removed.len(), 1);
    assert!(pruned.bytes >= 8192);
    assert_eq!(names(&store, "volumes"), [format!(".{busy}"), busy.clone(), "data".to_owned()]);
    assert!(matches!(
        store.volumes().remove(&busy),
        Err(rbuild_cache::CacheError::VolumeInUse { .. })
    ));
    drop(held);
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    assert_eq!(prune(&store, &all).removed.len(), 1);
    assert_eq!(names(&store, "volumes"), ["data"], "a named volume is nobody's cache");
}

#[test]
fn a_volume_whose_user_was_killed_is_measured_again() {
    let (_directory, store) = store();
    let store = limited(store.root(), u64::MAX);
    drop(store.lease().unwrap());
    let name = cache(&store, "id", 5000);
    // The kernel takes the lock away from who is killed, and nobody else hears of it.
    let lock = fs_err::File::open(store.root().join(format!("volumes/.{name}"))).unwrap();
    lock.file().lock_shared().unwrap();
    assert_figure(&store);
    fs_err::write(store.volumes().path(&name).join("more"), vec![1; MEGABYTE]).unwrap();
    drop(lock);
    assert_figure(&store);
    let row = store.rows().unwrap().into_iter().find(|row| row.id == name).unwrap();
    assert!(row.size > MEGABYTE as u64, "{row:?}");
}

#[test]
fn a_volume_is_held_beside_others_or_alone() {
    let (_directory, store) = store();
    let name = cache(&store, "id", 0);
    let one = store.volumes().take(&name, Hold::Shared, &NOBODY()).unwrap();
    let two = store.volumes().try_take(&name, Hold::Shared).unwrap().unwrap();
    assert!(store.volumes().try_take(&name, Hold::Alone).unwrap().is_none());
    drop((one, two));
    let alone = store.volumes().try_take(&name, Hold::Alone).unwrap().unwrap();
    assert!(store.volumes().try_take(&name, Hold::Shared).unwrap().is_none());
    let cancel = CancelToken::default();
    cancel.cancel();
    assert!(store.volumes().take(&name, Hold::Shared, &cancel).is_err());
    drop(alone);
    let listed = store.volumes().list().unwrap();
    assert_eq!((listed.len(), listed[0].info.as_ref().unwrap().shown_id()), (1, "id"));
    // Half of a volume, as a killed process leaves it.
    fs_err::write(store.root().join("volumes/.cache-dead"), "").unwrap();
    prune(&store, &PruneOptions::default());
    assert_eq!(names(&store, "volumes"), [format!(".{name}"), name]);
}

#[test]
fn what_nobody_names_is_swept() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let kept = snapshot(&store, None, None);
    record(&store, "kept", Some(&kept));
    let gone = snapshot(&store, None, None);
    let leading_nowhere = record(&store, "gone", Some(&gone));
    store.sync().unwrap();
    let lease = store.lease().unwrap();
    assert!(store.snapshots().contains(&kept).unwrap());
    // A row without a tree, a tree without a row, and what lies beside neither.
    fs_err::remove_dir_all(store.snapshots().path(&gone)).unwrap();
    fs_err::create_dir_all(root.join("snapshots/0123/fs")).unwrap();
    fs_err::write(root.join("snapshots/4567.json"), "{}").unwrap();
    // What a dead process was doing.
    fs_err::create_dir_all(root.join("tmp/dead/snapshot-1/fs")).unwrap();
    fs_err::write(root.join("locks/lease-dead"), "s 0123\n").unwrap();
    fs_err::write(root.join("volumes/.cache-dead"), "").unwrap();
    fs_err::create_dir_all(root.join("logs/dead")).unwrap();
    fs_err::write(root.join("blobs/sha256").join(Digest::of("x").hex()), "x").unwrap();
    prune(&store, &PruneOptions::default());
    assert_eq!(names(&store, "snapshots"), [kept.to_string(), format!("{kept}.json")]);
    let records = store.records().list().unwrap();
    assert!(records.len() == 1 && records[0].key != leading_nowhere.key);
    for empty in ["volumes", "logs", "blobs/sha256"] {
        assert!(names(&store, empty).is_empty(), "{empty}");
    }
    assert!(!names(&store, "tmp").contains(&"dead".to_owned()));
    assert!(!names(&store, "locks").contains(&"lease-dead".to_owned()));
    drop(lease);
    assert_eq!(store.fsck().unwrap().index(), []);
}

#[test]
fn logs_go_with_their_records_and_stay_with_their_build() {
    let (_directory, store) = store();
    let write = |path: &str| {
        let path = store.root().join("logs").join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "output").unwrap();
    };
    ["old/1.log", "old/2.log", "failed/1.log", "running/1.log"].into_iter().for_each(write);
    let chain = Digest::of("layer");
    let tree = snapshot(&store, None, Some(chain));
    let mut step = record(&store, "kept", Some(&tree));
    step.log = Some("old/2.log".to_owned());
    store.records().put(&step).unwrap();
    let (manifest, size) = image(&store, &[chain], &[]);
    store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    let build = Store::open(store.root()).unwrap();
    let lease = build.lease().unwrap();
    build.keep_logs("running").unwrap();
    prune(&store, &PruneOptions::default());
    assert_eq!(names(&store, "logs"), ["old", "running"]);
    assert_eq!(names(&store, "logs/old"), ["2.log"]);
    drop(lease);
    prune(&store, &PruneOptions { all: true, ..PruneOptions::default() });
    assert!(names(&store, "logs").is_empty());
}
