//! Layouts and archives: what is written can be read, is the same each time, and is checked.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use rbuild_image::blob::{BlobSource, reachable, read_document};
use rbuild_image::layout::{Export, Layout};
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_image::media_type::{self, Family};
use rbuild_image::{ImageArchive, ImageError, write_docker_archive, write_oci_archive};
use rbuild_types::{CancelToken, Digest};

use crate::support::{Tar, listing, temp};

pub(crate) type Blobs = BTreeMap<Digest, Vec<u8>>;

pub(crate) fn put(blobs: &mut Blobs, media_type: &str, bytes: &[u8]) -> Descriptor {
    blobs.insert(Digest::of(bytes), bytes.to_vec());
    Descriptor::of(media_type, bytes)
}

/// An image of one layer.
pub(crate) fn image(family: Family, names: &[&str]) -> (Blobs, Export) {
    let mut blobs = Blobs::new();
    let tar = Tar::default().file("hello", b"world").end();
    let layer_type = family.layer(rbuild_image::compress::Compression::None).unwrap();
    let layer = put(&mut blobs, layer_type, &tar);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.digest
    );
    let config = put(&mut blobs, family.config(), config.as_bytes());
    let manifest = Manifest::new(family, config, vec![layer]).to_bytes().unwrap();
    let descriptor = put(&mut blobs, family.manifest(), &manifest);
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    (blobs, Export { descriptor, names, created: Some("2026-01-01T00:00:00Z".into()) })
}

fn archive(bytes: &[u8]) -> Result<ImageArchive, ImageError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    ImageArchive::open(file)
}

#[test]
fn an_oci_archive_can_be_read_and_is_the_same_each_time() {
    let (blobs, export) = image(Family::Oci, &["python:3.7", "ghcr.io/a/b:c"]);
    let write = || {
        let mut out = Vec::new();
        write_oci_archive(std::slice::from_ref(&export), &blobs, &mut out, &CancelToken::default())
            .unwrap();
        out
    };
    let bytes = write();
    assert_eq!(bytes, write());
    let names: Vec<_> = listing(&bytes).into_iter().map(|(name, _)| name).collect();
    assert!(names.is_sorted() && names.len() == 7, "{names:?}");
    let archive = archive(&bytes).unwrap();
    let index = archive.index().unwrap().unwrap();
    let annotations = &index.manifests[0].annotations;
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "3.7");
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/python:3.7");
    assert_eq!(annotations["org.opencontainers.image.created"], "2026-01-01T00:00:00Z");
    assert_eq!(index.manifests[1].annotations["io.containerd.image.name"], "ghcr.io/a/b:c");
    assert!(archive.saved_images().unwrap().is_none());
    assert_eq!(reachable(&archive, &index.manifests[0]).unwrap().len(), 3);
}

#[test]
fn a_docker_archive_serves_old_and_new_readers() {
    let (blobs, export) = image(Family::Docker, &["x:1"]);
    let mut bytes = Vec::new();
    write_docker_archive(&[export], &blobs, &mut bytes, &CancelToken::default()).unwrap();
    let archive = archive(&bytes).unwrap();
    let saved = archive.saved_images().unwrap().unwrap();
    assert_eq!(saved[0].repo_tags.as_deref(), Some(&["x:1".to_owned()][..]));
    let mut layer = Vec::new();
    archive.open_saved(&saved[0].layers[0]).unwrap().read_to_end(&mut layer).unwrap();
    assert!(blobs.contains_key(&Digest::of(&layer)));
    let index = archive.index().unwrap().unwrap();
    read_document(&archive, &index.manifests[0]).unwrap();
}

#[test]
fn docker_archives_refuse_what_docker_load_cannot_read() {
    let (mut blobs, _) = image(Family::Oci, &[]);
    let config = put(&mut blobs, media_type::OCI_CONFIG, b"{}");
    let layer = put(&mut blobs, "application/vnd.in-toto+json", b"z");
    let manifest = Manifest::new(Family::Oci, config, vec![layer]).to_bytes().unwrap();
    let descriptor = put(&mut blobs, media_type::OCI_MANIFEST, &manifest);
    let export = Export { descriptor, names: Vec::new(), created: None };
    let mut sink = std::io::sink();
    let error = write_docker_archive(&[export], &blobs, &mut sink, &CancelToken::default());
    assert!(error.unwrap_err().to_string().contains("in-toto"));
}

#[test]
fn row_12_wrong_bytes_are_never_written_or_read() {
    let (mut blobs, export) = image(Family::Oci, &["x"]);
    let layer = *blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0;
    blobs.get_mut(&layer).unwrap()[600] ^= 1;
    let cancel = CancelToken::default();
    let exports = [export.clone()];
    let error = write_oci_archive(&exports, &blobs, &mut std::io::sink(), &cancel).unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let dest = temp();
    assert!(Layout::write(&dest.root, &exports, &blobs, &cancel).is_err());
    assert!(dest.root.stat("index.json", rbuild_rooted::Follow::No).unwrap().is_none());
    assert_eq!(
        dest.root
            .read_dir("blobs/sha256")
            .unwrap()
            .iter()
            .filter(|e| {
                e.name == layer.hex().as_str() || e.name.to_string_lossy().contains("partial")
            })
            .count(),
        0
    );
    blobs.get_mut(&layer).unwrap().push(0);
    let error = write_oci_archive(&exports, &blobs, &mut std::io::sink(), &cancel).unwrap_err();
    assert!(matches!(error, ImageError::SizeMismatch { .. }), "{error}");
    blobs.remove(&layer);
    let error = write_oci_archive(&exports, &blobs, &mut std::io::sink(), &cancel).unwrap_err();
    assert!(matches!(error, ImageError::MissingBlob { .. }), "{error}");
}

#[test]
fn a_layout_grows_and_names_move() {
    let dest = temp();
    let cancel = CancelToken::default();
    let (blobs, export) = image(Family::Oci, &["x:1"]);
    Layout::write(&dest.root, std::slice::from_ref(&export), &blobs, &cancel).unwrap();
    let (docker_blobs, docker) = image(Family::Docker, &["x:1", "y:2"]);
    Layout::write(&dest.root, std::slice::from_ref(&docker), &docker_blobs, &cancel).unwrap();
    Layout::write(&dest.root, std::slice::from_ref(&docker), &docker_blobs, &cancel).unwrap();
    let layout = Layout::open(dest.root.try_clone().unwrap()).unwrap();
    let index = layout.index().unwrap();
    let digests: Vec<_> = index.manifests.iter().map(|image| image.digest).collect();
    assert_eq!(digests, [docker.descriptor.digest; 2]);
    read_document(&layout, &index.manifests[0]).unwrap();
    // A damaged blob of the right size is written again.
    let path = format!("blobs/sha256/{}", export.descriptor.digest.hex());
    dest.root.create_file(&path, 0o644).unwrap().set_len(export.descriptor.size).unwrap();
    Layout::write(&dest.root, std::slice::from_ref(&export), &blobs, &cancel).unwrap();
    read_document(&layout, &export.descriptor).unwrap();
}

#[test]
fn row_14_blobs_that_are_links_are_missing() {
    let (blobs, export) = image(Family::Oci, &["x"]);
    let dest = temp();
    Layout::write(&dest.root, std::slice::from_ref(&export), &blobs, &CancelToken::default())
        .unwrap();
    let layout = Layout::open(dest.root.try_clone().unwrap()).unwrap();
    let digest = export.descriptor.digest;
    let path = format!("blobs/sha256/{}", digest.hex());
    dest.root.rename(&path, "elsewhere").unwrap();
    dest.root.symlink("../../elsewhere", &path).unwrap();
    assert!(matches!(layout.open(digest), Err(ImageError::MissingBlob { .. })));

    let hex = Digest::of("x").hex();
    let tar = Tar::default()
        .file("x", b"x")
        .symlink(&format!("blobs/sha256/{hex}"), "../../x")
        .symlink("a/layer.tar", "../b/layer.tar")
        .file("b/layer.tar", b"layer")
        .symlink("c/layer.tar", "../../../../etc/passwd")
        .symlink("d/layer.tar", "layer.tar")
        .end();
    let archive = archive(&tar).unwrap();
    assert!(archive.open(Digest::of("x")).is_err());
    let mut layer = String::new();
    archive.open_saved("a/layer.tar").unwrap().read_to_string(&mut layer).unwrap();
    assert_eq!(layer, "layer");
    assert!(archive.open_saved("c/layer.tar").is_err());
    assert!(archive.open_saved("d/layer.tar").is_err());
}

#[test]
fn endless_index_chains_are_refused() {
    let (mut blobs, export) = image(Family::Oci, &[]);
    let mut descriptor = export.descriptor;
    for _ in 0..6 {
        let index = rbuild_image::index::Index::new(Family::Oci, vec![descriptor]);
        descriptor = put(&mut blobs, media_type::OCI_INDEX, &index.to_bytes().unwrap());
    }
    assert!(reachable(&blobs, &descriptor).unwrap_err().to_string().contains("levels deep"));
}
