//! Archives made to escape, to confuse or to use things up. Numbers are rows of the threat register.

use rbuild_image::layer::{UnpackOptions, unpack_layer};
use rbuild_image::tarball::{Entry, EntryKind, Reader};
use rbuild_rooted::{Follow, Root};
use rbuild_types::CancelToken;

use crate::support::{DIR, Tar, Temp, listing, options, packed, temp, text, unpack, with};

/// A tree with something beside it that must stay as it is.
struct Arena {
    outside: Temp,
    tree: Root,
}

fn arena() -> Arena {
    let outside = temp();
    outside.root.create_dir_all("tree", DIR).unwrap();
    outside.root.create_dir_all("victim", DIR).unwrap();
    let mut file = outside.root.create_file("victim/file", 0o640).unwrap();
    std::io::Write::write_all(&mut file, b"secret").unwrap();
    let tree = outside.root.open_dir("tree").unwrap();
    Arena { outside, tree }
}

impl Arena {
    /// Unpacks, whatever comes of it, and looks at the victim.
    fn attack(&self, tar: &[u8]) -> bool {
        let before = self.outside.root.stat("victim", Follow::No).unwrap().unwrap();
        let done = unpack(tar, &self.tree, None);
        let root = &self.outside.root;
        let names: Vec<_> = root.read_dir("").unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["tree", "victim"]);
        assert_eq!(root.read_dir("victim").unwrap().len(), 1);
        assert_eq!(text(root, "victim/file"), "secret");
        let file = root.stat("victim/file", Follow::No).unwrap().unwrap();
        assert_eq!((file.mode, file.nlink), (0o640, 1));
        let after = root.stat("victim", Follow::No).unwrap().unwrap();
        assert_eq!((before.mode, before.mtime), (after.mode, after.mtime));
        done.is_ok()
    }

    fn victim(&self) -> String {
        self.outside.dir.path().join("victim").to_str().unwrap().to_owned()
    }
}

#[test]
fn rows_1_and_2_names_that_climb_or_start_at_the_root_stay_inside() {
    for name in ["../../victim/x", "a/../../victim/x", "/victim/x", "//victim/x", "./../victim/x"] {
        let arena = arena();
        assert!(arena.attack(&Tar::default().file(name, b"!").end()), "{name}");
        assert_eq!(text(&arena.tree, "victim/x"), "!", "{name}");
    }
    let arena = arena();
    assert!(arena.attack(&Tar::default().file(&format!("{}/x", arena.victim()), b"!").end()));
}

#[test]
fn row_3_entries_below_links_stay_inside() {
    let victim = arena().victim();
    for (link, target) in [
        ("up", ".."),
        ("up", "../.."),
        ("up", "/"),
        ("up", &*victim),
        ("up", "../victim"),
        ("up", "/proc/self/root"),
        ("up", "/proc/self/cwd"),
    ] {
        let arena = arena();
        let tar = Tar::default()
            .symlink(link, target)
            .file("up/victim/file", b"!")
            .file("up/file", b"!")
            .dir("up/victim", 0o777)
            .end();
        arena.attack(&tar);
    }
    let arena = arena();
    let chain = Tar::default()
        .dir("a/b", 0o755)
        .symlink("a/b/c", "../..")
        .symlink("a/d", "b/c/..")
        .file("a/d/../victim/file", b"!")
        .file("a/d/victim/file", b"!")
        .end();
    assert!(arena.attack(&chain));
    // Links that lead in circles end with an error.
    let circle = Tar::default().symlink("x", "y").symlink("y", "x").file("x/f", b"").end();
    assert!(!arena.attack(&circle));
}

#[test]
fn legitimate_links_with_dots_work() {
    let tree = temp();
    let tar = Tar::default()
        .dir("usr/lib", 0o755)
        .symlink("lib64", "usr/share/../lib")
        .dir("usr/share", 0o755)
        .file("lib64/x", b"x")
        .end();
    unpack(&tar, &tree.root, None).unwrap();
    assert_eq!(text(&tree.root, "usr/lib/x"), "x");
}

#[test]
fn rows_4_and_7_what_is_a_link_is_replaced_and_not_followed() {
    let victim = arena().victim();
    for target in ["../victim/file", "/victim/file", &format!("{victim}/file")] {
        let arena = arena();
        assert!(arena.attack(&Tar::default().symlink("f", target).file("f", b"mine").end()));
        assert_eq!(text(&arena.tree, "f"), "mine");
        assert!(arena.tree.stat("f", Follow::No).unwrap().unwrap().is_file());
    }
    for target in ["../victim", &victim] {
        let arena = arena();
        let mut set = Entry::new("d", EntryKind::Directory, 0o7777);
        set.mtime.sec = 77;
        assert!(arena.attack(&Tar::default().symlink("d", target).entry(&set, b"").end()));
        assert!(arena.tree.stat("d", Follow::No).unwrap().unwrap().is_dir());
    }
}

#[test]
fn a_directory_replaced_by_a_link_leaves_no_way_behind() {
    let arena = arena();
    let tar = Tar::default()
        .file("d/one", b"1")
        .symlink("d", "../victim")
        .file("d/file", b"!")
        .file("d/two", b"!")
        .end();
    arena.attack(&tar);
}

#[test]
fn row_5_hard_links_lead_to_files_of_this_tree_only() {
    let victim = arena().victim();
    for target in ["../victim/file", "/victim/file", &format!("{victim}/file"), "missing", ".", ""]
    {
        let arena = arena();
        let tar = Tar::default().symlink("s", "../victim/file");
        let mut entry = Entry::new("h", EntryKind::HardLink, 0o777);
        entry.link = target.into();
        assert!(!arena.attack(&tar.entry(&entry, b"").file("h", b"!").end()), "{target}");
    }
    // A link as the target is doubled, never followed, and what comes next replaces it.
    let arena = arena();
    let tar = Tar::default()
        .symlink("s", &format!("{victim}/file"))
        .hard_link("h", "s")
        .file("h", b"!")
        .symlink("out", "../victim")
        .hard_link("i", "out/file");
    assert!(!arena.attack(&tar.end()));
    // A directory and a pipe are no targets.
    assert!(!arena.attack(&Tar::default().dir("d", 0o755).hard_link("h2", "d").end()));
    // To itself.
    assert!(arena.attack(&Tar::default().file("f", b"f").hard_link("f", "./f").end()));
    assert_eq!(text(&arena.tree, "f"), "f");
}

#[test]
fn row_6_whiteouts_stay_inside() {
    for name in [
        ".wh.",
        ".wh..",
        ".wh...",
        "a/.wh.",
        "a/.wh..",
        "a/.wh...",
        "../.wh.victim",
        "/.wh.victim",
        "up/.wh.victim",
        "up/.wh..wh..opq",
        "up/victim/.wh.file",
        "up/victim/.wh..wh..opq",
        "out/.wh.file",
        "out/.wh..wh..opq",
        ".wh.x/y",
    ] {
        let arena = arena();
        let tar = Tar::default()
            .symlink("up", "..")
            .symlink("out", &arena.victim())
            .file(name, b"")
            .end();
        let done = arena.attack(&tar);
        let refused = [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.x/y"];
        assert_eq!(!done, refused.contains(&name), "{name}");
    }
}

#[test]
fn row_8_the_pax_size_decides_where_the_next_header_is() {
    let hidden = Tar::default().file("hidden", b"").0;
    let mut block = Vec::new();
    rbuild_image::tarball::encode(&Entry::new("outer", EntryKind::File, 0o644), &mut block)
        .unwrap();
    for field in [b"00000000000\0", b"00000000001\0"] {
        let mut tar = Tar::default().pax(&[("size", hidden.len().to_string().as_bytes())]);
        tar.0.extend(with(&block, 124, field));
        let tar = tar.content(&hidden).file("after", b"").end();
        let names: Vec<_> = listing(&tar).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["outer", "after"]);
    }
    for records in [&b"99 path=x\n"[..], b"path=x\n", b"11 path=x\n", b"8 path=x\n", b"9 path=x "] {
        let tar = Tar::default().raw(b'x', "pax", records).file("f", b"").end();
        assert!(Reader::new(&tar[..]).next_entry().is_err(), "{records:?}");
    }
    let global = Tar::default().raw(b'g', "pax", b"10 path=x\n").file("f", b"").end();
    assert!(Reader::new(&global[..]).next_entry().is_err());
    let comment = Tar::default().raw(b'g', "pax", b"11 comment=\n").end();
    assert!(Reader::new(&comment[..]).next_entry().is_err(), "wrong length");
    let comment = Tar::default().raw(b'g', "pax", b"13 comment=x\n").file("f", b"").end();
    assert_eq!(listing(&comment).len(), 1, "git writes these");
}

#[test]
fn row_9_overridden_names_are_checked_as_well() {
    let arena = arena();
    let target = format!("{}/file", arena.victim());
    for tar in [
        Tar::default().pax(&[("path", b"../victim/file")]).file("ok", b"!"),
        Tar::default().raw(b'L', "././@LongLink", b"../victim/file\0").file("ok", b"!"),
    ] {
        assert!(arena.attack(&tar.end()));
    }
    assert!(!arena.attack(
        &Tar::default().pax(&[("linkpath", target.as_bytes())]).hard_link("h", "ok").end()
    ));
    assert!(!arena.attack(
        &Tar::default().raw(b'K', "././@LongLink", target.as_bytes()).hard_link("h", "ok").end()
    ));
    for tar in [
        Tar::default().pax(&[("path", b"a\0b")]).file("ok", b""),
        Tar::default().pax(&[("linkpath", b"a\0b")]).symlink("ok", "x"),
        Tar::default().raw(b'L', "long", b"a\0b\0").file("ok", b""),
        Tar::default().raw(b'L', "long", b"").file("ok", b""),
        Tar::default().raw(b'L', "long", b"a").raw(b'L', "long", b"b").file("ok", b""),
        Tar::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("ok", b""),
        Tar::default().pax(&[("path", b"a")]).raw(b'L', "long", b"b").file("ok", b""),
        Tar::default().pax(&[("path", b"a")]),
    ] {
        assert!(!arena.attack(&tar.end()));
    }
}

#[test]
fn row_10_claimed_sizes_use_no_memory() {
    let mut block = Vec::new();
    rbuild_image::tarball::encode(&Entry::new("f", EntryKind::File, 0o644), &mut block).unwrap();
    let huge = [0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0];
    for (flag, size) in [
        (b'L', &b"77777777777\0"[..]),
        (b'K', &huge),
        (b'x', b"77777777777\0"),
        (b'g', &huge),
        (b'0', &[0xff; 12]),
        (b'0', &huge),
        (b'S', &huge),
    ] {
        let tar = with(&with(&block, 124, size), 156, &[flag]);
        let tree = temp();
        assert!(unpack(&tar, &tree.root, None).is_err(), "{flag}");
    }
    // A sparse map without end, and one that claims 2^60 bytes of holes and no such content.
    let map = b"1,0,".repeat(200_000);
    for records in [
        vec![("GNU.sparse.map", &map[..]), ("GNU.sparse.size", b"5")],
        vec![("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"99999999999999999999")],
        vec![("GNU.sparse.map", b"5,1,0,1"), ("GNU.sparse.size", b"9")],
        vec![("GNU.sparse.map", b"5,18446744073709551615"), ("GNU.sparse.size", b"9")],
        vec![("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")],
    ] {
        let tar = Tar::default().pax(&records).file("f", b"99999999999\n").end();
        assert!(unpack(&tar, &temp().root, None).is_err());
    }
    let limited = UnpackOptions { max_bytes: Some(10), ..options() };
    let tar = Tar::default().file("f", b"12345678901").end();
    let cancel = CancelToken::default();
    let error = unpack_layer(&mut &tar[..], &temp().root, None, &limited, &cancel).unwrap_err();
    assert!(error.to_string().contains("more than 10 bytes"), "{error}");
}

#[test]
fn row_19_overlay_attributes_are_dropped() {
    let tree = temp();
    let mut entry = Entry::new("f", EntryKind::File, 0o644);
    let mut dir = Entry::new("d", EntryKind::Directory, 0o755);
    entry.xattrs = [
        "trusted.overlay.redirect",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "trusted.overlay.metacopy",
        "security.selinux",
        "system.posix_acl_access",
        "user.fine",
    ]
    .iter()
    .map(|name| (name.as_bytes().to_vec(), b"y".to_vec()))
    .collect();
    dir.xattrs = entry.xattrs.clone();
    unpack(&Tar::default().entry(&entry, b"").entry(&dir, b"").end(), &tree.root, None).unwrap();
    for path in ["f", "d"] {
        let names = tree.root.list_xattrs(path).unwrap();
        let foreign: Vec<_> = names
            .iter()
            .filter(|name| *name != "user.fine" && *name != "security.selinux")
            .collect();
        assert!(foreign.is_empty(), "{path}: {foreign:?}");
    }
}

#[test]
fn row_20_device_zero_is_no_way_to_delete() {
    let entry = Entry::new("x", EntryKind::CharDevice, 0o666);
    assert!(unpack(&Tar::default().entry(&entry, b"").end(), &temp().root, None).is_err());
}

#[test]
fn damaged_and_strange_archives_are_errors() {
    let good = Tar::default().file("f", &[1; 2000]).end();
    for length in [1, 511, 513, 1000, 2500] {
        assert!(unpack(&good[..length], &temp().root, None).is_err(), "{length}");
    }
    let mut damaged = good.clone();
    damaged[0] ^= 1;
    assert!(unpack(&damaged, &temp().root, None).is_err());
    let mut block = Vec::new();
    rbuild_image::tarball::encode(&Entry::new("f", EntryKind::File, 0o644), &mut block).unwrap();
    for (at, bytes) in [
        (156, &b"V"[..]),
        (156, b"?"),
        (108, &[0xff; 8]),
        (108, b"99999999"),
        (100, b"abc"),
        (0, b"\0"),
    ] {
        assert!(unpack(&with(&block, at, bytes), &temp().root, None).is_err(), "{at} {bytes:?}");
    }
    let after_zeros = [&[0; 512][..], &good].concat();
    assert!(unpack(&after_zeros, &temp().root, None).is_err());
    assert_eq!(unpack(b"", &temp().root, None).unwrap().entries, 0);
}

#[test]
fn what_replaces_what_within_one_layer() {
    let tree = temp();
    let tar = Tar::default()
        .file("a", b"1")
        .file("a", b"2")
        .file("d/x", b"")
        .file("d", b"file")
        .file("e", b"file")
        .dir("e", 0o700)
        .dir("e", 0o711)
        .symlink("s", "e")
        .symlink("s", "a")
        .end();
    unpack(&tar, &tree.root, None).unwrap();
    assert_eq!((text(&tree.root, "a"), text(&tree.root, "d")), ("2".into(), "file".into()));
    assert_eq!(tree.root.stat("e", Follow::No).unwrap().unwrap().mode, 0o711);
    assert_eq!(tree.root.read_link("s").unwrap(), "a");
    packed(&tree.root);
}
