//! Files of a copy that did not change are those of the earlier layer.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rbuild::{CancelToken, Engine, EngineOptions, NoCache, PruneOptions, Silent};
use rbuild_cache::{Snapshot, Store};

use crate::support::{Place, build, prune_nameless, ran};
use crate::tests;

tests![
    an_edit_leaves_the_other_files_where_they_are,
    a_layer_does_not_show_what_it_shares,
    a_step_that_writes_a_shared_file_changes_no_layer,
    a_copy_without_cache_writes_everything,
    shared_files_outlive_the_layer_that_they_came_from,
];

const TEXT: &str = "\
FROM base
WORKDIR /app
RUN echo below > own.txt && mkdir -p deep/er
COPY src .
RUN cat edited.txt > /seen
";

fn place() -> Place {
    let place = Place::new();
    for (name, content) in [
        ("same.txt", "same"),
        ("edited.txt", "before"),
        ("deep/er/same.txt", "deep"),
        ("new/same.txt", "new"),
    ] {
        place.write(&format!("src/{name}"), content);
    }
    fs_err::hard_link(place.context().join("src/same.txt"), place.context().join("src/twin.txt"))
        .unwrap();
    place
}

/// What copies of `src` have made, newest first.
fn copies(store: &Store) -> Vec<Snapshot> {
    let mut records = store.records().list().unwrap();
    records.retain(|record| record.step_name.ends_with("COPY src ."));
    let snapshot = |id: &_| store.snapshots().meta(id).unwrap();
    let made = records.iter().rev().filter_map(|record| record.snapshot.as_ref());
    made.filter_map(snapshot).collect()
}

/// Where `/app` of these is.
fn layers(place: &Place) -> Vec<PathBuf> {
    let store = Store::open(place.store()).unwrap();
    let layer = |copy: &Snapshot| store.snapshots().path(&copy.id).join("fs/app");
    copies(&store).iter().map(layer).collect()
}

fn inodes(place: &Place, name: &str) -> Vec<u64> {
    let inode = |layer: &PathBuf| fs_err::metadata(layer.join(name)).unwrap().ino();
    layers(place).iter().map(inode).collect()
}

/// Whether files share blocks here and so are not one inode.
fn can_clone(place: &Place) -> bool {
    let file = fs_err::File::create(place.path().join("clone")).unwrap();
    let from = fs_err::File::open(place.context().join("busybox")).unwrap();
    rustix::fs::ioctl_ficlone(file, from).is_ok()
}

fn an_edit_leaves_the_other_files_where_they_are() {
    let place = place();
    let engine = place.engine();
    place.build(&engine, TEXT);
    place.write("src/edited.txt", "after");
    let second = build(&engine, &place.request(TEXT).tag("app"));
    assert_eq!(ran(&second).len(), 2, "{:?}", ran(&second));
    assert_eq!(place.sh(&engine, "app", "cat /seen /app/same.txt"), "aftersame");
    if can_clone(&place) {
        return;
    }
    for name in ["deep/er/same.txt", "new/same.txt"] {
        let [new, old] = inodes(&place, name)[..] else { panic!("{:?}", layers(&place)) };
        assert_eq!(new, old, "{name}");
    }
    let [new, old] = inodes(&place, "edited.txt")[..] else { panic!() };
    assert_ne!(new, old);
    // Two names of one file stay that, and no more.
    let [new, twin] = [inodes(&place, "same.txt"), inodes(&place, "twin.txt")];
    assert_eq!(new, twin);
    assert_ne!(new[0], new[1]);
}

fn a_layer_does_not_show_what_it_shares() {
    let place = place();
    place.write("below/own.txt", "below");
    place.write("below/deep/other.txt", "below");
    // What a step runs leaves times behind, so there is none.
    let text = "FROM base\nWORKDIR /app\nCOPY below .\nCOPY src .\n";
    let again = |engine: &Engine| {
        build(engine, &place.request(text).arg("SOURCE_DATE_EPOCH", "1234567890"));
    };
    let engine = place.engine();
    again(&engine);
    place.write("src/edited.txt", "after");
    place.write("src/new/more.txt", "more");
    let mode = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(place.context().join("src/deep/er/same.txt"), mode).unwrap();
    fs_err::remove_file(place.context().join("src/twin.txt")).unwrap();
    again(&engine);
    let other = place.path().join("other");
    again(&Engine::with_options(EngineOptions { root: other.clone(), ..place.options() }).unwrap());
    let layer = |store: PathBuf| {
        let copies = copies(&Store::open(store).unwrap());
        copies.first().and_then(|copy| copy.meta.diff_id).unwrap()
    };
    assert_eq!(layer(place.store()), layer(other));
    assert!(place.leftovers().is_empty(), "{:?}", place.leftovers());
}

fn a_step_that_writes_a_shared_file_changes_no_layer() {
    let place = place();
    let engine = place.engine();
    let text = TEXT.to_owned()
        + "RUN echo more >> new/same.txt && chmod 600 deep/er/same.txt && touch -d @1 same.txt\n";
    place.build(&engine, &text);
    place.write("src/edited.txt", "after");
    build(&engine, &place.request(&text).tag("app"));
    assert_eq!(place.sh(&engine, "app", "cat /app/new/same.txt"), "newmore\n");
    for layer in layers(&place) {
        assert_eq!(fs_err::read_to_string(layer.join("new/same.txt")).unwrap(), "new");
        let deep = fs_err::metadata(layer.join("deep/er/same.txt")).unwrap();
        assert_eq!(deep.mode() & 0o777, 0o644);
    }
}

fn a_copy_without_cache_writes_everything() {
    let place = place();
    let engine = place.engine();
    place.build(&engine, TEXT);
    // A disk that lies: only the bytes are others.
    let path = layers(&place)[0].join("new/same.txt");
    let time = fs_err::metadata(&path).unwrap().modified().unwrap();
    fs_err::write(&path, "bad").unwrap();
    let file = fs_err::File::options().write(true).open(&path).unwrap();
    file.file().set_modified(time).unwrap();
    let mut request = place.request(TEXT).tag("app");
    request.options.no_cache = NoCache::All;
    build(&engine, &request);
    assert_eq!(place.sh(&engine, "app", "cat /app/new/same.txt"), "new");
}

fn shared_files_outlive_the_layer_that_they_came_from() {
    let place = place();
    let engine = place.engine();
    build(&engine, &place.request(TEXT).tag("app"));
    place.write("src/edited.txt", "after");
    build(&engine, &place.request(TEXT).tag("app"));
    let size = |place: &Place| {
        let store = Store::open(place.store()).unwrap();
        let copies = store.snapshots().list().unwrap();
        let sizes = copies.iter().filter(|it| it.kind == "copy").map(|it| it.meta.bytes);
        (sizes.sum::<u64>(), store.usage().unwrap())
    };
    let (before, usage) = size(&place);
    prune_nameless(&engine);
    engine.prune(&PruneOptions::default(), &Silent, &CancelToken::default()).unwrap();
    assert_eq!(layers(&place).len(), 1);
    let (after, less) = size(&place);
    let walked = |it: &rbuild_cache::Usage| it.image_snapshots + it.other_snapshots;
    assert!(after < before && walked(&less) < walked(&usage));
    assert_eq!(place.sh(&engine, "app", "cat /app/new/same.txt"), "new");
    let third = place.build(&engine, TEXT);
    assert_eq!(third.executed, 0, "{:?}", ran(&third));
}
