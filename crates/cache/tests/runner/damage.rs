use std::os::unix::fs::FileExt as _;

use rbuild_cache::{CacheError, Store};
use rbuild_types::{CancelToken, Digest};

use crate::images::{MANIFEST, image, reference};
use crate::{names, record, snapshot, store};

#[test]
fn a_directory_that_is_there_is_taken_only_when_it_is_free() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    fs_err::create_dir(&root).unwrap();
    fs_err::write(root.join("important"), "x").unwrap();
    let error = rbuild_cache::Store::open(&root).unwrap_err().to_string();
    assert!(error.contains("important") && error.contains("empty"), "{error}");
    assert_eq!(fs_err::read_dir(&root).unwrap().count(), 1);
    fs_err::remove_file(root.join("important")).unwrap();
    fs_err::create_dir(root.join("blobs")).unwrap();
    fs_err::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    rbuild_cache::Store::open(&root).unwrap();
    assert_eq!(fs_err::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    drop(store);
    let index = rusqlite::Connection::open(root.join("index.db")).unwrap();
    index.execute_batch("PRAGMA user_version=99; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(index);
    let before = fs_err::read(root.join("index.db")).unwrap();
    let refused = Store::open(&root).unwrap_err();
    assert!(matches!(refused, CacheError::NewerFormat { found: 99, .. }), "{refused}");
    assert!(refused.to_string().contains("newer version"));
    assert_eq!(fs_err::read(root.join("index.db")).unwrap(), before);
    assert!(!root.join("index.db.corrupt-1").exists());
}

/// An image of one synced layer, and an unsynced snapshot beside it.
fn filled(store: &Store) -> (Digest, Digest) {
    let diff = Digest::of("diff");
    snapshot(store, None, Some(diff));
    let (manifest, size) = image(store, &[diff], &[]);
    store.tags().set(&reference("app"), &manifest, size, MANIFEST).unwrap();
    let (dangling, size) = image(store, &[diff, diff], &[]);
    store.tags().add_image(&dangling, size, MANIFEST).unwrap();
    snapshot(store, None, None);
    record(store, "make", None);
    (manifest, diff)
}

fn assert_images_survived(store: &Store, manifest: Digest, diff: Digest) {
    let image = store.tags().get(&reference("app")).unwrap().unwrap();
    assert_eq!(image.manifest_digest, manifest);
    assert_eq!(store.tags().list().unwrap().len(), 2);
    assert!(store.snapshots().by_chain_id(&diff).unwrap().is_some());
    assert!(store.records().list().unwrap().is_empty());
}

#[test]
fn images_survive_a_broken_index() {
    type Breakage = dyn Fn(&[u8]) -> Vec<u8>;
    let breakages: [&Breakage; 4] = [
        &|_| b"this is not a database, but long enough to be looked at".repeat(100),
        &|_| Vec::new(),
        &|bytes| bytes[..bytes.len() / 2].to_vec(),
        &|bytes| [&bytes[..100], &vec![0xAA; bytes.len() - 100]].concat(),
    ];
    for (number, breakage) in breakages.iter().enumerate() {
        let (_directory, store) = store();
        let root = store.root().to_owned();
        let (manifest, diff) = filled(&store);
        drop(store);
        let index = rusqlite::Connection::open(root.join("index.db")).unwrap();
        index.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        drop(index);
        let bytes = fs_err::read(root.join("index.db")).unwrap();
        fs_err::write(root.join("index.db"), breakage(&bytes)).unwrap();
        let store = Store::open(&root).unwrap();
        // An opening notices what the first page says; the rest is noticed when it is read.
        let _ = store.records().list().unwrap();
        assert_images_survived(&store, manifest, diff);
        // A new opening sees the same, and the unsynced tree is not leaked.
        drop(store);
        let store = Store::open(&root).unwrap();
        assert_images_survived(&store, manifest, diff);
        assert_eq!(names(&store, "snapshots").len(), 2, "tree and sidecar, breakage {number}");
    }
}

#[test]
fn an_open_handle_follows_when_another_replaced_the_index() {
    let (_directory, store) = store();
    let (manifest, diff) = filled(&store);
    fs_err::rename(store.root().join("index.db"), store.root().join("gone")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let name = format!("index.db{suffix}");
        fs_err::rename(store.root().join(name), store.root().join(format!("gone{suffix}")))
            .unwrap();
    }
    let other = Store::open(store.root()).unwrap();
    assert_images_survived(&store, manifest, diff);
    record(&store, "again", None);
    assert_eq!(other.records().list().unwrap().len(), 1);
    drop(store);
    assert_eq!(other.records().list().unwrap().len(), 1);
}

#[test]
fn a_flipped_byte_in_a_row_is_a_miss() {
    let (_directory, store) = store();
    let tree = snapshot(&store, None, None);
    let written = record(&store, "make", Some(&tree));
    let index = rusqlite::Connection::open(store.root().join("index.db")).unwrap();
    for table in ["records", "snapshots"] {
        let sql = format!("SELECT body FROM {table}");
        let mut body: Vec<u8> = index.query_row(&sql, [], |row| row.get(0)).unwrap();
        let at = body.len() / 2;
        body[at] ^= 1;
        let change = format!("UPDATE {table} SET body = ?1");
        index.execute(&change, [&body]).unwrap();
        assert_eq!(store.records().get(&written.key).unwrap(), None, "{table}");
        body[at] ^= 1;
        index.execute(&change, [&body]).unwrap();
        assert!(store.records().get(&written.key).unwrap().is_some());
    }
}

#[test]
fn every_flipped_page_of_the_index_is_survived() {
    let (_directory, store) = store();
    let root = store.root().to_owned();
    let (manifest, _) = filled(&store);
    (0..50).for_each(|number| drop(record(&store, &format!("step {number}"), None)));
    drop(store);
    let index = rusqlite::Connection::open(root.join("index.db")).unwrap();
    index.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(index);
    let bytes = fs_err::read(root.join("index.db")).unwrap();
    let mut failures = 0;
    let places: Vec<_> = (0..bytes.len()).step_by(997).collect();
    for at in &places {
        fs_err::write(root.join("index.db"), &bytes).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = fs_err::remove_file(root.join(format!("index.db{suffix}")));
        }
        let file = fs_err::OpenOptions::new().write(true).open(root.join("index.db")).unwrap();
        file.file().write_at(&[bytes[*at] ^ 0x55], *at as u64).unwrap();
        let look = || {
            let store = Store::open(&root)?;
            let records = store.records().list()?;
            for record in &records {
                assert_eq!(record.key, Digest::of(&record.step_name));
            }
            let image = store.tags().get(&reference("app"))?;
            assert!(image.is_none_or(|image| image.manifest_digest == manifest));
            store.snapshots().list().map(drop)
        };
        failures += usize::from(look().is_err());
    }
    assert!(failures * 10 <= places.len(), "{failures} of {}", places.len());
}

#[test]
fn a_blob_that_is_whole_again_or_in_use_is_not_removed() {
    let (_directory, store) = store();
    let write = |digest: &Digest, bytes: &[u8]| {
        fs_err::write(store.blobs().path(digest), bytes).unwrap();
    };
    let [whole, used, idle] = ["whole", "used", "idle"].map(|text| {
        let digest = store.blobs().put(text.as_bytes()).unwrap();
        write(&digest, b"damaged");
        digest
    });
    let fsck = store.fsck().unwrap();
    let damage = fsck.blobs(&CancelToken::default()).unwrap();
    assert_eq!(damage.len(), 3);
    // Meanwhile a build has fetched one anew, and found another.
    write(&whole, b"whole");
    let build = Store::open(store.root()).unwrap();
    let _lease = build.lease().unwrap();
    assert!(build.blobs().contains(&used).unwrap());
    let repaired = fsck.repair(&damage).unwrap();
    for (damage, is_repaired) in damage.iter().zip(repaired) {
        assert_eq!(is_repaired, !damage.subject.contains(&used.to_string()), "{damage:?}");
    }
    let there = |digest: &Digest| store.blobs().path(digest).exists();
    assert!(there(&whole) && there(&used) && !there(&idle));
}
