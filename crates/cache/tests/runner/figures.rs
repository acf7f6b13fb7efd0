//! Prints how fast the store is: `cargo test -p rbuild-cache figures -- --ignored --nocapture`.

use std::time::{Duration, Instant, SystemTime};

use rbuild_cache::{FileStamp, Store};
use rbuild_types::Digest;

use crate::images::{MANIFEST, image, reference};
use crate::{record, snapshot, store};

fn median(what: &str, times: usize, mut work: impl FnMut()) {
    let mut taken: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    taken.sort();
    println!("{what}: median {:?}, best {:?}", taken[times / 2], taken[0]);
}

#[test]
#[ignore = "prints figures, asserts nothing"]
fn figures() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let tree = snapshot(&store, None, None);
    (0..2000).for_each(|number| drop(record(&store, &format!("step {number}"), Some(&tree))));
    store.sync().unwrap();
    drop(store);
    median("open and look one record up", 51, || {
        let store = Store::open(&root).unwrap();
        assert!(store.records().get(&Digest::of("step 7")).unwrap().is_some());
    });
    let store = Store::open(&root).unwrap();
    median("look 20 records up under a lease", 51, || {
        let _lease = store.lease().unwrap();
        for number in 0..20 {
            store.records().get(&Digest::of(format!("step {number}"))).unwrap().unwrap();
        }
    });
    median("write a record", 51, || drop(record(&store, "again", Some(&tree))));
    median("publish a snapshot", 51, || drop(snapshot(&store, None, None)));
    median("take and free a step lock", 51, || {
        drop(store.try_step_lock(&Digest::of("x")).unwrap().unwrap());
    });
    let mut number = 0;
    median("sync after one record", 21, || {
        record(&store, "once more", None);
        store.sync().unwrap();
    });
    median("put config and manifest, sync and tag", 21, || {
        number += 1;
        let (manifest, size) = image(&store, &[Digest::of(format!("{number}"))], &[]);
        store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    });
    let now = SystemTime::now();
    let stamp = |ino| FileStamp { dev: 1, ino, size: 4000, mtime_ns: 7, ctime_ns: 8 };
    let cache = store.stat_cache("/context").unwrap();
    (0..50_000).for_each(|ino| cache.insert(stamp(ino), Digest::of("x"), now));
    median("save 50,000 stamps", 5, || cache.save().unwrap());
    median("load 50,000 stamps", 21, || drop(store.stat_cache("/context").unwrap()));
    let cache = store.stat_cache("/context").unwrap();
    median("find 50,000 stamps", 21, || {
        assert!((0..50_000).all(|ino| cache.get(&stamp(ino)).is_some()));
    });
    median("open and load 50,000 stamps", 21, || {
        drop(Store::open(&root).unwrap().stat_cache("/context").unwrap());
    });
    drop(cache);
    (0..3000).for_each(|_| drop(snapshot(&store, None, None)));
    median("sync 3,000 snapshots", 1, || store.sync().unwrap());
    median("list 3,000 snapshots", 5, || drop(store.snapshots().list().unwrap()));
    median("walk 3,000 snapshots for usage", 3, || {
        store.usage().unwrap();
    });
    drop(store);
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        fs_err::remove_file(root.join(name)).unwrap();
    }
    median("make a lost index of 3,000 snapshots anew", 1, || drop(Store::open(&root).unwrap()));
    let store = Store::open(&root).unwrap();
    assert!(store.snapshots().list().unwrap().len() >= 3000);
    let cancel = rbuild_types::CancelToken::default();
    let ctx = rbuild_types::Ctx::new(&rbuild_types::Silent, &cancel);
    median("prune 3,000 snapshots", 1, || drop(store.prune(&Default::default(), &ctx).unwrap()));
}
