//! Nothing below a root reaches outside it, and nothing panics.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rbuild_rooted::{FileKind, Follow, NewDirs, Root, RootedError, Time};
use tempfile::TempDir;

const DIRS: NewDirs = NewDirs { mode: 0o755, owner: None };

/// `outside/secret` beside `root/`, which has links that try to reach it.
fn hostile() -> (TempDir, Root) {
    let temp = TempDir::new().unwrap();
    let (outside, root) = (temp.path().join("outside"), temp.path().join("root"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(root.join("file"), "inside").unwrap();
    symlink("../outside", root.join("up")).unwrap();
    symlink("up", root.join("chain")).unwrap();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../../../../../../../../..", root.join("dir/top")).unwrap();
    symlink("/dir", root.join("in")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("../outside/secret", root.join("secret")).unwrap();
    symlink("/nowhere/deep", root.join("dangling")).unwrap();
    let root = Root::open(root).unwrap();
    (temp, root)
}

#[test]
fn no_spelling_leaves_the_root() {
    let (temp, root) = hostile();
    let outside = temp.path().join("outside");
    let absolute = outside.join("secret");
    for path in [
        "../outside/secret",
        "/../outside/secret",
        "up/secret",
        "chain/secret",
        "chain/../outside/secret",
        "absolute/secret",
        "dir/top/outside/secret",
        "dir/../../outside/secret",
        "magic/etc/passwd",
        "secret",
        "loop/x",
        absolute.to_str().unwrap(),
    ] {
        assert!(root.open_file(path, Follow::Yes).is_err(), "{path}");
        assert!(root.open_file(path, Follow::No).is_err(), "{path}");
        assert!(root.read_small(path, 100).is_err(), "{path}");
        let _ = root.create_file(path, 0o644).map(|mut file| file.write_all(b"hit"));
        let _ = root.create_dir_all(format!("{path}/made"), DIRS);
        let _ = root.hard_link(path, "linked");
        let _ = root.set_mode(path, 0o777);
        let _ = root.remove_all(path);
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
}

#[test]
fn links_to_the_roots_own_files_work() {
    let (_temp, root) = hostile();
    assert_eq!(root.read_small("in/top/file", 100).unwrap(), b"inside");
    assert_eq!(root.read_small("/dir/../../file", 100).unwrap(), b"inside");
    assert!(root.stat("in", Follow::No).unwrap().unwrap().is_symlink());
    assert!(root.stat("in", Follow::Yes).unwrap().unwrap().is_dir());
    assert_eq!(root.stat("file/x", Follow::No).unwrap(), None);
    assert_eq!(root.stat("", Follow::No).unwrap().unwrap(), root.metadata().unwrap());
    let names: Vec<_> = root.read_dir("in").unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["sub", "top"]);
    let (parent, name) = root.open_parent("in/sub").unwrap();
    assert_eq!(name, "sub");
    assert!(parent.stat("sub", Follow::No).unwrap().unwrap().is_dir());
}

#[test]
fn resolving_gives_the_real_path() {
    let (_temp, root) = hostile();
    let real = |path: &str| {
        let resolved = root.resolve(path, Follow::Yes).unwrap();
        (resolved.path.to_str().unwrap().to_owned(), resolved.found.map(|found| found.kind))
    };
    assert_eq!(real("in/sub"), ("/dir/sub".into(), Some(FileKind::Directory)));
    assert_eq!(real("in/sub/.."), ("/dir".into(), Some(FileKind::Directory)));
    assert_eq!(real("in/top/file"), ("/file".into(), Some(FileKind::Regular)));
    assert_eq!(real("dangling/x"), ("/nowhere/deep/x".into(), None));
    assert_eq!(real("dangling/x/../../../file"), ("/file".into(), Some(FileKind::Regular)));
    assert_eq!(real("up"), ("/outside".into(), None));
    assert_eq!(real("../.."), ("/".into(), Some(FileKind::Directory)));
    assert!(matches!(root.resolve("loop", Follow::Yes), Err(RootedError::TooManyLinks { .. })));
    let link = root.resolve("dir/../in", Follow::No).unwrap();
    assert_eq!((link.path, link.found.unwrap().kind), ("/in".into(), FileKind::Symlink));
    assert!(root.resolve("file/x", Follow::Yes).is_err());
}

#[test]
fn missing_directories_are_made_through_links() {
    let (temp, root) = hostile();
    fs::set_permissions(temp.path().join("root/dir"), PermissionsExt::from_mode(0o711)).unwrap();
    let made = root.create_dir_all("in/a/../b/c", NewDirs { mode: 0o2775, owner: None }).unwrap();
    assert_eq!(made.path, PathBuf::from("/dir/b/c"));
    // Like mkdir -p, what is left again by `..` is made too.
    let names: Vec<_> = made.created.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, ["/dir/a", "/dir/b", "/dir/b/c"]);
    assert_eq!(made.dir.metadata().unwrap().mode, 0o2775);
    assert_eq!(root.stat("dir", Follow::No).unwrap().unwrap().mode, 0o711);

    let made = root.create_dir_all("/dangling", DIRS).unwrap();
    assert_eq!(made.path, PathBuf::from("/nowhere/deep"));
    assert!(root.stat("dangling", Follow::No).unwrap().unwrap().is_symlink());
    let made = root.create_dir_all("up/x", DIRS).unwrap();
    assert_eq!(made.path, PathBuf::from("/outside/x"));
    assert!(!temp.path().join("outside/x").exists());
    assert!(matches!(
        root.create_dir_all("file/x", DIRS),
        Err(RootedError::WrongKind { found: FileKind::Regular, .. })
    ));
    assert!(root.create_dir_all("", DIRS).unwrap().created.is_empty());
}

#[test]
fn making_replaces_names_and_never_follows_them() {
    let (temp, root) = hostile();
    let secret = temp.path().join("outside/secret");
    let before = fs::metadata(&secret).unwrap();
    root.create_file("secret", 0o4711).unwrap().write_all(b"new").unwrap();
    let made = root.stat("secret", Follow::No).unwrap().unwrap();
    assert_eq!((made.kind, made.mode, made.size), (FileKind::Regular, 0o4711, 3));
    root.symlink("../outside/secret", "secret").unwrap();
    assert_eq!(root.read_link("secret").unwrap(), "../outside/secret");
    assert!(root.hard_link("secret", "second").is_err(), "a link may not be hard linked");
    root.hard_link("file", "second").unwrap();
    root.hard_link("file", "second").unwrap();
    assert_eq!(root.stat("second", Follow::No).unwrap().unwrap().nlink, 2);
    root.set_mode("secret", 0o777).unwrap();
    root.set_times("secret", Time { sec: 5, nsec: 6 }, Time { sec: 7, nsec: 8 }).unwrap();
    let link = root.stat("secret", Follow::No).unwrap().unwrap();
    assert_eq!(link.mtime, Time { sec: 7, nsec: 8 });
    root.mknod("pipe", FileKind::Fifo, 0o666, 0).unwrap();
    let pipe = root.stat("pipe", Follow::No).unwrap().unwrap();
    assert_eq!((pipe.kind, pipe.mode), (FileKind::Fifo, 0o666));
    assert!(root.open_file("pipe", Follow::Yes).is_err(), "a pipe would block");
    root.rename("pipe", "dir/pipe").unwrap();
    root.remove("dir/pipe").unwrap();
    assert!(root.create_file("dir", 0o644).is_err());
    assert!(root.create_file("..", 0o644).is_err());
    assert!(root.remove_all("dir/..").is_err());
    let after = fs::metadata(&secret).unwrap();
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
}

#[test]
fn attributes_belong_to_the_name_itself() {
    let (temp, root) = hostile();
    let supported = root.set_xattr("file", "user.rbuild", b"value").is_ok();
    if supported {
        let value = root.get_xattr("file", "user.rbuild").unwrap();
        assert_eq!(value.as_deref(), Some(&b"value"[..]));
        assert_eq!(root.list_xattrs("file").unwrap(), ["user.rbuild"]);
        root.remove_xattr("file", "user.rbuild").unwrap();
        root.set_xattr("", "user.rbuild", b"root").unwrap();
        assert!(root.get_xattr("", "user.rbuild").unwrap().is_some());
        // The kernel has no user attributes on links; what matters is that the target has none.
        let _ = root.set_xattr("absolute", "user.rbuild", b"x");
        let outside = Root::open(temp.path().join("outside")).unwrap();
        assert_eq!(outside.list_xattrs("").unwrap(), Vec::<&str>::new());
    } else {
        eprintln!("skipped: this file system has no user attributes");
    }
    assert_eq!(root.get_xattr("file", "user.rbuild").unwrap(), None);
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to change owners");
        return;
    }
    root.set_owner("absolute", 12, 34).unwrap();
    root.set_owner("", 56, 78).unwrap();
    let link = root.stat("absolute", Follow::No).unwrap().unwrap();
    assert_eq!((link.uid, link.gid), (12, 34));
    assert_eq!(fs::metadata(temp.path().join("outside")).unwrap().uid(), 0);
    assert_eq!(root.metadata().unwrap().gid, 78);
    let made =
        root.create_dir_all("dir/new", NewDirs { mode: 0o4750, owner: Some((9, 10)) }).unwrap();
    let made = made.dir.metadata().unwrap();
    assert_eq!((made.uid, made.gid, made.mode), (9, 10, 0o4750));
}

#[test]
fn trees_are_removed_whatever_their_depth_and_modes() {
    let (temp, root) = hostile();
    let mut here = root.create_dir_all("deep", DIRS).unwrap().dir;
    for level in 0..3000 {
        here.create_dir("d", DIRS).unwrap();
        here.create_file("f", 0o000).unwrap();
        here.symlink("/", "l").unwrap();
        let below = here.enter("d").unwrap();
        if level % 100 == 0 {
            here.set_mode("d", 0).unwrap();
            if !rustix::process::geteuid().is_root() {
                below.set_mode("", 0o700).unwrap();
            }
        }
        here = below;
    }
    root.remove_all("deep").unwrap();
    assert_eq!(root.stat("deep", Follow::No).unwrap(), None);
    root.remove_all("deep").unwrap();
    root.remove_all("absolute").unwrap();
    root.remove_contents().unwrap();
    assert!(root.read_dir("").unwrap().is_empty());
    assert_eq!(fs::read(temp.path().join("outside/secret")).unwrap(), b"secret");
}

#[test]
fn large_files_are_not_read_whole() {
    let (_temp, root) = hostile();
    assert!(root.read_small("file", 6).is_ok());
    assert!(matches!(root.read_small("file", 5), Err(RootedError::TooLarge { cap: 5, .. })));
}

/// A thread keeps swapping a directory for a link to the outside while files are made, read and
/// removed through it.
#[test]
fn a_swapped_directory_leads_nowhere() {
    let (temp, root) = hostile();
    let inside = temp.path().join("root");
    let stop = AtomicBool::new(false);
    fs::create_dir(inside.join("spare")).unwrap();
    symlink("../outside", inside.join("evil")).unwrap();
    let swap = root.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = swap.rename("spare", "d");
                let _ = swap.rename("d", "spare");
                let _ = swap.rename("evil", "d");
                let _ = swap.rename("d", "evil");
            }
        });
        for _ in 0..3000 {
            assert!(root.open_file("d/secret", Follow::Yes).is_err());
            let _ = root.create_file("d/new", 0o644);
            let _ = root.create_dir_all("d/deep/er", DIRS);
            let _ = root.remove_all("d/deep");
            let _ = root.remove("d/secret");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let left: Vec<_> = fs::read_dir(temp.path().join("outside")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "..", ".", "", "up", "chain", "absolute", "dir", "top", "in", "magic", "loop", "file",
        "secret", "dangling", "outside", "new",
    ]);
    let name = prop_oneof![
        8 => known.prop_map(|name| name.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
        1 => Just(vec![b'x'; 300]),
    ];
    (any::<bool>(), prop::collection::vec(name, 0..8)).prop_map(|(absolute, names)| {
        let mut path = if absolute { b"/".to_vec() } else { Vec::new() };
        path.extend(names.join(&b'/'));
        path
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_paths_neither_panic_nor_escape(paths in prop::collection::vec(path(), 1..12)) {
        let (temp, root) = hostile();
        for (number, bytes) in paths.iter().enumerate() {
            let path = PathBuf::from(std::ffi::OsString::from_vec(bytes.clone()));
            let path = Path::new(&path);
            let _ = root.stat(path, Follow::Yes);
            let _ = root.stat(path, Follow::No);
            let _ = root.read_dir(path);
            let _ = root.get_xattr(path, "user.x");
            let _ = root.open_file(path, Follow::Yes);
            let _ = root.set_times(path, Time::default(), Time::default());
            if let Ok(resolved) = root.resolve(path, Follow::Yes)
                && resolved.found.is_some()
            {
                // What the walk found is what the kernel finds, by a path without links.
                let found = root.stat(&resolved.path, Follow::No).unwrap();
                prop_assert_eq!(found, resolved.found);
            }
            match number % 6 {
                0 => drop(root.create_dir_all(path, DIRS)),
                1 => drop(root.create_file(path, 0o600)),
                2 => drop(root.remove_all(path)),
                3 => drop(root.symlink("../outside", path)),
                4 => drop(root.hard_link("file", path)),
                _ => drop(root.rename("dir", path)),
            }
        }
        let outside = temp.path().join("outside");
        prop_assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        prop_assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
        prop_assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    }
}
