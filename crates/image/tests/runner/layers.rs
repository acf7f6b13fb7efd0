//! Packing and unpacking are each other's inverse.

use std::io::{Read, Write};

use rbuild_image::layer::whiteout::OverlayXattrs;
use rbuild_image::layer::{
    FileTimes, LayerReader, Ownership, PackOptions, TreeForm, UnpackOptions, is_archive, list,
    newest_file, pack, unpack_archive,
};
use rbuild_image::tarball::{Entry, EntryKind};
use rbuild_rooted::{FileKind, Follow, Root, Time};
use rbuild_types::CancelToken;

use crate::support::{DIR, Tar, is_root, listing, options, packed, temp, text, unpack};

/// Lengths around those at which files are read in another way.
const LENGTHS: [usize; 6] = [0, 1, 511, 64 << 10, (64 << 10) + 1, 300 << 10];

#[test]
fn directories_of_many_files_are_packed_in_order() {
    let (first, second) = (temp(), temp());
    let content = |path: &str, length: usize| {
        path.as_bytes().iter().copied().cycle().take(length).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (depth, dir) in ["a", "a/m", "a/m/k", "b"].into_iter().enumerate() {
        first.root.create_dir_all(dir, DIR).unwrap();
        for index in 0..[3, 200, 40, 17][depth] {
            let path = format!("{dir}/f{index:03}");
            let bytes = content(&path, LENGTHS[index % LENGTHS.len()]);
            first.root.create_file(&path, 0o644).unwrap().write_all(&bytes).unwrap();
            if index % 7 == 0 {
                first.root.symlink("x", format!("{dir}/f{index:03}-link")).unwrap();
            }
            expected.push((path, bytes));
        }
    }
    let (before, tar) = packed(&first.root);
    unpack(&tar, &second.root, None).unwrap();
    for (path, bytes) in expected {
        assert!(second.root.read_small(&path, 1 << 20).unwrap() == bytes, "{path}");
    }
    let names: Vec<String> = listing(&tar).into_iter().map(|(name, _)| name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(packed(&second.root).0.diff_id, before.diff_id);
}

/// One of everything that a layer can hold.
fn fill(root: &Root) {
    let write = |path: &str, bytes: &[u8]| {
        root.create_file(path, 0o644).unwrap().write_all(bytes).unwrap();
    };
    root.create_dir_all("etc/deep/er", DIR).unwrap();
    root.create_dir_all("usr/bin", DIR).unwrap();
    root.create_dir_all("hidden", DIR).unwrap();
    write("etc/passwd", b"root:x:0:0\n");
    write("usr/bin/su", b"\x7fELF");
    root.set_mode("usr/bin/su", 0o4755).unwrap();
    root.hard_link("usr/bin/su", "usr/bin/su2").unwrap();
    root.hard_link("usr/bin/su", "etc/also-su").unwrap();
    root.symlink("/etc/passwd", "etc/link").unwrap();
    root.symlink("x".repeat(300), "etc/long-link").unwrap();
    write(&"n".repeat(255), &[7; 70_000]);
    write(&format!("etc/deep/er/{}", "m".repeat(200)), b"");
    root.mknod("etc/pipe", FileKind::Fifo, 0o600, 0).unwrap();
    root.mknod("etc/gone", FileKind::CharDevice, 0, 0).unwrap();
    root.set_xattr("hidden", options().overlay.opaque(), b"y").unwrap();
    write("hidden/seen", b"!");
    root.set_mode("etc/deep", 0o1777).unwrap();
    let old = Time { sec: -86_400, nsec: 5 };
    root.set_times("etc/passwd", old, old).unwrap();
    root.set_times("etc/deep", old, old).unwrap();
}

#[test]
fn what_is_packed_unpacks_to_the_same_layer() {
    let (first, second) = (temp(), temp());
    fill(&first.root);
    let (before, tar) = packed(&first.root);
    let done = unpack(&tar, &second.root, None).unwrap();
    assert_eq!(done.entries, before.entries);
    let (after, again) = packed(&second.root);
    assert_eq!(listing(&tar), listing(&again));
    assert_eq!(before.diff_id, after.diff_id);

    let names: Vec<String> = listing(&tar).into_iter().map(|(name, _)| name).collect();
    for name in ["etc/.wh.gone", "hidden/.wh..wh..opq", "etc/", "usr/bin/su2"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    let kind = |wanted: &str| listing(&tar).into_iter().find(|(name, _)| name == wanted).unwrap().1;
    assert_eq!(kind("etc/also-su"), EntryKind::File, "the first name in order is the file");
    assert_eq!(kind("usr/bin/su"), EntryKind::HardLink);
}

#[test]
fn the_umask_does_not_matter() {
    let (first, second) = (temp(), temp());
    fill(&first.root);
    let (before, tar) = packed(&first.root);
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let result = unpack(&tar, &second.root, None);
    rustix::process::umask(old);
    result.unwrap();
    assert_eq!(packed(&second.root).0.diff_id, before.diff_id);
}

#[test]
fn the_order_of_creation_does_not_matter() {
    let (first, second) = (temp(), temp());
    let names: Vec<String> = (0..300).map(|number| format!("f{}", number * 7919 % 300)).collect();
    for (root, names) in
        [(&first.root, names.clone()), (&second.root, names.into_iter().rev().collect::<Vec<_>>())]
    {
        for name in names {
            root.create_file(&name, 0o600).unwrap();
            root.set_times(&name, Time::default(), Time::default()).unwrap();
        }
    }
    assert_eq!(packed(&first.root).0, packed(&second.root).0);
}

#[test]
fn trees_deeper_than_the_descriptors_allow_are_packed() {
    let tree = temp();
    let path = ["d"; 1500].join("/");
    tree.root.create_dir_all(&path, DIR).unwrap();
    tree.root.create_file("d/d/z", 0o644).unwrap();
    let (done, tar) = packed(&tree.root);
    assert_eq!(done.entries, 1501);
    assert_eq!(listing(&tar).last().unwrap().0, "d/d/z");
    let back = temp();
    unpack(&tar, &back.root, None).unwrap();
    tree.root.remove_contents().unwrap();
    back.root.remove_contents().unwrap();
}

#[test]
fn times_are_clamped_and_whole() {
    let tree = temp();
    tree.root.create_file("a", 0o644).unwrap();
    let late = Time { sec: 5_000_000_000, nsec: 1 };
    tree.root.set_times("a", late, late).unwrap();
    let options = PackOptions { times: FileTimes::AtMost(1000), ..PackOptions::default() };
    let mut tar = Vec::new();
    pack(&tree.root, &options, &mut tar, &CancelToken::default()).unwrap();
    let entry = rbuild_image::tarball::Reader::new(&tar[..]).next_entry().unwrap().unwrap();
    assert_eq!(entry.mtime, Time { sec: 1000, nsec: 0 });
}

#[test]
fn reserved_names_and_cancelled_calls_are_errors() {
    let tree = temp();
    tree.root.create_file(".wh.x", 0o644).unwrap();
    let cancel = CancelToken::default();
    let mut sink = std::io::sink();
    let error = pack(&tree.root, &PackOptions::default(), &mut sink, &cancel).unwrap_err();
    assert!(error.to_string().contains("/.wh.x"), "{error}");
    let plain = PackOptions { form: TreeForm::Plain, ..PackOptions::default() };
    assert_eq!(pack(&tree.root, &plain, &mut sink, &cancel).unwrap().entries, 1);
    cancel.cancel();
    let error = pack(&tree.root, &plain, &mut sink, &cancel).unwrap_err();
    assert!(matches!(error, rbuild_image::ImageError::Cancelled(_)));
}

#[test]
fn whiteouts_hide_what_is_below_and_never_the_own_layer() {
    let tree = temp();
    let tar = Tar::default()
        .file("kept/new", b"n")
        .file(".wh.kept", b"")
        .file(".wh.old", b"")
        .file("back/.wh..wh..opq", b"")
        .file(".wh.again", b"")
        .file("again/x", b"x")
        .file(".wh..wh.plnk/1.2", b"aufs")
        .end();
    unpack(&tar, &tree.root, None).unwrap();
    assert_eq!(text(&tree.root, "kept/new"), "n");
    let form = options().overlay;
    for opaque in ["kept", "back", "again"] {
        let value = tree.root.get_xattr(opaque, form.opaque()).unwrap();
        assert_eq!(value.as_deref(), Some(&b"y"[..]), "{opaque}");
    }
    let old = tree.root.stat("old", Follow::No).unwrap().unwrap();
    assert_eq!((old.kind, old.rdev), (FileKind::CharDevice, 0));
    assert!(tree.root.stat(".wh..wh.plnk", Follow::No).unwrap().is_none());
    assert_ne!(OverlayXattrs::Trusted.opaque(), OverlayXattrs::User.opaque());
}

#[test]
fn lower_links_and_files_mean_what_they_mean_in_the_whole_image() {
    let (lower, upper) = (temp(), temp());
    lower.root.create_dir_all("usr/lib", DIR).unwrap();
    lower.root.set_mode("usr/lib", 0o750).unwrap();
    lower.root.symlink("usr/lib", "lib").unwrap();
    lower.root.create_file("usr/lib/so", 0o755).unwrap().write_all(b"elf").unwrap();
    let tar = Tar::default()
        .file("lib/new.so", b"new")
        .hard_link("so2", "lib/so")
        .file("lib/.wh.old", b"")
        .end();
    unpack(&tar, &upper.root, Some(&lower.root)).unwrap();
    assert_eq!(text(&upper.root, "usr/lib/new.so"), "new");
    assert!(upper.root.stat("lib", Follow::No).unwrap().is_none(), "the link stays below");
    assert_eq!(text(&upper.root, "so2"), "elf");
    let (one, two) = (
        upper.root.stat("so2", Follow::No).unwrap().unwrap(),
        upper.root.stat("usr/lib/so", Follow::No).unwrap().unwrap(),
    );
    assert_eq!(one.ino, two.ino, "copied up, then linked");
    assert_eq!(upper.root.stat("usr/lib", Follow::No).unwrap().unwrap().mode, 0o750);
    // Alone, the same layer makes a directory where the link would have led on.
    let alone = temp();
    unpack(&Tar::default().file("lib/x", b"").end(), &alone.root, None).unwrap();
    assert!(alone.root.stat("lib", Follow::No).unwrap().unwrap().is_dir());
}

#[test]
fn owners_and_capabilities_survive() {
    if !is_root("owners_and_capabilities_survive") {
        return;
    }
    // VFS_CAP_REVISION_2 with CAP_NET_RAW permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (first, second) = (temp(), temp());
    let mut entry = Entry::new("ping", EntryKind::File, 0o755);
    entry.uid = 3_000_000;
    entry.gid = 7;
    entry.xattrs = vec![(b"security.capability".to_vec(), capability.to_vec())];
    let tar = Tar::default().entry(&entry, b"ping").end();
    unpack(&tar, &first.root, None).unwrap();
    let (before, tar) = packed(&first.root);
    unpack(&tar, &second.root, None).unwrap();
    assert_eq!(packed(&second.root).0, before);
    let found = second.root.stat("ping", Follow::No).unwrap().unwrap();
    assert_eq!((found.uid, found.gid), (3_000_000, 7));
    let value = second.root.get_xattr("ping", "security.capability").unwrap();
    assert_eq!(value.as_deref(), Some(&capability[..]));
}

#[test]
fn add_unpacks_by_content_into_what_is_there() {
    let tree = temp();
    tree.root.create_dir_all("app/dir", DIR).unwrap();
    tree.root.create_file("app/dir/kept", 0o644).unwrap().write_all(b"k").unwrap();
    tree.root.symlink("app", "dest").unwrap();
    let tar = Tar::default()
        .entry(&Entry::new("", EntryKind::File, 0o600), b"")
        .entry(&Entry::new("./", EntryKind::Directory, 0o700), b"")
        .file("dir/new", b"n")
        .file(".wh.plain", b"")
        .file("../../above", b"clamped")
        .symlink("abs", "/dir")
        .file("abs/through", b"t")
        .symlink("up", "..")
        .file("up/made/file", b"m")
        .end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(is_archive(&gzip[..]) && is_archive(&tar[..]));
    let into = tree.root.open_dir("dest").unwrap();
    unpack_archive(&mut &gzip[..], &into, &options(), &CancelToken::default()).unwrap();
    assert_eq!(into.metadata().unwrap().mode, 0o755);
    assert_eq!(text(&tree.root, "app/dir/kept"), "k");
    assert_eq!(text(&tree.root, "app/dir/new"), "n");
    assert_eq!(text(&tree.root, "app/.wh.plain"), "");
    assert_eq!(text(&tree.root, "app/above"), "clamped");
    assert_eq!(text(&tree.root, "app/dir/through"), "t");
    assert_eq!(text(&tree.root, "app/made/file"), "m");
    assert!(tree.root.stat("dest", Follow::No).unwrap().unwrap().is_symlink());

    let mut text = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    text.write_all(b"no archive").unwrap();
    assert!(!is_archive(&text.finish().unwrap()[..]));
    assert!(!is_archive(&b"text"[..]) && !is_archive(&[0; 4096][..]) && !is_archive(&b""[..]));
    for (name, bytes) in [
        ("zstd", zstd::bulk::compress(&tar, 1).unwrap()),
        ("xz", {
            let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
            xz.write_all(&tar).unwrap();
            xz.finish().unwrap()
        }),
        ("bzip2", {
            let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            bzip2.write_all(&tar).unwrap();
            bzip2.finish().unwrap()
        }),
    ] {
        assert!(is_archive(&bytes[..]), "{name}");
    }
}

#[test]
fn add_makes_nothing_that_a_link_leads_to() {
    let tree = temp();
    tree.root.create_dir_all("dst", DIR).unwrap();
    tree.root.create_dir_all("outside", DIR).unwrap();
    tree.root.symlink("/outside", "dst/there").unwrap();
    let into = tree.root.enter("dst").unwrap();
    let own = Tar::default().symlink("mine", "../outside").file("mine/through", b"x").end();
    for tar in [Tar::default().file("there/through", b"x").end(), own] {
        let refused = unpack_archive(&mut &tar[..], &into, &options(), &CancelToken::default());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("/outside") && message.contains("a link leads"), "{message}");
    }
    assert_eq!(into.stat("outside", Follow::No).unwrap(), None);
    assert_eq!(tree.root.stat("outside/through", Follow::No).unwrap(), None);
}

#[test]
fn add_gives_every_entry_to_the_owner_asked_for() {
    if !is_root("add_gives_every_entry_to_the_owner_asked_for") {
        return;
    }
    let tree = temp();
    let tar = Tar::default().file("a/b", b"").symlink("l", "a").dir("d", 0o755).end();
    let ownership = Ownership::Fixed { uid: 12, gid: 34 };
    let options = UnpackOptions { ownership, ..UnpackOptions::default() };
    unpack_archive(&mut &tar[..], &tree.root, &options, &CancelToken::default()).unwrap();
    let owner = |path| {
        let found = tree.root.stat(path, Follow::No).unwrap().unwrap();
        (found.uid, found.gid)
    };
    for path in ["a/b", "l", "d"] {
        assert_eq!(owner(path), (12, 34), "{path}");
    }
    assert_eq!(owner("a"), (0, 0), "no entry is about it");
}

#[test]
fn times_are_not_set_through_links_that_came_later() {
    let tree = temp();
    let mut other = Entry::new("other", EntryKind::Directory, 0o755);
    other.mtime = Time { sec: 77, nsec: 0 };
    let tar = Tar::default()
        .entry(&other, b"")
        .file("d/f", b"f")
        .file("loop/sub/f", b"f")
        .file("was/f", b"f")
        .symlink("d", "other")
        .symlink("loop", "loop")
        .file("was", b"")
        .end();
    unpack(&tar, &tree.root, None).unwrap();
    assert_eq!(tree.root.stat("other", Follow::No).unwrap().unwrap().mtime, other.mtime);
}

#[test]
fn the_entry_of_a_hard_link_counts_for_the_file() {
    let tree = temp();
    let mut link = Entry::new("g", EntryKind::HardLink, 0o751);
    link.link = b"f".to_vec();
    link.mtime = Time { sec: 77, nsec: 0 };
    let tar = Tar::default().file("f", b"f").entry(&link, b"").end();
    unpack(&tar, &tree.root, None).unwrap();
    let found = tree.root.stat("f", Follow::No).unwrap().unwrap();
    assert_eq!((found.nlink, found.mode, found.mtime), (2, 0o751, link.mtime));
}

#[test]
fn the_newest_file_of_an_archive_is_known() {
    let timed = |name: &str, kind, seconds| {
        let mut entry = Entry::new(name, kind, 0o755);
        entry.mtime = Time { sec: seconds, nsec: 0 };
        entry
    };
    let tar = Tar::default()
        .entry(&timed("old", EntryKind::File, -5), b"")
        .entry(&timed("new", EntryKind::File, 7), b"")
        .entry(&timed("newer", EntryKind::Directory, 9), b"")
        .end();
    let cancel = CancelToken::default();
    assert_eq!(newest_file(&tar[..], &cancel).unwrap(), Some(7));
    let tree = temp();
    assert_eq!(unpack(&tar, &tree.root, None).unwrap().newest, Some(7));
    assert_eq!(newest_file(&Tar::default().end()[..], &cancel).unwrap(), None);
    assert!(newest_file(&tar[..tar.len() - 1800], &cancel).is_err());
}

#[test]
fn devices_are_made_or_counted() {
    let mut entry = Entry::new("null", EntryKind::CharDevice, 0o666);
    entry.device = (1, 3);
    let tar = Tar::default().entry(&entry, b"").end();
    let tree = temp();
    assert_eq!(unpack(&tar, &tree.root, None).unwrap().skipped_devices, 1);
    if !is_root("devices_are_made_or_counted") {
        return;
    }
    let make = UnpackOptions::default();
    let cancel = CancelToken::default();
    rbuild_image::layer::unpack_layer(&mut &tar[..], &tree.root, None, &make, &cancel).unwrap();
    assert_eq!(packed(&tree.root).1, tar);
}

#[test]
fn files_with_holes_keep_them() {
    let tree = temp();
    let tar = Tar::default()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"1000000"),
        ])
        .file("GNUSparseFile.0/holes", &{
            let mut content = b"2\n0\n3\n999997\n3\n".to_vec();
            content.resize(512, 0);
            content.extend(b"abcxyz");
            content
        })
        .end();
    let done = unpack(&tar, &tree.root, None).unwrap();
    assert_eq!(done.bytes, 1_000_000);
    let bytes = tree.root.read_small("holes", 2_000_000).unwrap();
    assert_eq!(
        (bytes.len(), &bytes[..4], &bytes[999_996..]),
        (1_000_000, &b"abc\0"[..], &b"\0xyz"[..])
    );
}

#[test]
fn a_layer_that_is_read_is_the_layer_that_is_written() {
    let tree = temp();
    fill(&tree.root);
    tree.root.create_file("large", 0o644).unwrap().write_all(&vec![7; 5 << 20]).unwrap();
    let (expected, tar) = packed(&tree.root);
    let cancel = CancelToken::default();
    let read = |check: Result<(), &'static str>| {
        let check = move |packed: rbuild_image::layer::Packed| {
            assert_eq!(packed, expected);
            check.map_err(std::io::Error::other)
        };
        let root = tree.root.try_clone().unwrap();
        LayerReader::start(root, PackOptions::default(), check, &cancel).unwrap()
    };
    let mut bytes = Vec::new();
    read(Ok(())).read_to_end(&mut bytes).unwrap();
    assert!(bytes == tar);
    // What the check says comes before the end.
    let error = read(Err("other bytes")).read_to_end(&mut bytes).unwrap_err();
    assert_eq!(error.to_string(), "other bytes");
    // Whoever stops early leaves no thread behind.
    let mut first = [0; 10];
    read(Ok(())).read_exact(&mut first).unwrap();
    cancel.cancel();
    assert!(read(Ok(())).read_to_end(&mut bytes).is_err());
}

#[test]
fn a_listing_tells_whiteouts_and_opaque_directories_from_files() {
    if !is_root("a_listing_tells_whiteouts_and_opaque_directories_from_files") {
        return;
    }
    let tree = temp();
    let root = &tree.root;
    root.create_file("file", 0o644).unwrap();
    root.mknod("gone", FileKind::CharDevice, 0, 0).unwrap();
    root.mknod("socket", FileKind::Socket, 0o600, 0).unwrap();
    root.create_dir_all("opaque", DIR).unwrap();
    root.create_dir_all("by-attribute", DIR).unwrap();
    root.create_file("by-attribute/gone", 0o644).unwrap();
    root.create_file("by-attribute/empty", 0o644).unwrap();
    let attribute = |path: &str, name: &str, value: &[u8]| {
        root.set_xattr(path, name, value).unwrap();
    };
    attribute("opaque", OverlayXattrs::Trusted.opaque(), b"y");
    attribute("by-attribute", OverlayXattrs::Trusted.opaque(), b"x");
    attribute("by-attribute/gone", "trusted.overlay.whiteout", b"");
    let names = |path: &str, form: TreeForm| {
        let listing = list(&root.open_dir(path).unwrap(), form).unwrap();
        let names = listing.names.into_iter();
        let names = names.map(|one| (one.name.into_string().unwrap(), one.file.is_some()));
        (listing.is_opaque, names.collect::<Vec<_>>())
    };
    let listed = |is_opaque, names: &[(&str, bool)]| {
        let names = names.iter().map(|(name, is_there)| ((*name).to_owned(), *is_there));
        (is_opaque, names.collect::<Vec<_>>())
    };
    let all = [("by-attribute", true), ("file", true), ("gone", false), ("opaque", true)];
    assert_eq!(names("", TreeForm::Overlay), listed(false, &all));
    assert_eq!(names("", TreeForm::Plain), listed(false, &all.map(|(name, _)| (name, true))));
    assert_eq!(names("opaque", TreeForm::Overlay), listed(true, &[]));
    assert_eq!(names("opaque", TreeForm::Plain), listed(false, &[]));
    let inside = [("empty", true), ("gone", false)];
    assert_eq!(names("by-attribute", TreeForm::Overlay), listed(false, &inside));
}
