//! Whole trees as plain files and as one tar.

use std::io::Write;
use std::path::PathBuf;

use rbuild_image::layer::FileTimes;
use rbuild_image::rootfs::{Others, RootfsPart, export_dir, export_tar};
use rbuild_rooted::{FileKind, Follow, Root};
use rbuild_types::CancelToken;

use crate::support::{DIR, Temp, listing, temp, text};

fn part(tree: &Temp, name: &str, directory: Option<&str>) -> RootfsPart {
    RootfsPart {
        name: name.to_owned(),
        directory: directory.map(str::to_owned),
        merged: tree.root.try_clone().unwrap(),
        times: FileTimes::Kept,
    }
}

/// The one tree that goes where it is told.
fn alone(tree: &Temp) -> [RootfsPart; 1] {
    [part(tree, "linux/amd64", None)]
}

fn fill(root: &Root) {
    root.create_dir_all("a/b", DIR).unwrap();
    root.create_file("a/b/c", 0o644).unwrap().write_all(b"new").unwrap();
    root.set_mode("a/b/c", 0o4755).unwrap();
    root.create_file("a/.wh.x", 0o644).unwrap();
    root.symlink("/etc/passwd", "link").unwrap();
    root.mknod("pipe", FileKind::Fifo, 0o600, 0).unwrap();
    root.set_mode("a", 0o550).unwrap();
}

#[test]
fn a_directory_is_merged_and_never_left_through_links() {
    let (tree, dest, victim) = (temp(), temp(), temp());
    fill(&tree.root);
    victim.root.create_file("c", 0o600).unwrap().write_all(b"secret").unwrap();
    dest.root.create_dir_all("a", DIR).unwrap();
    dest.root.create_file("a/kept", 0o600).unwrap();
    dest.root.symlink(victim.dir.path(), "a/b").unwrap();
    dest.root.symlink(victim.dir.path().join("c"), "link").unwrap();
    let done =
        export_dir(&alone(&tree), dest.dir.path(), Others::Kept, &CancelToken::default()).unwrap();
    assert_eq!((done.entries, done.bytes, done.skipped), (5, 3, 1));
    assert_eq!(text(&victim.root, "c"), "secret");
    assert_eq!(text(&dest.root, "a/b/c"), "new");
    assert_eq!(dest.root.stat("a/b/c", Follow::No).unwrap().unwrap().mode, 0o755);
    assert_eq!(dest.root.stat("a", Follow::No).unwrap().unwrap().mode, 0o550);
    assert!(dest.root.stat("a/kept", Follow::No).unwrap().is_some());
    assert_eq!(dest.root.read_link("link").unwrap(), "/etc/passwd");
    // Twice is the same; so is a place that does not exist yet.
    let deeper = dest.dir.path().join("new/place");
    export_dir(&alone(&tree), &deeper, Others::Kept, &CancelToken::default()).unwrap();
    assert!(deeper.join("a/b/c").exists());
}

#[test]
fn a_directory_in_the_way_of_a_file_is_kept() {
    let (tree, dest) = (temp(), temp());
    tree.root.create_file("x", 0o644).unwrap();
    dest.root.create_dir_all("x/precious", DIR).unwrap();
    assert!(
        export_dir(&alone(&tree), dest.dir.path(), Others::Kept, &CancelToken::default()).is_err()
    );
    assert!(dest.root.stat("x/precious", Follow::No).unwrap().is_some());
}

#[test]
fn what_is_not_in_the_image_goes_if_that_was_asked() {
    let (tree, other, dest, victim) = (temp(), temp(), temp(), temp());
    let cancel = CancelToken::default();
    fill(&tree.root);
    victim.root.create_file("c", 0o600).unwrap();
    for place in ["", "linux_a"] {
        let root = || dest.root.enter(place).unwrap();
        dest.root.create_dir_all(PathBuf::from(place).join("a/gone/deep"), DIR).unwrap();
        root().create_file("a/gone/deep/x", 0o600).unwrap();
        root().create_file("a/old", 0o600).unwrap();
        // What is a directory there and a link here, and the other way round.
        root().create_dir_all("link/precious", DIR).unwrap();
        root().symlink(victim.dir.path(), "a/b").unwrap();
        let directory = (!place.is_empty()).then_some(place);
        let parts = [part(&tree, "linux/a", directory), part(&other, "linux/b", Some("linux_b"))];
        let parts = if directory.is_some() { &parts[..] } else { &parts[..1] };
        export_dir(parts, dest.dir.path(), Others::Removed, &cancel).unwrap();
        let names = |path: &str| -> Vec<_> {
            root().read_dir(path).unwrap().into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(""), ["a", "link"], "{place}");
        assert_eq!(names("a"), [".wh.x", "b"], "{place}");
        assert_eq!(root().read_link("link").unwrap(), "/etc/passwd");
    }
    assert!(!dest.dir.path().join("a").exists(), "of no platform");
    assert!(victim.dir.path().join("c").exists());
}

#[test]
fn a_tar_holds_every_file_as_it_is() {
    let tree = temp();
    fill(&tree.root);
    tree.root.mknod("zero", FileKind::CharDevice, 0o600, 0).unwrap();
    let mut tar = Vec::new();
    export_tar(&alone(&tree), &mut tar, &CancelToken::default()).unwrap();
    let names: Vec<_> = listing(&tar).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/", "a/.wh.x", "a/b/", "a/b/c", "link", "pipe", "zero"]);
}

#[test]
fn several_trees_get_directories_of_their_own() {
    let (one, two, dest, victim) = (temp(), temp(), temp(), temp());
    for (tree, content) in [(&one, "1"), (&two, "2")] {
        tree.root.create_file("x", 0o644).unwrap().write_all(content.as_bytes()).unwrap();
        tree.root.hard_link("x", "y").unwrap();
    }
    let parts = [part(&one, "linux/a", Some("linux_a")), part(&two, "linux/b", Some("linux_b"))];
    let mut tar = Vec::new();
    export_tar(&parts, &mut tar, &CancelToken::default()).unwrap();
    let names: Vec<_> = listing(&tar).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["linux_a/", "linux_a/x", "linux_a/y", "linux_b/", "linux_b/x", "linux_b/y"]);
    dest.root.symlink(victim.dir.path(), "linux_a").unwrap();
    export_dir(&parts, dest.dir.path(), Others::Kept, &CancelToken::default()).unwrap();
    assert_eq!(
        (text(&dest.root, "linux_a/y"), text(&dest.root, "linux_b/y")),
        ("1".into(), "2".into())
    );
    assert!(victim.root.read_dir("").unwrap().is_empty());
}

#[test]
fn trees_in_one_directory_may_not_have_a_file_in_common() {
    let (one, two, dest) = (temp(), temp(), temp());
    one.root.create_dir_all("bin", DIR).unwrap();
    two.root.create_dir_all("bin", DIR).unwrap();
    one.root.create_file("bin/app-a", 0o755).unwrap();
    two.root.create_file("bin/app-b", 0o755).unwrap();
    let parts = [part(&one, "linux/a", None), part(&two, "linux/b", None)];
    export_dir(&parts, dest.dir.path(), Others::Kept, &CancelToken::default()).unwrap();
    assert!(["bin/app-a", "bin/app-b"].iter().all(|name| dest.dir.path().join(name).exists()));
    export_tar(&parts, &mut std::io::sink(), &CancelToken::default()).unwrap();
    // A directory here and a file there is as bad.
    two.root.create_dir_all("bin/app-a", DIR).unwrap();
    for result in [
        export_dir(&parts, dest.dir.path(), Others::Kept, &CancelToken::default()).map(drop),
        export_tar(&parts, &mut std::io::sink(), &CancelToken::default()).map(drop),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("bin/app-a"), "{message}");
        assert!(message.contains("linux/a and linux/b"), "{message}");
    }
}
