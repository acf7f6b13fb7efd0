//! Whole trees as plain files and as one tar.

use std::io::Write;

use rbuild_image::layer::FileTimes;
use rbuild_image::rootfs::{export_dir, export_tar};
use rbuild_rooted::{FileKind, Follow, Root};
use rbuild_types::CancelToken;

use crate::support::{DIR, listing, temp, text};

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
        export_dir(&tree.root, dest.dir.path(), FileTimes::Kept, &CancelToken::default()).unwrap();
    assert_eq!((done.entries, done.bytes, done.skipped), (5, 3, 1));
    assert_eq!(text(&victim.root, "c"), "secret");
    assert_eq!(text(&dest.root, "a/b/c"), "new");
    assert_eq!(dest.root.stat("a/b/c", Follow::No).unwrap().unwrap().mode, 0o755);
    assert_eq!(dest.root.stat("a", Follow::No).unwrap().unwrap().mode, 0o550);
    assert!(dest.root.stat("a/kept", Follow::No).unwrap().is_some());
    assert_eq!(dest.root.read_link("link").unwrap(), "/etc/passwd");
    // Twice is the same; so is a place that does not exist yet.
    let deeper = dest.dir.path().join("new/place");
    export_dir(&tree.root, &deeper, FileTimes::Kept, &CancelToken::default()).unwrap();
    assert!(deeper.join("a/b/c").exists());
}

#[test]
fn a_directory_in_the_way_of_a_file_is_kept() {
    let (tree, dest) = (temp(), temp());
    tree.root.create_file("x", 0o644).unwrap();
    dest.root.create_dir_all("x/precious", DIR).unwrap();
    assert!(
        export_dir(&tree.root, dest.dir.path(), FileTimes::Kept, &CancelToken::default()).is_err()
    );
    assert!(dest.root.stat("x/precious", Follow::No).unwrap().is_some());
}

#[test]
fn a_tar_holds_every_file_as_it_is() {
    let tree = temp();
    fill(&tree.root);
    tree.root.mknod("zero", FileKind::CharDevice, 0o600, 0).unwrap();
    let mut tar = Vec::new();
    export_tar(&tree.root, FileTimes::Kept, &mut tar, &CancelToken::default()).unwrap();
    let names: Vec<_> = listing(&tar).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/", "a/.wh.x", "a/b/", "a/b/c", "link", "pipe", "zero"]);
}
