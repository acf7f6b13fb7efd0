//! Cache mounts that go to caches elsewhere, and come back into other stores.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rbuild::{
    BuildRequest, Built, CacheExport, CacheFile, CacheImport, CacheLocation, CacheMounts,
    CancelToken, CopyPlace, Engine, Event, Hold, Output,
};
use serde_json::Value;

use crate::build_push::Registry;
use crate::build_remote_cache::{engine, traffic};
use crate::support::{Events, Place, explain, ran};
use crate::tests;
use crate::web::Web;

tests![
    a_cache_mount_comes_back_with_all_that_it_has,
    a_build_that_runs_nothing_takes_no_cache_mount,
    a_registry_keeps_cache_mounts,
    of_writers_of_one_cache_mount_one_is_last,
    what_a_killed_build_left_is_not_taken_for_whole,
    changed_small_files_are_a_small_upload,
    a_change_inside_a_large_file_is_a_small_upload,
    what_did_not_change_is_not_sent,
    local_work_is_not_replaced,
    an_unused_cache_mount_follows_the_cache,
    a_damaged_pack_is_a_warning_and_is_sent_anew,
    a_pack_that_is_gone_is_sent_again,
    a_cache_that_refuses_for_a_while_keeps_its_mount,
    a_list_that_is_no_list_is_a_warning,
    writers_of_different_cache_mounts_lose_nothing,
    a_local_cache_keeps_the_packs_that_it_names_and_no_others,
    all_cache_mounts_of_the_steps_go_with_a_star,
    a_cache_mount_that_is_not_there_is_told,
    a_cache_mount_in_use_is_left_out,
    a_seed_is_not_copied_over_what_came,
    two_caches_get_the_same_cache_mount,
    a_cache_that_says_nothing_gets_no_cache_mount,
    a_failed_build_sends_no_cache_mount,
];

fn cancel() -> CancelToken {
    CancelToken::default()
}

fn at(place: &Place) -> CacheLocation {
    let path = place.path().join("cache");
    CacheLocation::Local { path, tag: "latest".to_owned(), digest: None }
}

fn id(id: &str) -> CacheMounts {
    CacheMounts::Id(id.to_owned())
}

/// A build that sends these cache mounts.
fn sending(
    place: &Place,
    text: &str,
    location: CacheLocation,
    mounts: &[CacheMounts],
) -> BuildRequest {
    let mounts = mounts.to_vec();
    let export = CacheExport { must_succeed: true, mounts, ..CacheExport::new(location) };
    BuildRequest { cache_to: vec![export], ..place.request(text) }.output(Output::CacheOnly)
}

/// A build that takes them.
fn taking(place: &Place, text: &str, location: CacheLocation) -> BuildRequest {
    let cache_from = vec![CacheImport { location }];
    BuildRequest { cache_from, ..place.request(text) }.output(Output::CacheOnly)
}

/// Builds; the notices too.
fn build(engine: &Engine, request: &BuildRequest) -> (Built, Vec<String>) {
    let events = Events::default();
    let built = engine
        .build(request, &events, &cancel())
        .unwrap_or_else(|error| panic!("{}", explain(&error)));
    let message = |event| match event {
        Event::Notice { message } => Some(message),
        _ => None,
    };
    (built, events.take().into_iter().filter_map(message).collect())
}

/// Builds without any notice.
fn quietly(engine: &Engine, request: &BuildRequest) -> Built {
    let (built, notices) = build(engine, request);
    assert_eq!(notices, Vec::<String>::new());
    built
}

/// A step that runs this with a cache mount at `/c`.
fn step(id: &str, script: &str) -> String {
    format!("RUN --mount=type=cache,id={id},target=/c {script}\n")
}

/// What is in a cache mount; nobody's use is noted.
fn files(engine: &Engine, id: &str) -> Vec<CacheFile> {
    engine.open_cache(id, Hold::Shared, &cancel()).unwrap().files(&cancel()).unwrap()
}

/// Copies files into a cache mount.
fn write(place: &Place, engine: &Engine, id: &str, files: &[(String, Vec<u8>)]) {
    drop(engine.open_or_make_cache(id, Hold::Alone, &cancel()).unwrap());
    let directory = tempfile::tempdir_in(place.path()).unwrap();
    for (path, bytes) in files {
        let path = directory.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes).unwrap();
    }
    let from = CopyPlace::Local(directory.path().join("."));
    let to = CopyPlace::Cache { id: id.to_owned(), path: "/".to_owned() };
    engine.copy_files(&from, &to, crate::cache_mounts::options(false), &cancel()).unwrap();
}

/// Bytes that nothing compresses, always the same ones.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}

/// All that a manifest of the cache names.
fn named(place: &Place) -> Vec<Value> {
    let cache = place.path().join("cache");
    let read =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let index = read(cache.join("index.json"));
    let manifest = read(blob(place, &index["manifests"][0]["digest"]));
    manifest["layers"].as_array().unwrap().clone()
}

fn blob(place: &Place, digest: &Value) -> PathBuf {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    place.path().join("cache/blobs/sha256").join(hex)
}

/// The files of packs, or of lists.
fn of_type(place: &Place, part: &str) -> Vec<PathBuf> {
    let is = |layer: &&Value| layer["mediaType"].as_str().unwrap().contains(part);
    named(place).iter().filter(is).map(|layer| blob(place, &layer["digest"])).collect()
}

fn blobs(place: &Place) -> BTreeSet<PathBuf> {
    let entries = fs_err::read_dir(place.path().join("cache/blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

const ALL_KINDS: &str = "cd /c && mkdir -p a/b 'with space' && echo one > a/b/one && \
     ln a/b/one a/two && ln -s ../x a/link && chown -R 5:6 a && chmod 4750 a/b/one && : > empty && \
     head -c 3000000 /dev/urandom > large && touch -d '2001-02-03 04:05:06' a/b/one a/b && \
     printf x > \"$(printf 'no\\377utf8')\" && mkfifo pipe && chmod 1777 .";

fn a_cache_mount_comes_back_with_all_that_it_has() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let text = step("pip", ALL_KINDS);
    let first = quietly(&warm, &sending(&place, &text, at(&place), &[id("pip")]));
    assert!(traffic(&first).sent_mount_bytes > 3_000_000, "{:?}", traffic(&first));
    let cold = engine(&place, "cold");
    let seen = step("pip", "test -u /c/a/two -a $(stat -c %h,%u /c/a/two) = 2,5 -a ! -e /c/pipe");
    let second = quietly(&cold, &taking(&place, &seen, at(&place)));
    assert_eq!(ran(&second).len(), 1, "{:?}", ran(&second));
    let fetched = traffic(&second).fetched_mount_bytes;
    assert_eq!(fetched, traffic(&first).sent_mount_bytes);
    let found = files(&cold, "pip");
    assert_eq!(found, files(&warm, "pip"));
    assert_eq!(found.len(), 10, "{found:?}");
    assert_eq!(place.leftovers_of("cold"), Vec::<String>::new());
    // A mount of the same id with another owner is another one.
    let other = "RUN --mount=type=cache,id=pip,uid=7,target=/c test -z \"$(ls /c)\"\n";
    quietly(&cold, &taking(&place, other, at(&place)));
}

fn a_build_that_runs_nothing_takes_no_cache_mount() {
    let place = Place::new();
    let text = step("pip", "echo here > /c/file");
    quietly(&engine(&place, "warm"), &sending(&place, &text, at(&place), &[id("pip")]));
    let cold = engine(&place, "cold");
    let request = BuildRequest {
        cache_to: sending(&place, &text, at(&place), &[id("pip")]).cache_to,
        ..taking(&place, &text, at(&place))
    };
    // Nor is it missed where it already is.
    let second = quietly(&cold, &request);
    assert_eq!((second.executed, traffic(&second).fetched_mount_bytes), (0, 0));
    assert_eq!(cold.caches().unwrap().len(), 0);
    let text = format!("{text}{}", step("pip", "cat /c/file"));
    assert!(traffic(&quietly(&cold, &taking(&place, &text, at(&place)))).fetched_mount_bytes > 0);
    // A build that uses nothing of earlier ones starts with nothing.
    let request = taking(&place, &step("pip", "test ! -e /c/file"), at(&place)).no_cache();
    quietly(&engine(&place, "other"), &request);
}

/// Sends a cache mount to this place, a changed one after it, and takes that elsewhere.
pub fn comes_back(location: &CacheLocation) {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let request = |script| sending(&place, &step("pip", script), location.clone(), &[id("pip")]);
    let first = traffic(&quietly(&warm, &request(ALL_KINDS))).sent_mount_bytes;
    let again = traffic(&quietly(&warm, &request(ALL_KINDS))).sent_mount_bytes;
    let changed = "echo other > /c/a/b/one; rm -r '/c/with space'";
    let second = traffic(&quietly(&warm, &request(changed))).sent_mount_bytes;
    assert!(again == 0 && second > 0 && second * 10 < first, "{first} {again} {second}");
    let cold = engine(&place, "cold");
    let taken = taking(&place, &step("pip", "grep other /c/a/two"), location.clone());
    quietly(&cold, &taken);
    assert_eq!(files(&cold, "pip"), files(&warm, "pip"));
}

fn a_registry_keeps_cache_mounts() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry);
    comes_back(&location);
    let warm = engine(&place, "warm");
    let text = step("pip", ALL_KINDS);
    let request = sending(&place, &text, location.clone(), &[id("pip")]);
    quietly(&warm, &request);
    // What the manifest names the registry keeps.
    let manifest = registry.manifest("team/app", "cache").to_string();
    assert!(manifest.contains("cache.mount.list") && manifest.contains("cache.mount.pack"));
    registry.asked();
    assert_eq!(traffic(&quietly(&warm, &request)).sent_mount_bytes, 0);
    let asked = registry.asked();
    assert!(!asked.iter().any(|asked| asked.starts_with("P")), "{asked:?}");
}

fn in_registry(registry: &Registry) -> CacheLocation {
    let reference = registry.name("team/app:cache").parse().unwrap();
    CacheLocation::Registry { reference, insecure: false }
}

fn of_writers_of_one_cache_mount_one_is_last() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry);
    let names = ["one", "two", "three"];
    std::thread::scope(|scope| {
        for name in names {
            let (place, location) = (&place, location.clone());
            scope.spawn(move || {
                let text = step("pip", &format!("echo {name} | tee /c/{name} > /c/file"));
                quietly(&engine(place, name), &sending(place, &text, location, &[id("pip")]));
            });
        }
    });
    let cold = engine(&place, "cold");
    quietly(&cold, &taking(&place, &step("pip", "cat /c/$(cat /c/file)"), location));
    // That one's alone, and all of it.
    assert_eq!(files(&cold, "pip").len(), 3);
}

fn what_a_killed_build_left_is_not_taken_for_whole() {
    let place = Place::new();
    let text = step("pip", "echo here > /c/file");
    quietly(&engine(&place, "warm"), &sending(&place, &text, at(&place), &[id("pip")]));
    let cold = engine(&place, "cold");
    // It had the lock, had said what the mount is, and was putting it together beside.
    drop(cold.open_or_make_cache("pip", Hold::Alone, &cancel()).unwrap());
    let name = cold.cache("pip").unwrap().name;
    fs_err::remove_dir(place.path().join("cold/volumes").join(name)).unwrap();
    let half = place.path().join("cold/tmp/dead/cache-1/fs");
    fs_err::create_dir_all(&half).unwrap();
    fs_err::write(half.join("fi"), "he").unwrap();
    drop(cold);
    let cold = engine(&place, "cold");
    quietly(&cold, &taking(&place, &step("pip", "test $(ls /c) = file"), at(&place)));
    assert_eq!(place.leftovers_of("cold"), Vec::<String>::new());
}

/// Sends a cache mount, changes it, and sends it again: the bytes of both.
fn twice(before: &[(String, Vec<u8>)], after: &[(String, Vec<u8>)]) -> (u64, u64) {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let request = sending(&place, "", at(&place), &[id("pip")]);
    write(&place, &warm, "pip", before);
    let first = traffic(&quietly(&warm, &request)).sent_mount_bytes;
    write(&place, &warm, "pip", after);
    let second = traffic(&quietly(&warm, &request)).sent_mount_bytes;
    let cold = engine(&place, "cold");
    quietly(&cold, &taking(&place, &step("pip", "true"), at(&place)));
    assert_eq!(files(&cold, "pip"), files(&warm, "pip"));
    (first, second)
}

fn changed_small_files_are_a_small_upload() {
    let file = |number: u64, seed: u64| {
        let length = 1000 + (number as usize * 7919) % 6000;
        (format!("{:02}/{number}", number % 40), noise(seed, length))
    };
    let before: Vec<_> = (0..2000).map(|number| file(number, number)).collect();
    let after: Vec<_> = (0..20).map(|n| file(n * 97 + 5, n + 10_000)).collect();
    let (first, second) = twice(&before, &after);
    eprintln!("2000 small files: {first} bytes, then {second} after 1 % changed");
    assert!(second > 0 && second * 10 < first, "{second} of {first}");
}

fn a_change_inside_a_large_file_is_a_small_upload() {
    let large = noise(1, 24 << 20);
    let one = |bytes: Vec<u8>| vec![("dir/large".to_owned(), bytes)];
    let part = large.len() / 100;
    let mut over = large.clone();
    over[10 << 20..(10 << 20) + part].copy_from_slice(&noise(2, part));
    let mut appended = large.clone();
    appended.extend(noise(3, part));
    let mut inserted = large.clone();
    inserted.splice(5_000_000..5_000_000, noise(4, part));
    for (how, changed) in [("overwritten", over), ("appended", appended), ("inserted", inserted)] {
        let (first, second) = twice(&one(large.clone()), &one(changed));
        eprintln!("one file of 24 MiB: {first} bytes, then {second} after 1 % {how}");
        assert!(second > 0 && second * 10 < first, "{how}: {second} of {first}");
    }
}

fn what_did_not_change_is_not_sent() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let text = step("pip", "echo same > /c/file");
    let request = sending(&place, &text, at(&place), &[id("pip")]);
    quietly(&warm, &request);
    let before = blobs(&place);
    // Not used since.
    assert_eq!(traffic(&quietly(&warm, &request)).sent_mount_bytes, 0);
    assert_eq!(blobs(&place), before);
    // Used, and unchanged.
    let request = sending(&place, &step("pip", "cat /c/file"), at(&place), &[id("pip")]);
    assert_eq!(traffic(&quietly(&warm, &request)).sent_mount_bytes, 0);
    assert_eq!(of_type(&place, ".pack.").len(), 1);
    // Another time of one file is another list and no pack.
    let packs = of_type(&place, ".pack.");
    let text = step("pip", "touch -d '2001-02-03 04:05:06' /c/file");
    let built = quietly(&warm, &sending(&place, &text, at(&place), &[id("pip")]));
    let sent = traffic(&built).sent_mount_bytes;
    assert!(sent > 0 && sent < 1000, "{sent}");
    assert_eq!(of_type(&place, ".pack."), packs);
}

fn local_work_is_not_replaced() {
    let place = Place::new();
    let cold = engine(&place, "cold");
    quietly(&cold, &place.request(&step("pip", "echo mine > /c/mine")));
    let text = step("pip", "echo theirs > /c/theirs");
    quietly(&engine(&place, "warm"), &sending(&place, &text, at(&place), &[id("pip")]));
    let text = step("pip", "test -e /c/mine -a ! -e /c/theirs");
    quietly(&cold, &taking(&place, &text, at(&place)));
    // An empty one is none.
    quietly(&cold, &place.request(&step("pip", "rm /c/mine")));
    quietly(&cold, &taking(&place, &step("pip", "test -e /c/theirs"), at(&place)));
}

fn an_unused_cache_mount_follows_the_cache() {
    let place = Place::new();
    let (one, two) = (engine(&place, "one"), engine(&place, "two"));
    let send = |engine: &Engine, script: &str| {
        let mut request = sending(&place, &step("pip", script), at(&place), &[id("pip")]);
        request.cache_from = taking(&place, "", at(&place)).cache_from;
        quietly(engine, &request);
    };
    let take = |engine: &Engine, script: &str| {
        quietly(engine, &taking(&place, &step("pip", script), at(&place)));
    };
    send(&one, "echo 1 > /c/first");
    // The other one goes on where this one ended, and this one there.
    send(&two, "cat /c/first && echo 2 > /c/second");
    send(&one, "cat /c/second && echo 3 > /c/third");
    // What was used without being sent is local work.
    take(&two, "cat /c/third && echo 4 > /c/fourth");
    send(&one, "echo 5 > /c/fifth");
    take(&two, "test -e /c/fourth -a ! -e /c/fifth");
}

fn a_damaged_pack_is_a_warning_and_is_sent_anew() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    write(&place, &warm, "pip", &[("file".to_owned(), noise(1, 100_000))]);
    quietly(&warm, &sending(&place, "", at(&place), &[id("pip")]));
    let pack = of_type(&place, ".pack.").remove(0);
    let mut bytes = fs_err::read(&pack).unwrap();
    bytes[50_000] ^= 1;
    fs_err::write(&pack, &bytes).unwrap();
    let cold = engine(&place, "cold");
    let text = step("pip", "test ! -e /c/file");
    let (built, notices) = build(&cold, &taking(&place, &text, at(&place)));
    assert_eq!(ran(&built).len(), 1, "{:?}", ran(&built));
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(
        notices[0].starts_with("cache mount pip is not taken from the cache in"),
        "{notices:?}"
    );
    assert_eq!(place.leftovers_of("cold"), Vec::<String>::new());
    // One that is gone too.
    fs_err::remove_file(&pack).unwrap();
    let (_, notices) = build(&engine(&place, "third"), &taking(&place, &text, at(&place)));
    assert!(notices[0].contains("is not there"), "{notices:?}");
    // Who notices and has the files makes it whole again.
    fs_err::write(&pack, &bytes).unwrap();
    let text = step("pip", "cp /etc/made /c/file");
    let mut request =
        sending(&place, &format!("COPY made /etc/\n{text}"), at(&place), &[id("pip")]);
    place.write("made", noise(1, 100_000));
    request.cache_from = taking(&place, "", at(&place)).cache_from;
    let (_, notices) = build(&engine(&place, "fourth"), &request);
    assert_eq!(notices.len(), 1, "{notices:?}");
    quietly(&engine(&place, "fifth"), &taking(&place, &step("pip", "test -e /c/file"), at(&place)));
}

fn a_cache_that_refuses_for_a_while_keeps_its_mount() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry);
    let text = step("pip", "echo much > /c/much");
    quietly(&engine(&place, "warm"), &sending(&place, &text, location.clone(), &[id("pip")]));
    let manifest = registry.manifest("team/app", "cache");
    let layers = manifest["layers"].as_array().unwrap();
    let is_pack = |layer: &&serde_json::Value| {
        layer["mediaType"].as_str().unwrap().contains("cache.mount.pack")
    };
    let pack = layers.iter().find(is_pack).unwrap()["digest"].as_str().unwrap();
    registry.refuse(pack, true);
    let text = step("pip", "echo little > /c/little");
    let mut request = sending(&place, &text, location.clone(), &[id("pip")]);
    request.cache_from = taking(&place, "", location.clone()).cache_from;
    let (_, notices) = build(&engine(&place, "cold"), &request);
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[1].contains("does not replace what is there"), "{notices:?}");
    registry.refuse(pack, false);
    let text = step("pip", "test -e /c/much && test ! -e /c/little");
    quietly(&engine(&place, "third"), &taking(&place, &text, location));
}

fn a_pack_that_is_gone_is_sent_again() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let send = |script: &str| {
        let request = sending(&place, &step("pip", script), at(&place), &[id("pip")]);
        traffic(&quietly(&warm, &request)).sent_mount_bytes
    };
    let first = send("head -c 100000 /dev/urandom > /c/file");
    let pack = of_type(&place, ".pack.").remove(0);
    // As a rule for old objects does it. With the same files, and with others.
    for (script, new_list) in [("cat /c/file > /dev/null", false), ("touch /c/new", true)] {
        fs_err::remove_file(&pack).unwrap();
        let sent = send(script);
        assert!(sent > 100_000 && (new_list || sent < first), "{script}: {sent} of {first}");
        assert!(pack.exists(), "{script}");
    }
    let text = step("pip", "test $(stat -c %s /c/file) = 100000 -a -e /c/new");
    quietly(&engine(&place, "cold"), &taking(&place, &text, at(&place)));
}

fn a_list_that_is_no_list_is_a_warning() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let text = step("pip", "echo here > /c/file");
    quietly(&warm, &sending(&place, &text, at(&place), &[id("pip")]));
    let list = of_type(&place, ".list.").remove(0);
    let length = fs_err::metadata(&list).unwrap().len() as usize;
    fs_err::write(&list, vec![b'x'; length]).unwrap();
    let text = step("pip", "test ! -e /c/file");
    let (_, notices) = build(&engine(&place, "cold"), &taking(&place, &text, at(&place)));
    assert!(notices.len() == 1 && notices[0].contains("has digest"), "{notices:?}");
    // Whoever sends starts anew.
    let text = step("pip", "echo more > /c/more");
    quietly(&warm, &sending(&place, &text, at(&place), &[id("pip")]));
    let text = step("pip", "test -e /c/file -a -e /c/more");
    quietly(&engine(&place, "other"), &taking(&place, &text, at(&place)));
}

fn writers_of_different_cache_mounts_lose_nothing() {
    let place = Place::new();
    let names = ["pip", "apt", "go", "npm"];
    std::thread::scope(|scope| {
        for name in names {
            let place = &place;
            scope.spawn(move || {
                let text = step(name, &format!("echo {name} > /c/file"));
                let request = sending(place, &text, at(place), &[id(name)]);
                quietly(&engine(place, name), &request);
            });
        }
    });
    let cold = engine(&place, "cold");
    for name in names {
        let text = step(name, &format!("grep {name} /c/file"));
        quietly(&cold, &taking(&place, &text, at(&place)));
    }
}

fn a_local_cache_keeps_the_packs_that_it_names_and_no_others() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let request = sending(&place, "", at(&place), &[id("pip")]);
    let send = |seeds: std::ops::Range<u64>| {
        let name = |seed: u64| (format!("{}", seed % 10), noise(seed, 50_000));
        write(&place, &warm, "pip", &seeds.map(name).collect::<Vec<_>>());
        quietly(&warm, &request);
        of_type(&place, ".pack.")
    };
    let first = send(0..10);
    assert_eq!(first.len(), 1);
    // A third of it changes: it is still of use.
    let second = send(10..13);
    assert!(second.len() == 2 && second.contains(&first[0]), "{second:?}");
    // More than half: what is left of it is sent anew.
    let third = send(13..16);
    assert!(!third.contains(&first[0]), "{third:?}");
    let packs: u64 = third.iter().map(|pack| fs_err::metadata(pack).unwrap().len()).sum();
    assert!(packs < 700_000, "{packs}");
    let mut expected: BTreeSet<_> =
        named(&place).iter().map(|layer| blob(&place, &layer["digest"])).collect();
    let index: Value =
        serde_json::from_slice(&fs_err::read(place.path().join("cache/index.json")).unwrap())
            .unwrap();
    let manifest = blob(&place, &index["manifests"][0]["digest"]);
    let read: Value = serde_json::from_slice(&fs_err::read(&manifest).unwrap()).unwrap();
    expected.extend([manifest, blob(&place, &read["config"]["digest"])]);
    assert_eq!(blobs(&place), expected);
}

fn all_cache_mounts_of_the_steps_go_with_a_star() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    write(&place, &warm, "unused", &[("file".to_owned(), noise(1, 10))]);
    let text = format!(
        "{}RUN --mount=type=cache,target=/root/.cache touch /root/.cache/file\n",
        step("pip", "touch /c/file")
    );
    quietly(&warm, &sending(&place, &text, at(&place), &[CacheMounts::Named]));
    assert_eq!(of_type(&place, ".list.").len(), 2);
    let cold = engine(&place, "cold");
    let text = format!(
        "{}RUN --mount=type=cache,target=/root/.cache test -e /root/.cache/file\n{}",
        step("pip", "test -e /c/file"),
        step("unused", "test ! -e /c/file"),
    );
    quietly(&cold, &taking(&place, &text, at(&place)));
}

fn a_cache_mount_that_is_not_there_is_told() {
    let place = Place::new();
    let request = sending(&place, "", at(&place), &[id("pipp")]);
    let (_, notices) = build(&place.engine(), &request);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("there is no cache mount pipp"), "{notices:?}");
}

fn a_cache_mount_in_use_is_left_out() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    write(&place, &warm, "pip", &[("file".to_owned(), noise(1, 10))]);
    let request = sending(&place, "", at(&place), &[id("pip")]);
    let held = warm.open_cache("pip", Hold::Shared, &cancel()).unwrap();
    let (built, notices) = build(&warm, &request);
    assert_eq!(traffic(&built).sent_mount_bytes, 0);
    assert!(notices[0].starts_with("cache mount pip is in use elsewhere"), "{notices:?}");
    drop(held);
    assert!(traffic(&quietly(&warm, &request)).sent_mount_bytes > 0);
}

fn two_caches_get_the_same_cache_mount() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let registry = Registry::start();
    let both = [at(&place), in_registry(&registry)];
    let request = |script: &str| {
        let send = |location: &CacheLocation| {
            sending(&place, &step("pip", script), location.clone(), &[id("pip")]).cache_to.remove(0)
        };
        let cache_to = both.iter().map(send).collect();
        BuildRequest { cache_to, ..place.request(&step("pip", script)) }.output(Output::CacheOnly)
    };
    // Neither keeps the other from reading it.
    let first = traffic(&quietly(&warm, &request("echo here > /c/file"))).sent_mount_bytes;
    assert!(first > 0);
    assert_eq!(traffic(&quietly(&warm, &request("echo here > /c/file"))).sent_mount_bytes, 0);
    for (number, location) in both.into_iter().enumerate() {
        let cold = engine(&place, &format!("cold-{number}"));
        quietly(&cold, &taking(&place, &step("pip", "grep here /c/file"), location));
    }
}

fn a_cache_that_says_nothing_gets_no_cache_mount() {
    let place = Place::new();
    let silent = Web::start(|_| {
        loop {
            std::thread::park();
        }
    });
    let reference = format!("{}/team/app:cache", silent.address).parse().unwrap();
    let location = CacheLocation::Registry { reference, insecure: false };
    let warm = engine(&place, "warm");
    write(&place, &warm, "pip", &[("file".to_owned(), noise(1, 10))]);
    let mut request = sending(&place, "", location, &[id("pip")]);
    // Without layers nothing else is late.
    request = BuildRequest {
        cache_to: request.cache_to,
        ..BuildRequest::new(place.context()).dockerfile_text("FROM scratch\nLABEL a=b\n")
    };
    request.cache_to[0].timeout = std::time::Duration::ZERO;
    request.cache_to[0].must_succeed = false;
    let (built, notices) = build(&warm, &request.output(Output::CacheOnly));
    assert_eq!((notices.len(), traffic(&built).sent_mount_bytes), (1, 0), "{notices:?}");
    assert!(notices[0].contains("its cache mounts did not get there in time"), "{notices:?}");
}

fn a_seed_is_not_copied_over_what_came() {
    let place = Place::new();
    place.write("seeded", "seed\n");
    let text = |script: &str| {
        format!(
            "FROM base AS seed\nCOPY seeded /c/seeded\nFROM base\n\
             RUN --mount=type=cache,id=pip,target=/c,from=seed,source=/c {script}\n"
        )
    };
    let warm = engine(&place, "warm");
    let first = text("rm /c/seeded && touch /c/new");
    quietly(&warm, &sending(&place, &first, at(&place), &[id("pip")]));
    let second = text("test ! -e /c/seeded -a -e /c/new");
    quietly(&engine(&place, "cold"), &taking(&place, &second, at(&place)));
    // Another seed is another cache mount.
    place.write("seeded", "other\n");
    let third = text("test -e /c/seeded -a ! -e /c/new");
    quietly(&engine(&place, "other"), &taking(&place, &third, at(&place)));
}

fn a_failed_build_sends_no_cache_mount() {
    let place = Place::new();
    let text = step("pip", "touch /c/file && false");
    let request = sending(&place, &text, at(&place), &[id("pip")]);
    place.engine().build(&request, &Events::default(), &cancel()).unwrap_err();
    assert!(!place.path().join("cache/index.json").exists());
}
