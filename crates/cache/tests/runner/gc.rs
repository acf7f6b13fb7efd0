use rbuild_cache::{
    CacheError, Class, PruneOptions, Pruned, Row, RowFilter, SnapshotId, Space, SpaceLimits, Store,
    Usage,
};
use rbuild_types::{CancelToken, Ctx, Digest, Silent};

use crate::images::{MANIFEST, image, reference};
use crate::{child, names, record, snapshot, store};

pub fn prune(store: &Store, options: &PruneOptions) -> Pruned {
    let cancel = CancelToken::default();
    store.prune(options, &Ctx::new(&Silent, &cancel)).unwrap()
}

fn all() -> PruneOptions {
    PruneOptions { all: true, ..PruneOptions::default() }
}

fn snapshots(store: &Store) -> usize {
    let trees = names(store, "snapshots").into_iter().filter(|name| !name.ends_with(".json"));
    let count = trees.count();
    assert_eq!(store.snapshots().list().unwrap().len(), count);
    count
}

/// A base, an image's layer on it, and an intermediate step's tree on that.
fn filled(store: &Store) -> Digest {
    let (base, layer) = (Digest::of("base"), Digest::of("layer"));
    let chain = Digest::of(format!("{base} {layer}"));
    let bottom = snapshot(store, None, Some(base));
    let middle = snapshot(store, Some(&bottom), Some(chain));
    let top = snapshot(store, Some(&middle), None);
    record(store, "FROM", Some(&bottom));
    record(store, "RUN 1", Some(&middle));
    record(store, "RUN 2", Some(&top));
    record(store, "no tree", None);
    let blob = store.blobs().put(b"layer bytes").unwrap();
    store.blobs().put(b"bytes of no image").unwrap();
    let (manifest, size) = image(store, &[base, layer], &[blob]);
    store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    manifest
}

#[test]
fn the_default_keeps_what_images_use() {
    let (_directory, store) = store();
    let manifest = filled(&store);
    let pruned = prune(&store, &PruneOptions::default());
    let mut classes: Vec<_> = pruned.removed.iter().map(|row| row.class).collect();
    classes.sort_by_key(|class| format!("{class:?}"));
    assert_eq!(classes, [Class::Blob, Class::Snapshot]);
    assert!(pruned.bytes >= 8192 + 512, "{}", pruned.bytes);
    assert_eq!(snapshots(&store), 2);
    assert_eq!(store.blobs().list().unwrap().len(), 3, "manifest, config, layer");
    assert!(store.records().get(&Digest::of("RUN 1")).unwrap().is_some());
    assert!(store.records().get(&Digest::of("RUN 2")).unwrap().is_none());
    assert!(store.records().evicted(&Digest::of("RUN 2")).unwrap().is_some());
    assert!(store.records().evicted(&Digest::of("RUN 1")).unwrap().is_none());
    // A dangling image keeps its bytes until it is pruned itself.
    store.tags().remove(&reference("app")).unwrap();
    assert!(prune(&store, &PruneOptions::default()).removed.is_empty());
    assert_eq!(store.tags().prune_images(None).unwrap()[0].manifest_digest, manifest);
    prune(&store, &PruneOptions::default());
    assert_eq!((snapshots(&store), store.blobs().list().unwrap().len()), (0, 0));
    assert!(names(&store, "snapshots").is_empty(), "sidecars too");
}

#[test]
fn all_forgets_every_record_but_no_image() {
    let (_directory, store) = store();
    filled(&store);
    prune(&store, &all());
    assert!(store.records().list().unwrap().is_empty());
    assert_eq!(snapshots(&store), 2);
    assert_eq!(store.blobs().list().unwrap().len(), 3);
}

#[test]
fn a_running_build_of_another_process_loses_nothing() {
    let (_directory, store) = store();
    let parent = snapshot(&store, None, None);
    let used = snapshot(&store, Some(&parent), None);
    record(&store, "used", Some(&used));
    let unused = snapshot(&store, Some(&parent), None);
    record(&store, "unused", Some(&unused));
    let mut child = child::start("build", store.root());
    let said = child::wait_for(&mut child, "ready");
    let (new, blob) = said.split_once(' ').unwrap();
    prune(&store, &all());
    let left: Vec<_> = store.snapshots().list().unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(left, [parent, used, new.parse().unwrap()]);
    assert!(store.records().get(&Digest::of("used")).unwrap().is_some());
    assert!(store.records().get(&Digest::of("unused")).unwrap().is_none());
    assert!(store.blobs().contains(&blob.parse().unwrap()).unwrap());
    child::kill(child);
    prune(&store, &all());
    assert_eq!((snapshots(&store), store.blobs().list().unwrap().len()), (0, 0));
    assert_eq!(names(&store, "locks"), ["gc.lock", "prune.lock"]);
}

/// A layer that stands on two others is gone only after both.
#[test]
fn a_stacked_layer_stays_as_long_as_one_shows_its_files() {
    let (_directory, store) = store();
    let bottoms = [snapshot(&store, None, None), snapshot(&store, None, None)];
    let layer = snapshot(&store, None, None);
    let snapshots = store.snapshots();
    let stack = |parent: &SnapshotId| snapshots.stack(&layer, Some(parent.clone()), "merge");
    let [one, two] = [stack(&bottoms[0]).unwrap(), stack(&bottoms[1]).unwrap()];
    let refused = snapshots.remove(&layer).unwrap_err();
    assert!(matches!(refused, CacheError::InUse { .. }), "{refused}");
    snapshots.remove(&one).unwrap();
    assert!(snapshots.remove(&layer).is_err());
    let pins = store.root().join("containers/c/pins");
    fs_err::create_dir_all(pins.parent().unwrap()).unwrap();
    fs_err::write(&pins, format!("{two}\n")).unwrap();
    prune(&store, &all());
    let left: Vec<_> = snapshots.list().unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(left, [bottoms[1].clone(), layer.clone(), two.clone()]);
    // Without its files it is no snapshot, whatever its row says.
    fs_err::rename(snapshots.path(&layer), store.root().join("tmp/aside")).unwrap();
    assert!(!snapshots.contains(&two).unwrap());
    fs_err::rename(store.root().join("tmp/aside"), snapshots.path(&layer)).unwrap();
    assert!(snapshots.contains(&two).unwrap());
    fs_err::remove_file(&pins).unwrap();
    prune(&store, &PruneOptions::default());
    assert!(names(&store, "snapshots").is_empty());
}

#[test]
fn a_lease_of_this_process_protects_until_it_is_dropped() {
    let (_directory, store) = store();
    let lease = store.clone().lease().unwrap();
    snapshot(&store, None, None);
    store.blobs().put(b"bytes").unwrap();
    assert!(prune(&store, &all()).removed.is_empty());
    assert!(store.rows().unwrap().iter().all(|row| row.in_use));
    drop(lease);
    assert_eq!(prune(&store, &all()).removed.len(), 2);
}

#[test]
fn containers_pin_snapshots() {
    let (_directory, store) = store();
    let bottom = snapshot(&store, None, None);
    let top = snapshot(&store, Some(&bottom), None);
    let container = store.root().join("containers/c1");
    fs_err::create_dir(&container).unwrap();
    fs_err::write(container.join("pins"), format!("{top}\n../nonsense\n")).unwrap();
    assert!(prune(&store, &all()).removed.is_empty());
    fs_err::remove_dir_all(&container).unwrap();
    assert_eq!(prune(&store, &all()).removed.len(), 2);
}

#[test]
fn filters_choose_and_limits_keep_the_newest() {
    let (_directory, store) = store();
    let mut ids = Vec::new();
    for number in 0..4i64 {
        // Much more than the index grows meanwhile.
        let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
        fs_err::write(new.path().join("file"), vec![1; 2 << 20]).unwrap();
        let id = store.snapshots().publish(new, Default::default()).unwrap();
        let mut step = record(&store, &format!("step {number}"), Some(&id));
        step.last_used += number * 10_000;
        store.records().put(&step).unwrap();
        ids.push(id);
    }
    let removed = |options: PruneOptions| -> Vec<String> {
        prune(&store, &options).removed.into_iter().map(|row: Row| row.id).collect()
    };
    let chosen = |filter: RowFilter| removed(PruneOptions { filter, ..PruneOptions::default() });
    let kinds = vec!["copy".to_owned()];
    assert!(chosen(RowFilter { kinds, ..RowFilter::default() }).is_empty());
    let until = Some(1000);
    assert!(chosen(RowFilter { until, ..RowFilter::default() }).is_empty());
    let picked = vec![ids[3].as_str()[..8].to_owned()];
    let by_id = chosen(RowFilter { ids: picked, ..RowFilter::default() });
    assert_eq!(by_id, [ids[3].to_string()]);
    // One of the three that are left may stay.
    let max_used = Some(Space::Bytes(3 << 20));
    let limits = SpaceLimits { max_used, ..SpaceLimits::default() };
    let oldest = removed(PruneOptions { limits, ..PruneOptions::default() });
    assert_eq!(oldest, [ids[0].to_string(), ids[1].to_string()]);
    assert_eq!(snapshots(&store), 1);
}

#[test]
fn prune_beside_builds_breaks_none() {
    let (_directory, store) = store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let builders: Vec<_> = (0..3)
            .map(|builder| {
                let own = Store::open(store.root()).unwrap();
                scope.spawn(move || {
                    for round in 0..100u64 {
                        // Between two builds a tree lies about unprotected.
                        std::thread::sleep(std::time::Duration::from_micros(round * 7 % 5 * 300));
                        let _lease = own.lease().unwrap();
                        let name = format!("step {}", (builder + round) % 4);
                        let found = own.records().get(&Digest::of(&name)).unwrap();
                        let parent = match found.and_then(|record| record.snapshot) {
                            Some(parent) => parent,
                            None => {
                                let made = snapshot(&own, None, None);
                                record(&own, &name, Some(&made));
                                made
                            }
                        };
                        let top = snapshot(&own, Some(&parent), None);
                        for id in own.snapshots().chain(&top).unwrap() {
                            let file = own.snapshots().path(&id).join("file");
                            assert_eq!(fs_err::read_to_string(file).unwrap(), "content");
                        }
                    }
                })
            })
            .collect();
        let pruner = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                prune(&store, &all());
                rounds += 1;
            }
            rounds
        });
        let results: Vec<_> = builders.into_iter().map(|builder| builder.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(pruner.join().unwrap() > 0);
        results.into_iter().for_each(|result| result.unwrap());
    });
    prune(&store, &all());
    assert_eq!(snapshots(&store), 0);
}

#[test]
fn usage_counts_every_inode_once() {
    let (_directory, store) = store();
    let first = snapshot(&store, None, None);
    let second = store.snapshots().allocate("copy", &CancelToken::default()).unwrap();
    let file = store.snapshots().path(&first).join("file");
    fs_err::write(&file, vec![1; 1 << 20]).unwrap();
    let before = store.usage().unwrap();
    fs_err::hard_link(&file, second.path().join("file")).unwrap();
    let after = store.usage().unwrap();
    assert!(before.other_snapshots >= 1 << 20);
    assert_eq!(before.other_snapshots, after.other_snapshots);
    assert_eq!(before.temporary, after.temporary);
    assert_eq!(classes(&after), after.total);
}

pub fn classes(usage: &Usage) -> u64 {
    usage.image_blobs
        + usage.other_blobs
        + usage.image_snapshots
        + usage.other_snapshots
        + usage.caches
        + usage.index
        + usage.logs
        + usage.volumes
        + usage.containers
        + usage.temporary
        + usage.other
}

#[test]
fn strange_trees_are_removed_whole() {
    let (directory, store) = store();
    let outside = directory.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::write(outside.join("precious"), "").unwrap();
    let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
    std::os::unix::fs::symlink(&outside, new.path().join("link")).unwrap();
    let closed = new.path().join("work/work");
    fs_err::create_dir_all(&closed).unwrap();
    fs_err::write(closed.join("file"), "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs_err::set_permissions(&closed, mode).unwrap();
    let mut deep = new.path().to_owned();
    for _ in 0..300 {
        deep.push("d");
    }
    fs_err::create_dir_all(&deep).unwrap();
    let id = store.snapshots().publish(new, Default::default()).unwrap();
    store.snapshots().remove(&id).unwrap();
    assert_eq!(snapshots(&store), 0);
    assert!(outside.join("precious").exists());
    let owner = names(&store, "tmp").pop().unwrap();
    assert!(names(&store, &format!("tmp/{owner}")).is_empty());
}

#[test]
fn old_ones_of_a_kind_go_but_not_beside_a_prune() {
    let (directory, store) = store();
    let ids: Vec<_> = (0..3).map(|_| snapshot(&store, None, None)).collect();
    let lock = fs_err::File::create(directory.path().join("store/locks/prune.lock")).unwrap();
    lock.file().lock().unwrap();
    // It does not wait for whoever has the lock.
    store.snapshots().keep_newest("run", 1).unwrap();
    assert_eq!(snapshots(&store), 3);
    drop(lock);
    store.snapshots().keep_newest("run", 1).unwrap();
    let left: Vec<_> = store.snapshots().list().unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(left, ids[2..]);
}
