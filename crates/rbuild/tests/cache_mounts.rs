//! Cache mounts as volumes: looked at, copied, carried, and shared with containers.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use rbuild::{
    BuildError, CacheFileKind, CancelToken, CopyOptions, CopyPlace, Destination, Engine, Hold,
    Process, Volume, VolumeSource,
};

use crate::support::{Place, shell};

crate::tests![
    they_have_the_ids_of_the_dockerfile,
    a_container_uses_the_same_directory,
    a_locked_cache_keeps_others_out,
    files_are_copied_as_docker_cp_does,
    a_copy_follows_no_link_that_lies_in_its_way,
    what_is_copied_runs_as_nobody_else,
    an_export_is_deterministic_and_comes_back,
    a_damaged_import_changes_nothing,
    files_are_listed_and_restored_one_by_one,
    a_strangers_list_stays_inside,
    one_in_use_is_not_removed,
];

/// Those of `rbuild cache cp`.
pub fn options(archive: bool) -> CopyOptions {
    CopyOptions { archive, follow: true }
}

fn cancel() -> CancelToken {
    CancelToken::default()
}

/// A run of this script with a cache mount at `/c`.
fn with_cache(place: &Place, engine: &Engine, mount: &str, script: &str) {
    place.build(engine, &format!("FROM base\nRUN --mount=type=cache,{mount} {script}\n"));
}

fn using(id: &str, script: &str) -> Process {
    let mut process = shell(script);
    let source = VolumeSource::Cache { id: id.to_owned(), hold: Hold::Shared };
    process.volumes.push(Volume { source, target: "/c".to_owned(), read_only: false });
    process
}

fn they_have_the_ids_of_the_dockerfile() {
    let place = Place::new();
    let engine = place.engine();
    let files = "head -c 100000 /dev/zero >";
    with_cache(&place, &engine, "target=/root/.cache", &format!("{files} /root/.cache/f"));
    with_cache(&place, &engine, "id=go,target=/c", "touch /c/plain");
    with_cache(&place, &engine, "id=go,target=/c,uid=7,mode=0700", "touch /c/other");
    let namespace = place
        .request("FROM base\nRUN --mount=type=cache,id=go,target=/c true\n")
        .arg("BUILDKIT_CACHE_MOUNT_NS", "team");
    crate::support::build(&engine, &namespace);
    let caches = engine.caches().unwrap();
    let ids: Vec<_> = caches.iter().map(|cache| cache.id.as_str()).collect();
    assert_eq!(ids, ["/root/.cache", "go", "go", "team/go"]);
    assert!(caches[0].bytes >= 100_000 && !caches[0].in_use, "{:?}", caches[0]);
    assert!(caches[0].last_used >= caches[0].created && caches[0].created > 0);
    // The plain one of two is meant; the other one goes by its name.
    let plain = engine.cache("go").unwrap();
    assert_eq!((plain.mode, plain.uid), (0o755, 0));
    let other = caches.iter().find(|cache| cache.uid == 7).unwrap();
    assert_eq!(engine.cache(&other.name[..20]).unwrap().mode, 0o700);
    let error = engine.cache("nope").unwrap_err();
    assert!(matches!(error, BuildError::NoSuchCache { .. }), "{error}");
    engine.remove_cache("go").unwrap();
    // Of one that is left, nothing needs to be said.
    assert_eq!(engine.cache("go").unwrap().uid, 7);
    assert_eq!(engine.caches().unwrap().len(), 3);
}

fn a_container_uses_the_same_directory() {
    let place = Place::new();
    let engine = place.engine();
    crate::support::build(&engine, &place.request("FROM base\n").tag("app"));
    with_cache(&place, &engine, "id=go,target=/c", "echo build > /c/from");
    let (code, output) =
        place.run(&engine, "app", using("go", "cat /c/from; echo container > /c/from"));
    assert_eq!((code, output.as_str()), (0, "build\n"));
    with_cache(&place, &engine, "id=go,target=/c", "grep -q container /c/from # again");
    // And one that no build has made yet is the one that a build then uses.
    place.run(&engine, "app", using("/new", "echo first > /c/file"));
    with_cache(&place, &engine, "target=/new", "grep first /new/file");
    assert_eq!(engine.caches().unwrap().len(), 2);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_locked_cache_keeps_others_out() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(&place, &engine, "id=go,target=/c", "touch /c/made");
    let held = engine.open_cache("go", Hold::Shared, &cancel()).unwrap();
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        let (place, engine) = (&place, &engine);
        scope.spawn(move || {
            with_cache(place, engine, "id=go,target=/c,sharing=locked", "touch /c/locked");
            sender.send(()).unwrap();
        });
        // One that shares is not kept waiting; the locked one is, until this one lets go.
        with_cache(place, engine, "id=go,target=/c", "test -e /c/made # beside");
        assert!(receiver.try_recv().is_err());
        assert!(held.open_file("locked".as_ref()).is_err());
        drop(held);
        receiver.recv().unwrap();
    });
    let open = engine.open_cache("go", Hold::Alone, &cancel()).unwrap();
    open.open_file("locked".as_ref()).unwrap();
}

fn files_are_copied_as_docker_cp_does() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(
        &place,
        &engine,
        "id=go,target=/c",
        "mkdir /c/dir && echo f > /c/dir/f && chown 7:8 /c/dir/f && chmod 750 /c/dir && \
         ln -s f /c/dir/l && ln -s /etc/passwd /c/out",
    );
    let cache = |path: &str| CopyPlace::Cache { id: "go".to_owned(), path: path.to_owned() };
    let local = |name: &str| CopyPlace::Local(place.path().join(name));
    let copy =
        |from: &CopyPlace, to: &CopyPlace| engine.copy_files(from, to, options(false), &cancel());
    let at = |name: &str| place.path().join(name);
    // Out: a directory becomes the new name, or goes into one that is there.
    copy(&cache("/dir"), &local("new")).unwrap();
    copy(&cache("/dir"), &local("new")).unwrap();
    copy(&cache("/dir/."), &local("context")).unwrap();
    for name in ["new/f", "new/dir/f", "context/f"] {
        assert_eq!(fs_err::read_to_string(at(name)).unwrap(), "f\n", "{name}");
    }
    assert_eq!(fs_err::read_link(at("new/l")).unwrap(), PathBuf::from("f"));
    assert_eq!(fs_err::metadata(at("new")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(fs_err::metadata(at("new/f")).unwrap().uid(), 0);
    engine.copy_files(&cache("/dir/f"), &local("kept"), options(true), &cancel()).unwrap();
    let kept = fs_err::metadata(at("kept")).unwrap();
    assert_eq!((kept.uid(), kept.gid()), (7, 8));
    // In: files by name, into directories, onto files.
    fs_err::write(at("one"), "one").unwrap();
    copy(&local("one"), &cache("/dir")).unwrap();
    copy(&local("one"), &cache("/dir/f")).unwrap();
    copy(&local("new"), &cache("/")).unwrap();
    with_cache(
        &place,
        &engine,
        "id=go,target=/c",
        "test $(cat /c/dir/one) = one -a $(cat /c/dir/f) = one -a -f /c/new/dir/f",
    );
    // A link in the cache leads nowhere outside.
    assert!(copy(&cache("/out"), &local("leaked")).is_err());
    for (from, to) in [
        (cache("/dir"), local("one")),
        (cache("/dir/f"), local("nope/")),
        (cache("/dir/f"), local("no/such")),
        (cache("/nope"), local("x")),
        (cache("/dir"), cache("/x")),
        (local("one"), local("x")),
    ] {
        assert!(copy(&from, &to).is_err(), "{from:?} {to:?}");
    }
    assert!(!at("leaked").exists());
}

fn a_copy_follows_no_link_that_lies_in_its_way() {
    let place = Place::new();
    let engine = place.engine();
    let at = |name: &str| place.path().join(name);
    fs_err::create_dir(at("private")).unwrap();
    fs_err::write(at("private/file"), "kept").unwrap();
    let mode = || fs_err::metadata(at("private")).unwrap().permissions().mode() & 0o7777;
    let before = mode();
    fs_err::create_dir(at("out")).unwrap();
    let cache = |path: &str| CopyPlace::Cache { id: "go".to_owned(), path: path.to_owned() };
    let copy = |from: &str| {
        let to = CopyPlace::Local(at("out"));
        engine.copy_files(&cache(from), &to, options(false), &cancel())
    };
    // The first copy brings links, what is copied later has their names.
    let private = at("private").display().to_string();
    let links = format!("ln -s {private} /c/d && ln -s {private}/file /c/f");
    with_cache(&place, &engine, "id=go,target=/c", &links);
    copy("/.").unwrap();
    let files = "rm /c/* && mkdir -m 0777 /c/d && echo new | tee /c/d/file > /c/f";
    with_cache(&place, &engine, "id=go,target=/c", files);
    let error = copy("/d").unwrap_err().to_string();
    assert!(error.contains("d in ") && error.contains("is a link"), "{error}");
    assert!(copy("/.").is_err());
    copy("/f").unwrap();
    assert_eq!(fs_err::read_to_string(at("out/f")).unwrap(), "new\n");
    assert!(!fs_err::symlink_metadata(at("out/f")).unwrap().is_symlink());
    assert_eq!(fs_err::read_to_string(at("private/file")).unwrap(), "kept");
    assert_eq!(mode(), before);
    // A link that is named is meant.
    let to = CopyPlace::Local(at("out/d"));
    engine.copy_files(&cache("/f"), &to, options(false), &cancel()).unwrap();
    assert_eq!(fs_err::read_to_string(at("private/f")).unwrap(), "new\n");
}

fn what_is_copied_runs_as_nobody_else() {
    let place = Place::new();
    let engine = place.engine();
    let files =
        "mkdir /c/d && cp /bin/busybox /c/d/f && chown 7:8 /c/d/f && chmod 6751 /c/d/f /c/d";
    with_cache(&place, &engine, "id=go,target=/c", files);
    let modes = |to: &str, archive: bool| {
        let from = CopyPlace::Cache { id: "go".to_owned(), path: "/d".to_owned() };
        let path = place.path().join(to);
        engine
            .copy_files(&from, &CopyPlace::Local(path.clone()), options(archive), &cancel())
            .unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o7777;
        (mode(&path), mode(&path.join("f")))
    };
    assert_eq!(modes("plain", false), (0o751, 0o751));
    assert_eq!(modes("kept", true), (0o6751, 0o6751));
}

const FILES: &str = "cd /c && mkdir -p a/b && echo one > a/b/one && ln a/b/one a/two && \
                     ln -s ../x a/link && chown -R 5:6 a && chmod 4750 a/b/one && \
                     touch -d '2001-02-03 04:05:06' a/b/one a/b";

fn an_export_is_deterministic_and_comes_back() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(&place, &engine, "id=go,target=/c", FILES);
    let tar = |name: &str| {
        let path = place.path().join(name);
        engine.export_cache("go", &Destination::File(path.clone()), &cancel()).unwrap();
        path
    };
    let (one, two) = (tar("one.tar"), tar("two.tar"));
    assert_eq!(fs_err::read(&one).unwrap(), fs_err::read(&two).unwrap());
    let small = tar("one.tar.zst");
    assert!(fs_err::metadata(&small).unwrap().len() < fs_err::metadata(&one).unwrap().len());
    // Elsewhere, and then from there.
    let other = Place::new();
    let there = other.engine();
    let mut file = fs_err::File::open(&small).unwrap();
    there.import_cache("go", &mut file, &cancel()).unwrap();
    with_cache(
        &other,
        &there,
        "id=go,target=/c",
        "test $(stat -c %a,%u,%h /c/a/two) = 4750,5,2 -a $(readlink /c/a/link) = ../x",
    );
    let back = other.path().join("back.tar");
    there.export_cache("go", &Destination::File(back.clone()), &cancel()).unwrap();
    assert_eq!(fs_err::read(&one).unwrap(), fs_err::read(&back).unwrap());
    // All that was there before is gone.
    with_cache(&place, &engine, "id=go,target=/c", "touch /c/later");
    engine.import_cache("go", &mut fs_err::File::open(&one).unwrap(), &cancel()).unwrap();
    with_cache(&place, &engine, "id=go,target=/c", "test ! -e /c/later -a -e /c/a/two");
}

fn a_damaged_import_changes_nothing() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(&place, &engine, "id=go,target=/c", FILES);
    let path = place.path().join("c.tar");
    engine.export_cache("go", &Destination::File(path.clone()), &cancel()).unwrap();
    let bytes = fs_err::read(&path).unwrap();
    let before = engine.open_cache("go", Hold::Alone, &cancel()).unwrap().files(&cancel()).unwrap();
    for length in [1, 100, 700, bytes.len() / 2 + 100] {
        assert!(engine.import_cache("go", &mut &bytes[..length], &cancel()).is_err(), "{length}");
    }
    let after = engine.open_cache("go", Hold::Alone, &cancel()).unwrap().files(&cancel()).unwrap();
    assert_eq!(before, after);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn files_are_listed_and_restored_one_by_one() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(&place, &engine, "id=go,target=/c,uid=9", &format!("{FILES}; mkfifo /c/pipe"));
    let from = engine.open_cache("go", Hold::Alone, &cancel()).unwrap();
    let files = from.files(&cancel()).unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["", "a", "a/b", "a/b/one", "a/link", "a/two"]);
    assert_eq!((files[0].uid, files[3].uid, files[3].mode), (9, 5, 0o4750));
    assert_eq!(files[3].mtime, 981_173_106);
    let digest = rbuild::Digest::of("one\n");
    assert_eq!(files[3].kind, CacheFileKind::File { size: 4, digest });
    let first = "a/b/one".into();
    assert_eq!(files[5].kind, CacheFileKind::HardLink { first });
    let to = engine.open_or_make_cache("copy", Hold::Alone, &cancel()).unwrap();
    let mut read = |file: &rbuild::CacheFile| {
        Ok(Box::new(from.open_file(&file.path)?) as Box<dyn std::io::Read>)
    };
    engine.restore_cache(&to, &files, &mut read, &cancel()).unwrap();
    drop(to);
    let to = engine.open_cache("copy", Hold::Alone, &cancel()).unwrap();
    assert_eq!(to.files(&cancel()).unwrap(), files);
    // Other bytes than were listed are noticed, and nothing changes.
    let mut wrong = |_: &rbuild::CacheFile| Ok(Box::new(&b"two\n"[..]) as Box<dyn std::io::Read>);
    let error = engine.restore_cache(&to, &files, &mut wrong, &cancel()).unwrap_err();
    assert!(error.to_string().contains("a/b/one is damaged"), "{error}");
    drop(to);
    let to = engine.open_cache("copy", Hold::Alone, &cancel()).unwrap();
    assert_eq!(to.files(&cancel()).unwrap(), files);
}

fn a_strangers_list_stays_inside() {
    let place = Place::new();
    let engine = place.engine();
    let outside = place.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    let cache = engine.open_or_make_cache("go", Hold::Alone, &cancel()).unwrap();
    let file = |path: &str, kind| rbuild::CacheFile {
        path: path.into(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nsec: 0,
    };
    let bytes = || CacheFileKind::File { size: 1, digest: rbuild::Digest::of("x") };
    let link = |target: &std::path::Path| CacheFileKind::Symlink { target: target.into() };
    let up = format!("../../../../../../../..{}/escaped", outside.display());
    let lists = [
        vec![file("l", link(&outside)), file("l/escaped", bytes())],
        vec![file(&up, bytes())],
        vec![file(outside.join("escaped").to_str().unwrap(), bytes())],
        vec![file("h", CacheFileKind::HardLink { first: "/etc/passwd".into() })],
    ];
    for list in lists {
        let mut read = |_: &rbuild::CacheFile| Ok(Box::new(&b"x"[..]) as Box<dyn std::io::Read>);
        // Refused, or made inside.
        let _ = engine.restore_cache(&cache, &list, &mut read, &cancel());
        assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0, "{list:?}");
    }
    assert_eq!(fs_err::metadata("/etc/passwd").unwrap().nlink(), 1);
}

fn one_in_use_is_not_removed() {
    let place = Place::new();
    let engine = place.engine();
    with_cache(&place, &engine, "id=go,target=/c", "touch /c/f");
    let held = engine.open_cache("go", Hold::Shared, &cancel()).unwrap();
    assert!(engine.cache("go").unwrap().in_use);
    let error = engine.remove_cache("go").unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    drop(held);
    engine.remove_cache("go").unwrap();
    assert_eq!(fs_err::read_dir(place.store().join("volumes")).unwrap().count(), 0);
}
