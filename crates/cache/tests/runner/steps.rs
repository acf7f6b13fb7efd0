use std::time::{Duration, SystemTime};

use rbuild_cache::{CacheError, FileStamp, SnapshotMeta, Store};
use rbuild_types::{CancelToken, Digest};

use crate::{record, snapshot, store};

#[test]
fn a_record_is_found_until_its_snapshot_goes() {
    let (_directory, store) = store();
    let tree = snapshot(&store, None, None);
    let written = record(&store, "make", Some(&tree));
    let other = Store::open(store.root()).unwrap();
    assert_eq!(other.records().get(&written.key).unwrap(), Some(written.clone()));
    assert_eq!(other.records().get(&Digest::of("else")).unwrap(), None);
    assert_eq!(other.records().list().unwrap(), std::slice::from_ref(&written));
    fs_err::remove_dir_all(store.snapshots().path(&tree)).unwrap();
    assert_eq!(store.records().get(&written.key).unwrap(), None);
    // It still explains a miss.
    let nearest = store.records().by_step_name("make", 1).unwrap();
    assert_eq!(nearest, std::slice::from_ref(&written));
    assert!(store.records().remove(&written.key).unwrap());
    assert!(!store.records().remove(&written.key).unwrap());
}

#[test]
fn a_fast_key_leads_to_the_record() {
    let (_directory, store) = store();
    let written = record(&store, "make", None);
    let fast = Digest::of("fast");
    assert_eq!(store.records().get_alias(&fast).unwrap(), None);
    store.records().alias(&fast, &written.key).unwrap();
    assert_eq!(store.records().get_alias(&fast).unwrap(), Some(written.key));
    store.records().remove(&written.key).unwrap();
    assert_eq!(store.records().get_alias(&fast).unwrap(), None);
}

#[test]
fn the_last_use_is_written_once_an_hour() {
    let (_directory, store) = store();
    let mut old = record(&store, "make", None);
    store.records().touch(&old.key);
    store.records().flush_used().unwrap();
    assert_eq!(store.records().get(&old.key).unwrap().unwrap().last_used, old.last_used);
    old.last_used -= 2 * 3_600_000;
    store.records().put(&old).unwrap();
    store.records().get(&old.key).unwrap();
    store.records().flush_used().unwrap();
    assert!(store.records().get(&old.key).unwrap().unwrap().last_used > old.last_used);
}

#[test]
fn snapshots_form_chains() {
    let (_directory, store) = store();
    let snapshots = store.snapshots();
    let bottom = snapshot(&store, None, Some(Digest::of("chain")));
    let top = snapshot(&store, Some(&bottom), None);
    assert_eq!(snapshots.chain(&top).unwrap(), [bottom.clone(), top.clone()]);
    assert_eq!(snapshots.by_chain_id(&Digest::of("chain")).unwrap(), Some(bottom.clone()));
    assert_eq!(snapshots.by_chain_id(&Digest::of("else")).unwrap(), None);
    assert_eq!(snapshots.meta(&bottom).unwrap().unwrap().kind, "run");
    let (diff, chain) = (Digest::of("diff"), Digest::of("top"));
    snapshots.set_diff(&top, diff, 1024, chain).unwrap();
    assert_eq!(snapshots.meta(&top).unwrap().unwrap().meta.diff_id, Some(diff));
    assert_eq!(snapshots.by_chain_id(&chain).unwrap(), Some(top.clone()));
    let refused = snapshots.remove(&bottom).unwrap_err();
    assert!(matches!(refused, CacheError::InUse { .. }), "{refused}");
    snapshots.remove(&top).unwrap();
    snapshots.remove(&bottom).unwrap();
    snapshots.remove(&bottom).unwrap();
    assert!(snapshots.list().unwrap().is_empty());
    assert!(matches!(snapshots.chain(&top), Err(CacheError::NoSnapshot { .. })));
}

#[test]
fn a_listing_lies_beside_the_tree() {
    let (_directory, store) = store();
    let snapshots = store.snapshots();
    let new = snapshots.allocate("copy", &CancelToken::default()).unwrap();
    let listing = vec![("a".to_owned(), 1), ("b".to_owned(), 2)];
    new.write_listing(&listing).unwrap();
    let id = snapshots.publish(new, SnapshotMeta::default()).unwrap();
    assert_eq!(snapshots.listing(&id).unwrap(), Some(listing));
    assert_eq!(snapshots.listing::<u64>(&id).unwrap(), None, "of another form");
    let plain = snapshot(&store, None, None);
    assert_eq!(snapshots.listing::<Vec<(String, u64)>>(&plain).unwrap(), None);
    // A damaged one counts as none.
    let path = snapshots.path(&id).join("listing");
    let mut bytes = fs_err::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&path, bytes).unwrap();
    assert_eq!(snapshots.listing::<Vec<(String, u64)>>(&id).unwrap(), None);
}

#[test]
fn a_layer_stands_on_others_without_files_of_its_own() {
    let (_directory, store) = store();
    let snapshots = store.snapshots();
    let new = snapshots.allocate("copy", &CancelToken::default()).unwrap();
    fs_err::create_dir(new.path().join("fs")).unwrap();
    fs_err::write(new.path().join("fs/file"), "content").unwrap();
    let layer = snapshots.publish(new, SnapshotMeta::default()).unwrap();
    snapshots.set_diff(&layer, Digest::of("tar"), 512, Digest::of("tar")).unwrap();
    let bottom = snapshot(&store, None, None);
    let stacked = snapshots.stack(&layer, Some(bottom.clone()), "merge").unwrap();
    let meta = snapshots.meta(&stacked).unwrap().unwrap().meta;
    assert_eq!((&meta.tree, meta.diff_id), (&Some(layer.clone()), Some(Digest::of("tar"))));
    assert_eq!((meta.tar_size, meta.chain_id), (Some(512), None));
    assert!(meta.bytes < snapshots.meta(&layer).unwrap().unwrap().meta.bytes, "{}", meta.bytes);
    assert_eq!(snapshots.chain(&stacked).unwrap(), [bottom.clone(), stacked.clone()]);
    let file = snapshots.path(&stacked).join("fs/file");
    assert_eq!(fs_err::read_to_string(&file).unwrap(), "content");
    // A second time the layer itself is meant, not what stands somewhere.
    let again = snapshots.stack(&stacked, Some(bottom), "merge").unwrap();
    assert_eq!(snapshots.meta(&again).unwrap().unwrap().meta.tree, Some(layer));
    let nowhere = snapshots.stack(&"nowhere".parse().unwrap(), None, "merge");
    assert!(matches!(nowhere, Err(CacheError::NoSnapshot { .. })));
}

#[test]
fn one_content_is_published_once_and_nothing_without_its_parent() {
    let (_directory, store) = store();
    let first = snapshot(&store, None, Some(Digest::of("chain")));
    assert_eq!(snapshot(&store, None, Some(Digest::of("chain"))), first);
    let new = store.snapshots().allocate("run", &CancelToken::default()).unwrap();
    let path = new.path().to_owned();
    let parent = Some("nowhere".parse().unwrap());
    let refused = store.snapshots().publish(new, SnapshotMeta { parent, ..Default::default() });
    assert!(matches!(refused, Err(CacheError::NoSnapshot { .. })));
    assert!(!path.exists());
    assert_eq!(store.snapshots().list().unwrap().len(), 1);
}

fn stamp(ino: u64, age: Duration, now: SystemTime) -> FileStamp {
    let since = (now - age).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = since.as_nanos() as i64;
    FileStamp { dev: 1, ino, size: 10, mtime_ns: time, ctime_ns: time }
}

#[test]
fn the_stat_cache_remembers_what_is_not_racy() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    let cache = store.stat_cache("/context").unwrap();
    let old = stamp(1, Duration::from_secs(3), now);
    let young = stamp(2, Duration::from_millis(1900), now);
    let touched = FileStamp { mtime_ns: 5, ..stamp(3, Duration::from_secs(1), now) };
    let future = FileStamp { mtime_ns: i64::MAX, ..stamp(4, Duration::from_secs(9), now) };
    for stamp in [old, young, touched, future] {
        cache.insert(stamp, Digest::of("content"), now);
    }
    cache.save().unwrap();
    let cache = store.stat_cache("/context").unwrap();
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.get(&old), Some(Digest::of("content")));
    assert_eq!(cache.get(&young), None);
    for changed in [
        FileStamp { size: 11, ..old },
        FileStamp { ctime_ns: old.ctime_ns + 1, ..old },
        FileStamp { dev: 2, ..old },
    ] {
        assert_eq!(cache.get(&changed), None);
    }
    assert!(store.stat_cache("/elsewhere").unwrap().is_empty());
}

#[test]
fn the_stat_cache_follows_its_files() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    let age = Duration::from_secs(100);
    let fill = |range: std::ops::Range<u64>| {
        let cache = store.stat_cache("/context").unwrap();
        range
            .for_each(|ino| cache.insert(stamp(ino, age, now), Digest::of(ino.to_le_bytes()), now));
        cache.save().unwrap();
        store.stat_cache("/context").unwrap()
    };
    let cache = fill(0..1000);
    for ino in 0..1000 {
        assert_eq!(cache.get(&stamp(ino, age, now)), Some(Digest::of(ino.to_le_bytes())));
    }
    // A changed file replaces its entry.
    let changed = FileStamp { size: 11, ..stamp(7, age, now) };
    cache.insert(changed, Digest::of("changed"), now);
    cache.save().unwrap();
    let cache = store.stat_cache("/context").unwrap();
    assert_eq!((cache.len(), cache.get(&stamp(7, age, now))), (1000, None));
    assert_eq!(cache.get(&changed), Some(Digest::of("changed")));
    // Files that nobody sees any more go once they are the greater part.
    assert_eq!(fill(100_000..140_000).len(), 41_000);
    assert_eq!(fill(200_000..200_010).len(), 10);
}

#[test]
fn a_store_is_shared_by_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Store>();
    shared::<rbuild_cache::StatCache>();
    shared::<rbuild_cache::Lease>();
}
