use std::io::{Read as _, Write as _};

use rbuild_cache::{CacheError, Store};
use rbuild_types::{CancelToken, Digest};

use crate::{child, names, store};

#[test]
fn a_blob_is_found_by_its_digest() {
    let (_directory, store) = store();
    let digest = store.blobs().put(b"hello").unwrap();
    assert_eq!(digest, Digest::of("hello"));
    assert!(store.blobs().contains(&digest).unwrap());
    assert_eq!(store.blobs().size(&digest).unwrap(), Some(5));
    assert_eq!(store.blobs().read_small(&digest, 5).unwrap(), b"hello");
    let mut text = String::new();
    store.blobs().open(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let cap = store.blobs().read_small(&digest, 4).unwrap_err();
    assert!(matches!(cap, CacheError::TooLarge { size: 5, cap: 4, .. }), "{cap}");
    assert_eq!(store.blobs().list().unwrap(), [digest]);
    assert!(store.blobs().remove(&digest).unwrap());
    assert!(!store.blobs().remove(&digest).unwrap());
    let gone = store.blobs().open(&digest).unwrap_err();
    assert!(matches!(gone, CacheError::NoBlob { .. }), "{gone}");
}

#[test]
fn other_bytes_than_expected_are_not_published() {
    let (_directory, store) = store();
    for (digest, size) in [(Some(Digest::of("other")), None), (None, Some(4))] {
        let mut writer = store.blobs().writer(&CancelToken::default()).unwrap();
        writer.write_all(b"hello").unwrap();
        let refused = writer.commit(digest.as_ref(), size).unwrap_err();
        assert!(matches!(refused, CacheError::Mismatch { .. }), "{refused}");
    }
    drop(store.blobs().writer(&CancelToken::default()).unwrap());
    assert!(store.blobs().list().unwrap().is_empty());
    let owner = names(&store, "tmp").pop().unwrap();
    assert!(names(&store, &format!("tmp/{owner}")).is_empty());
}

#[test]
fn a_damaged_blob_is_not_read_but_replaced() {
    let (_directory, store) = store();
    let digest = store.blobs().put(b"hello").unwrap();
    fs_err::write(store.blobs().path(&digest), "hellO").unwrap();
    let damaged = store.blobs().read_small(&digest, 100).unwrap_err();
    assert!(matches!(damaged, CacheError::Mismatch { .. }), "{damaged}");
    fs_err::write(store.blobs().path(&digest), "").unwrap();
    store.blobs().put(b"hello").unwrap();
    assert_eq!(store.blobs().read_small(&digest, 100).unwrap(), b"hello");
}

#[test]
fn a_link_in_place_of_a_blob_is_not_followed() {
    let (directory, store) = store();
    let outside = directory.path().join("outside");
    fs_err::write(&outside, "hello").unwrap();
    let digest = Digest::of("hello");
    std::os::unix::fs::symlink(&outside, store.blobs().path(&digest)).unwrap();
    assert!(store.blobs().open(&digest).is_err());
}

#[test]
fn a_killed_writer_leaves_nothing_after_the_next_opening() {
    let (_directory, store) = store();
    let mut child = child::start("blob", store.root());
    child::wait_for(&mut child, "ready");
    assert_eq!(names(&store, "tmp").len(), 1, "the child's directory");
    // While it lives, nobody sweeps what it holds.
    let other = Store::open(store.root()).unwrap();
    assert_eq!(names(&store, "tmp").len(), 1);
    assert!(other.try_step_lock(&Digest::of("held")).unwrap().is_none());
    child::kill(child);
    let next = Store::open(store.root()).unwrap();
    assert!(names(&next, "tmp").is_empty());
    assert_eq!(names(&next, "locks").iter().filter(|name| *name != "gc.lock").count(), 0);
    assert!(next.blobs().list().unwrap().is_empty());
    assert!(names(&next, "snapshots").is_empty());
    assert!(next.try_step_lock(&Digest::of("held")).unwrap().is_some());
}
