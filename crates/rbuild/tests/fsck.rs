//! Damage is found, told, and repaired where that costs nobody an image.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rbuild::{CancelToken, Checkup, Engine, Loss};

use crate::support::{BASE_STEPS, Place, build, prune_nameless, ran};

crate::tests![
    a_store_that_was_used_is_clean,
    every_flipped_file_of_an_image_is_found,
    damaged_cache_is_made_anew,
    an_image_is_never_removed,
    blobs_and_rows_are_looked_at,
    leftovers_are_no_damage,
];

fn fsck(engine: &Engine, repair: bool) -> Checkup {
    engine.fsck(repair, &CancelToken::default()).unwrap()
}

fn assert_clean(engine: &Engine) {
    assert_eq!(fsck(engine, false).damage, []);
}

/// Regular files below a directory with something in them, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() && entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Flips a bit of the file's first byte, and once more flips it back; its times stay.
fn flip(path: &Path) {
    let times = fs_err::metadata(path).unwrap();
    let byte = fs_err::read(path).unwrap()[0] ^ 1;
    let mut file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&[byte]).unwrap();
    file.file().set_modified(times.modified().unwrap()).unwrap();
}

fn trees(place: &Place) -> PathBuf {
    place.store().join("snapshots")
}

const TEXT: &str = "FROM base AS made\nRUN echo made > /made\n\
                    FROM base\nCOPY --from=made /made /\nCOPY --link file /d/\n\
                    RUN mkdir /x && echo one > /x/one && echo two > /x/two && rm /bin/vi\n";

fn place() -> (Place, Engine) {
    let place = Place::new();
    place.write("file", "f");
    let engine = place.engine();
    build(&engine, &place.request(TEXT).tag("app"));
    (place, engine)
}

fn a_store_that_was_used_is_clean() {
    let (place, engine) = place();
    let checkup = fsck(&engine, false);
    assert_eq!(checkup.damage, []);
    // The stage that was copied from is in no image.
    assert_eq!((checkup.verified, checkup.unverified), (BASE_STEPS + 3, 1));
    let other = place.request("FROM app\nRUN --mount=type=cache,target=/c touch /c/f /y\n");
    build(&engine, &other);
    let tar = rbuild::Destination::File(place.path().join("app.tar"));
    build(&engine, &place.request(TEXT).output(rbuild::Output::OciArchive(tar)));
    assert_clean(&engine);
    engine.remove_image("app", false).unwrap();
    let all = rbuild::PruneOptions { all: true, ..rbuild::PruneOptions::default() };
    engine.prune(&all, &rbuild::Silent, &CancelToken::default()).unwrap();
    assert_clean(&engine);
}

fn every_flipped_file_of_an_image_is_found() {
    let (place, engine) = place();
    let mut count = 0;
    let rows = engine.rows().unwrap();
    // Of the stage that is in no image nobody knows what was in it.
    for row in rows.iter().filter(|row| row.shared) {
        let tree = trees(&place).join(&row.id).join("fs");
        if tree.is_symlink() {
            continue;
        }
        for file in files(&tree) {
            flip(&file);
            let checkup = fsck(&engine, false);
            let found: Vec<_> = checkup.damage.iter().map(|(damage, _)| damage).collect();
            assert_eq!(found.len(), 1, "{}: {found:?}", file.display());
            assert_eq!(found[0].loss, Loss::Image);
            assert_eq!(found[0].images, ["app:latest"]);
            assert!(found[0].subject.contains(&row.id), "{found:?}");
            flip(&file);
            count += 1;
        }
    }
    assert!(count >= 5, "{count}");
    // Names, modes and links count as much as bytes.
    let one = files(&trees(&place)).into_iter().find(|path| path.ends_with("x/one")).unwrap();
    fs_err::remove_file(&one).unwrap();
    let damage = fsck(&engine, false).damage;
    assert!(damage[0].0.way_out().contains("rbuild rmi app:latest"), "{damage:?}");
}

fn damaged_cache_is_made_anew() {
    let (place, engine) = place();
    engine.remove_image("app", false).unwrap();
    let one = files(&trees(&place)).into_iter().find(|path| path.ends_with("x/one")).unwrap();
    flip(&one);
    let found = fsck(&engine, false).damage;
    assert_eq!((found.len(), found[0].0.loss, found[0].1), (1, Loss::Cache, false), "{found:?}");
    let repaired = fsck(&engine, true).damage;
    assert_eq!((repaired.len(), repaired[0].1), (1, true), "{repaired:?}");
    assert_clean(&engine);
    let again = build(&engine, &place.request(TEXT).tag("app"));
    assert_eq!(ran(&again).len(), 1, "{:?}", ran(&again));
    assert_eq!(place.sh(&engine, "app", "cat /x/one"), "one\n");
    // What stands on a damaged tree goes with it.
    engine.remove_image("app", false).unwrap();
    let busybox = files(&trees(&place)).into_iter().find(|path| path.ends_with("bin/busybox"));
    flip(&busybox.unwrap());
    fsck(&engine, true);
    assert_clean(&engine);
    let again = build(&engine, &place.request(TEXT).tag("app"));
    assert!(ran(&again).len() >= BASE_STEPS, "{:?}", ran(&again));
    assert_clean(&engine);
}

fn an_image_is_never_removed() {
    let (place, engine) = place();
    let one = files(&trees(&place)).into_iter().find(|path| path.ends_with("x/one")).unwrap();
    flip(&one);
    for _ in 0..2 {
        let damage = fsck(&engine, true).damage;
        assert_eq!((damage.len(), damage[0].0.loss, damage[0].1), (1, Loss::Image, false));
    }
    assert!(one.exists() && engine.find_image("app").is_ok());
    // But nothing is built upon it any more, and the image of the next build is whole.
    let again = build(&engine, &place.request(TEXT).tag("app"));
    assert_eq!(ran(&again).len(), 1, "{:?}", ran(&again));
    prune_nameless(&engine);
    assert_eq!(place.sh(&engine, "app", "cat /x/one"), "one\n");
    fsck(&engine, true);
    assert_clean(&engine);
    assert_eq!(place.sh(&engine, "app", "cat /x/one"), "one\n");
}

fn blobs_and_rows_are_looked_at() {
    let (place, engine) = place();
    let index = || rusqlite::Connection::open(place.store().join("index.db")).unwrap();
    let blobs = files(&place.store().join("blobs"));
    flip(&blobs[0]);
    let damage = fsck(&engine, true).damage;
    assert!(damage.iter().all(|(damage, _)| damage.loss == Loss::Image), "{damage:?}");
    assert!(damage.iter().any(|(damage, _)| damage.subject.starts_with("blob ")), "{damage:?}");
    flip(&blobs[0]);
    assert_clean(&engine);
    // A row is made anew of what lies beside its tree.
    index().execute("UPDATE snapshots SET body = x'00' WHERE chain_id IS NOT NULL", []).unwrap();
    let damage = fsck(&engine, true).damage;
    assert!(damage.iter().any(|(damage, done)| damage.problem.contains("row") && *done));
    assert_clean(&engine);
    place.sh(&engine, "app", "true");
    index().execute("UPDATE records SET body = x'00' WHERE seq % 2 = 0", []).unwrap();
    let damage = fsck(&engine, true).damage;
    assert!(damage.iter().any(|(damage, done)| damage.subject.starts_with("record") && *done));
    assert_clean(&engine);
    // And what lies beside it is made anew of the row.
    let json = fs_err::read_dir(trees(&place)).unwrap().map(|entry| entry.unwrap().path());
    let json = json.into_iter().find(|path| path.extension().is_some()).unwrap();
    fs_err::write(&json, "{}").unwrap();
    assert_eq!(fsck(&engine, true).damage.len(), 1);
    assert_clean(&engine);
    // A tree that is gone.
    engine.remove_image("app", false).unwrap();
    fs_err::remove_dir_all(json.with_extension("")).unwrap();
    assert!(!fsck(&engine, true).damage.is_empty());
    assert_clean(&engine);
    build(&engine, &place.request(TEXT).tag("app"));
    assert_clean(&engine);
}

fn leftovers_are_no_damage() {
    let (place, engine) = place();
    fs_err::create_dir_all(trees(&place).join("0123/fs")).unwrap();
    fs_err::write(trees(&place).join("4567.json"), "x").unwrap();
    let index = rusqlite::Connection::open(place.store().join("index.db")).unwrap();
    index.execute("INSERT INTO aliases VALUES (zeroblob(32), zeroblob(32))", []).unwrap();
    index.execute("UPDATE sizes SET bytes = bytes * 2 WHERE kind = 'snapshot'", []).unwrap();
    let damage = fsck(&engine, false).damage;
    assert_eq!(damage.len(), 4, "{damage:?}");
    assert!(damage.iter().all(|(damage, _)| damage.loss == Loss::Leftover), "{damage:?}");
    assert!(fsck(&engine, true).damage.iter().all(|(_, repaired)| *repaired));
    assert_clean(&engine);
    assert!(!trees(&place).join("0123").exists() && !trees(&place).join("4567.json").exists());
}
