use rbuild_cache::{CacheError, ImageRecord, Store};
use rbuild_types::{Digest, Platform, Reference};
use serde_json::json;

use crate::store;

/// Media type of the manifests here.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Writes config and manifest of an image with these layers.
pub fn image(store: &Store, diff_ids: &[Digest], layers: &[Digest]) -> (Digest, u64) {
    let config = json!({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    image_of(store, &config, layers)
}

/// The same with the whole config given.
fn image_of(store: &Store, config: &serde_json::Value, layers: &[Digest]) -> (Digest, u64) {
    let config = config.to_string();
    let config_digest = store.blobs().put(config.as_bytes()).unwrap();
    let layers: Vec<_> =
        layers.iter().map(|layer| json!({"digest": layer, "size": 1000})).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"digest": config_digest, "size": config.len()},
        "layers": layers,
    });
    let manifest = manifest.to_string();
    (store.blobs().put(manifest.as_bytes()).unwrap(), manifest.len() as u64)
}

#[test]
fn names_come_and_go_and_images_stay() {
    let (_directory, store) = store();
    let (manifest, size) = image(&store, &[], &[Digest::of("layer")]);
    let tags = store.tags();
    let (app, other) = (reference("app"), reference("ghcr.io/me/other:v1"));
    tags.set(&app, &manifest, size, MANIFEST).unwrap();
    tags.set(&app, &manifest, size, MANIFEST).unwrap();
    tags.set(&other, &manifest, size, MANIFEST).unwrap();
    let record = tags.get(&app).unwrap().unwrap();
    assert_eq!(record.reference, Some(app.clone()));
    assert_ne!(record.image_id, record.manifest_digest);
    assert!(record.size > 1000);
    assert_eq!(tags.list().unwrap().len(), 2);
    let (second, size) = image(&store, &[Digest::of("x")], &[]);
    tags.set(&app, &second, size, MANIFEST).unwrap();
    assert_eq!(tags.get(&app).unwrap().unwrap().manifest_digest, second);
    assert!(tags.remove(&other).unwrap());
    assert!(!tags.remove(&other).unwrap());
    let dangling: Vec<_> = tags.list().unwrap();
    assert_eq!(dangling.len(), 2);
    assert_eq!(dangling[1].reference, None);
    let pruned = tags.prune_images(None).unwrap();
    assert_eq!(pruned.len(), 1);
    assert_eq!(pruned[0].manifest_digest, manifest);
    assert_eq!(tags.list().unwrap().len(), 1);
    assert!(tags.remove_image(&second).unwrap());
    assert!(!tags.remove_image(&second).unwrap());
}

#[test]
fn an_image_is_as_old_as_its_config_says() {
    let (directory, store) = store();
    let says = |created: &str| image_of(&store, &json!({"created": created}), &[]);
    let (old, size) = says("2001-09-09T01:46:40.5+00:00");
    store.tags().set(&reference("old"), &old, size, MANIFEST).unwrap();
    let (silent, size) = says("long ago");
    store.tags().set(&reference("silent"), &silent, size, MANIFEST).unwrap();
    let created =
        |store: &Store, name: &str| store.tags().get(&reference(name)).unwrap().unwrap().created;
    assert_eq!(created(&store, "old"), 1_000_000_000_500);
    assert!(created(&store, "silent") > 1_700_000_000_000);
    // Also when the index is lost.
    drop(store);
    fs_err::write(directory.path().join("store/index.db"), "no database, but long enough").unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    assert_eq!(created(&store, "old"), 1_000_000_000_500);
    assert!(created(&store, "silent") > 1_700_000_000_000);
}

#[test]
fn index_json_lists_the_images_for_other_tools() {
    let (_directory, store) = store();
    let (manifest, size) = image(&store, &[], &[]);
    store.tags().set(&reference("app:1"), &manifest, size, MANIFEST).unwrap();
    let text = fs_err::read_to_string(store.root().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["digest"], manifest.to_string());
    assert_eq!(descriptor["size"], size);
    assert_eq!(descriptor["mediaType"], MANIFEST);
    let name = "org.opencontainers.image.ref.name";
    assert_eq!(descriptor["annotations"][name], "docker.io/library/app:1");
    let layout = fs_err::read_to_string(store.root().join("oci-layout")).unwrap();
    assert!(layout.contains("1.0.0"));
}

#[test]
fn only_manifests_in_the_store_become_images() {
    let (_directory, store) = store();
    let missing = store.tags().set(&reference("app"), &Digest::of("x"), 1, MANIFEST);
    assert!(matches!(missing, Err(CacheError::NoBlob { .. })));
    let text = store.blobs().put(b"not json").unwrap();
    let refused = store.tags().set(&reference("app"), &text, 8, MANIFEST);
    assert!(matches!(refused, Err(CacheError::NotAnImage { .. })));
    assert!(store.tags().list().unwrap().is_empty());
    let (manifest, size) = image(&store, &[], &[]);
    store.tags().add_image(&manifest, size, MANIFEST).unwrap();
    store.tags().add_image(&manifest, size, MANIFEST).unwrap();
    assert_eq!(store.tags().list().unwrap().len(), 1);
}

#[test]
fn resolutions_are_remembered_by_platform() {
    let (_directory, store) = store();
    let (amd, arm) = (Platform::new("linux", "amd64"), Platform::new("linux", "arm64"));
    let python = reference("python:3");
    store.tags().remember(&python, &amd, &Digest::of("old")).unwrap();
    store.tags().remember(&python, &amd, &Digest::of("new")).unwrap();
    let (digest, when) = store.tags().recall(&python, &amd).unwrap().unwrap();
    assert_eq!(digest, Digest::of("new"));
    assert!(when > 0);
    assert_eq!(store.tags().recall(&python, &arm).unwrap(), None);
}

#[test]
fn processes_that_tag_at_once_lose_no_tag() {
    let (_directory, store) = store();
    let (manifest, size) = image(&store, &[], &[]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let own = Store::open(store.root()).unwrap();
            scope.spawn(move || {
                let name = reference(&format!("app:{number}"));
                own.tags().set(&name, &manifest, size, MANIFEST).unwrap();
            });
        }
    });
    assert_eq!(store.tags().list().unwrap().len(), 8);
    let text = fs_err::read_to_string(store.root().join("index.json")).unwrap();
    assert_eq!(text.matches("ref.name").count(), 8);
}

#[test]
fn an_index_is_as_large_as_its_images_and_as_old_as_the_newest() {
    let (_directory, store) = store();
    let config = |created: &str| json!({"created": created, "rootfs": {"diff_ids": []}});
    let (one, one_size) = image_of(&store, &config("2020-01-01T00:00:00Z"), &[Digest::of("1")]);
    let (two, two_size) = image_of(&store, &config("2021-01-01T00:00:00Z"), &[Digest::of("2")]);
    let alone = |digest: &Digest, size: u64| {
        store.tags().add_image(digest, size, MANIFEST).unwrap();
        let all = store.tags().list().unwrap();
        all.into_iter().find(|image| image.manifest_digest == *digest).unwrap()
    };
    let (one, two) = (alone(&one, one_size), alone(&two, two_size));
    let entry = |image: &ImageRecord| json!({"digest": image.manifest_digest, "size": 1});
    let missing = json!({"digest": Digest::of("missing"), "size": 1});
    let index = json!({"schemaVersion": 2, "manifests": [entry(&two), entry(&one), missing]});
    let digest = store.blobs().put(index.to_string().as_bytes()).unwrap();
    let kind = "application/vnd.oci.image.index.v1+json";
    let name = reference("app");
    store.tags().set(&name, &digest, index.to_string().len() as u64, kind).unwrap();
    let record = store.tags().get(&name).unwrap().unwrap();
    assert_eq!((record.image_id, record.created), (digest, two.created));
    assert_eq!(record.size, one.size + two.size);
}
