//! `kill -9` at any time: whatever the store then says is there must be whole.

use std::time::Duration;

use rbuild_cache::{CacheError, Hold, PruneOptions, Store, VolumeInfo};
use rbuild_types::{CancelToken, Ctx, Digest, Silent};

use crate::images::{MANIFEST, image, reference};
use crate::{child, names, record, snapshot};

/// Builds, tags and prunes until killed; the child's part.
pub fn churn(store: &Store) {
    println!("ready");
    let cancel = CancelToken::default();
    for round in 0u32.. {
        let lease = store.lease().unwrap();
        let name = format!("step {}", round % 7);
        let _lock = store.step_lock(&Digest::of(&name), &cancel).unwrap();
        let diff = Digest::of((round % 5).to_le_bytes());
        let bottom = snapshot(store, None, Some(diff));
        let top = snapshot(store, Some(&bottom), None);
        record(store, &name, Some(&top));
        let mount = VolumeInfo::plain(&format!("id {}", round % 2));
        let held = store.volumes().take(&mount.volume_name(), Hold::Shared, &cancel).unwrap();
        held.note(Some(&mount)).unwrap();
        fs_err::create_dir_all(held.path()).unwrap();
        fs_err::write(held.path().join("file"), vec![1; 20_000]).unwrap();
        drop(held);
        let layer = store.blobs().put(&vec![round as u8; 50_000]).unwrap();
        let (manifest, size) = image(store, &[diff], &[layer]);
        store
            .tags()
            .set(&reference(&format!("app:{}", round % 3)), &manifest, size, MANIFEST)
            .unwrap();
        drop(lease);
        if round % 4 == 3 {
            store.tags().prune_images(None).unwrap();
            let all = round % 8 == 7;
            let options = PruneOptions { all, ..PruneOptions::default() };
            store.prune(&options, &Ctx::new(&Silent, &cancel)).unwrap();
        }
    }
}

fn assert_whole(store: &Store) -> Result<(), CacheError> {
    let blobs = store.blobs();
    for digest in blobs.list()? {
        blobs.read_small(&digest, 1 << 20)?;
    }
    let whole = |id: &rbuild_cache::SnapshotId| {
        for id in store.snapshots().chain(id)? {
            let file = store.snapshots().path(&id).join("file");
            assert_eq!(fs_err::read_to_string(file).unwrap(), "content");
        }
        Ok::<_, CacheError>(())
    };
    for snapshot in store.snapshots().list()? {
        whole(&snapshot.id)?;
    }
    for listed in store.records().list()? {
        if let Some(found) = store.records().get(&listed.key)? {
            whole(&found.snapshot.unwrap())?;
        }
    }
    for image in store.tags().list()? {
        let json = blobs.read_small(&image.manifest_digest, 1 << 20)?;
        let manifest: serde_json::Value = serde_json::from_slice(&json).unwrap();
        for part in [&manifest["config"], &manifest["layers"][0]] {
            let digest = part["digest"].as_str().unwrap().parse().unwrap();
            assert!(blobs.contains(&digest)?);
        }
        let config = blobs.read_small(&image.image_id, 1 << 20)?;
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let diff = config["rootfs"]["diff_ids"][0].as_str().unwrap().parse().unwrap();
        assert!(store.snapshots().by_chain_id(&diff)?.is_some(), "the layer of an image");
    }
    Ok(())
}

#[test]
fn a_kill_at_any_time_leaves_a_whole_store() {
    let (_directory, store) = crate::store();
    let root = store.root().to_owned();
    drop(store);
    for round in 0..20 {
        let roles = ["churn", "churn below a limit"];
        let mut children = roles.map(|role| child::start(role, &root));
        for child in &mut children {
            child::wait_for(child, "ready");
        }
        std::thread::sleep(Duration::from_millis(7 + round * 9 % 83));
        children.into_iter().for_each(child::kill);
        let store = Store::open(&root).unwrap();
        assert_whole(&store).unwrap();
        assert!(names(&store, "tmp").is_empty());
        assert!(!names(&store, "locks").iter().any(|name| name.starts_with("lease-")));
    }
    let store = Store::open(&root).unwrap();
    assert!(!store.tags().list().unwrap().is_empty(), "the children did something");
    for image in store.tags().list().unwrap() {
        store.tags().remove_image(&image.manifest_digest).unwrap();
    }
    let cancel = CancelToken::default();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    store.prune(&all, &Ctx::new(&Silent, &cancel)).unwrap();
    assert!(names(&store, "snapshots").is_empty());
    assert!(names(&store, "blobs/sha256").is_empty());
    assert!(store.records().list().unwrap().is_empty());
    assert!(names(&store, "volumes").is_empty());
    assert_eq!(store.fsck().unwrap().index(), []);
}
