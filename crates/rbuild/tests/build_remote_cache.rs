//! Results that go to caches elsewhere, and builds in empty stores that take them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rbuild::{
    BuildRequest, Built, CacheExport, CacheImport, CacheLocation, CacheMode, CacheTraffic,
    CancelToken, Digest, Encoding, Engine, EngineOptions, Event, Output, Reason,
};
use serde_json::Value;

use crate::build_push::Registry;
use crate::build_why::why;
use crate::exported::Exported;
use crate::support::{BASE_STEPS, Events, Place, build, id, ran};
use crate::tests;
use crate::web::{Answer, Web, answer};

tests![
    a_cold_store_has_every_step_and_fetches_no_layer,
    a_kept_image_is_the_same_image,
    a_changed_last_step_sees_what_is_below_it_and_nothing_else,
    a_smaller_cache_has_the_steps_of_the_image,
    linked_copies_come_from_elsewhere,
    exports_take_layers_as_they_come,
    the_same_build_again_writes_nothing,
    what_ran_here_is_not_mixed_with_what_ran_there,
    a_layer_that_is_gone_is_made_again,
    a_layer_with_other_bytes_is_made_again,
    a_layer_that_is_another_than_the_index_says_is_made_again,
    a_damaged_index_is_a_warning,
    a_lost_index_is_written_anew,
    what_is_no_cache_is_left_out,
    a_local_cache_keeps_what_it_names_and_nothing_else,
    the_form_is_that_of_an_image,
    a_cache_that_cannot_be_written_is_a_warning,
    a_slow_cache_holds_up_no_other,
    a_cache_is_written_beside_one_that_cannot_be,
    two_writers_lose_nothing,
    a_registry_keeps_a_cache,
    writers_to_a_registry_lose_nothing,
    a_registry_that_is_gone_is_a_warning,
    a_registry_that_says_nothing_is_waited_for_no_longer_than_asked,
    an_image_brings_its_own_steps,
    an_index_of_images_brings_the_steps_of_all,
    a_step_that_took_the_place_of_another_is_found,
    an_empty_store_is_explained_by_the_last_build_elsewhere,
];

/// Three stages: one that nobody copies from, one that is copied from, and the image.
pub const STAGES: &str = "\
FROM base AS tools
RUN echo tools > /tool
RUN echo more >> /tool
FROM base
RUN echo below > /below
COPY --from=tools /tool /tool
RUN cat /tool /below > /both
";
/// Steps of the whole, those of the base with them.
pub const STEPS: usize = BASE_STEPS + 5;

/// Steps that give the image's layers.
pub const LAYERS: usize = BASE_STEPS + 3;

fn at(path: PathBuf) -> CacheLocation {
    CacheLocation::Local { path, tag: "latest".to_owned(), digest: None }
}

fn cache(place: &Place) -> CacheLocation {
    at(place.path().join("cache"))
}

fn to(place: &Place, mode: CacheMode) -> CacheExport {
    CacheExport { mode, must_succeed: true, ..CacheExport::new(cache(place)) }
}

fn from(place: &Place) -> CacheImport {
    CacheImport { location: cache(place) }
}

/// An engine whose store of this name is empty at first.
pub fn engine(place: &Place, store: &str) -> Engine {
    let options = EngineOptions { root: place.path().join(store), ..place.options() };
    Engine::with_options(options).unwrap()
}

fn exporting(place: &Place, text: &str, mode: CacheMode) -> BuildRequest {
    BuildRequest { cache_to: vec![to(place, mode)], ..place.request(text) }
}

fn importing(place: &Place, text: &str) -> BuildRequest {
    BuildRequest { cache_from: vec![from(place)], ..place.request(text) }
}

/// A request whose image nobody needs to see.
fn unseen(place: &Place, text: &str) -> BuildRequest {
    importing(place, text).output(Output::CacheOnly)
}

pub fn traffic(built: &Built) -> CacheTraffic {
    built.cache_traffic.unwrap()
}

/// The layers in the cache's directory, by their files.
fn blobs(place: &Place) -> Vec<PathBuf> {
    let directory = place.path().join("cache/blobs/sha256");
    let entries = fs_err::read_dir(directory).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn manifest(place: &Place) -> Value {
    let cache = place.path().join("cache");
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let index = read(&cache.join("index.json"));
    read(&blob(place, &index["manifests"][0]["digest"]))
}

fn blob(place: &Place, digest: &Value) -> PathBuf {
    let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
    place.path().join("cache/blobs/sha256").join(hex)
}

fn notices(events: &Events) -> Vec<String> {
    let message = |event| match event {
        Event::Notice { message } => Some(message),
        _ => None,
    };
    events.take().into_iter().filter_map(message).collect()
}

/// Builds and gives the notices too.
fn build_noticing(engine: &Engine, request: &BuildRequest) -> (Built, Vec<String>) {
    let events = Events::default();
    let built = engine
        .build(request, &events, &CancelToken::default())
        .unwrap_or_else(|error| panic!("{}", crate::support::explain(&error)));
    (built, notices(&events))
}

fn a_cold_store_has_every_step_and_fetches_no_layer() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let first = build(&warm, &exporting(&place, STAGES, CacheMode::Max));
    assert_eq!((first.cached, first.executed), (0, STEPS));
    // The copy gives the very layer of the step that made the file.
    assert_eq!(traffic(&first).sent_layers, STEPS - 1);
    let cold = engine(&place, "cold");
    let second = build(&cold, &unseen(&place, STAGES));
    assert_eq!((second.executed, ran(&second)), (0, Vec::<String>::new()));
    let traffic = traffic(&second);
    assert_eq!(traffic.fetched_layers, 0, "{traffic:?}");
    assert!(traffic.fetched_bytes < 8 << 10, "more than the index: {traffic:?}");
    assert!(traffic.avoided_bytes > 100 << 10, "{traffic:?}");
    assert_eq!(id(&first), id(&second));
    assert_eq!(fs_err::read_dir(place.path().join("cold/snapshots")).unwrap().count(), 0);
}

fn a_kept_image_is_the_same_image() {
    let place = Place::new();
    let first = build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Max));
    let cold = engine(&place, "cold");
    let second = build(&cold, &importing(&place, STAGES).tag("kept"));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    // The stage that only gave a file is not fetched.
    assert_eq!(traffic(&second).fetched_layers, LAYERS);
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
    // What came is a result of the store like any other.
    let third = build(&cold, &place.request(STAGES).tag("again"));
    assert_eq!((third.executed, id(&third)), (0, id(&first)));
    assert_eq!(place.leftovers_of("cold"), Vec::<String>::new());
}

fn a_changed_last_step_sees_what_is_below_it_and_nothing_else() {
    let place = Place::new();
    build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Max));
    let changed = STAGES.replace("> /both", "> /changed");
    let cold = engine(&place, "cold");
    let built = build(&cold, &unseen(&place, &changed));
    assert_eq!(ran(&built), ["[stage-2 3/3] RUN cat /tool /below > /changed"]);
    // All of the image but the last step; nothing of the stage whose file is copied.
    assert_eq!(traffic(&built).fetched_layers, LAYERS - 1);
    let built = build(&cold, &place.request(&changed).tag("changed"));
    assert_eq!(built.executed, 0);
    assert_eq!(place.sh(&cold, "changed", "cat /changed"), "tools\nmore\nbelow\n");
}

fn a_smaller_cache_has_the_steps_of_the_image() {
    let place = Place::new();
    let first = build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Min));
    assert_eq!(traffic(&first).sent_layers, LAYERS);
    let built = build(&engine(&place, "cold"), &unseen(&place, STAGES));
    // The steps of the other stage are neither there nor needed.
    assert_eq!((built.executed, built.cached), (0, LAYERS));
    assert_eq!(traffic(&built).fetched_layers, 0);
    let changed = STAGES.replace("echo more", "echo less");
    let built = build(&engine(&place, "other"), &unseen(&place, &changed));
    assert_eq!(built.executed, 4, "{:?}", ran(&built));
}

fn linked_copies_come_from_elsewhere() {
    let place = Place::new();
    place.write("file", "linked\n");
    let text = "COPY --link file /linked\nRUN cat /linked > /seen\n";
    let first = build(&engine(&place, "warm"), &exporting(&place, text, CacheMode::Max));
    let cold = engine(&place, "cold");
    let second = build(&cold, &unseen(&place, text));
    assert_eq!((second.executed, traffic(&second).fetched_layers), (0, 0));
    assert_eq!(id(&first), id(&second));
    let third = build(&cold, &importing(&place, text).tag("kept"));
    assert_eq!((third.executed, id(&third)), (0, id(&first)));
    assert_eq!(place.sh(&cold, "kept", "cat /linked /seen"), "linked\nlinked\n");
    // Below the linked layer a step changes: only that one and what is above it run.
    let changed = format!("RUN echo new > /new\n{text}");
    let third = build(&engine(&place, "other"), &importing(&place, &changed).tag("kept"));
    let names = ran(&third);
    assert!(names.iter().all(|name| name.contains("RUN")) && names.len() == 2, "{names:?}");
}

fn exports_take_layers_as_they_come() {
    let place = Place::new();
    let archive = |name: &str| place.path().join(name);
    let out = |name: &str| Output::OciArchive(archive(name).into());
    let warm = engine(&place, "warm");
    let first = build(&warm, &exporting(&place, STAGES, CacheMode::Min).output(out("first.tar")));
    let cold = engine(&place, "cold");
    let second = build(&cold, &importing(&place, STAGES).output(out("second.tar")));
    assert_eq!((second.executed, traffic(&second).fetched_layers), (0, LAYERS));
    let (one, two) =
        (Exported::from_tar(&archive("first.tar")), Exported::from_tar(&archive("second.tar")));
    two.check();
    assert_eq!(one.manifest()["layers"], two.manifest()["layers"]);
    assert_eq!(id(&first), id(&second));
    // No tree was made of them.
    assert_eq!(fs_err::read_dir(place.path().join("cold/snapshots")).unwrap().count(), 0);
    // Compressed in another way there, the image is the same.
    let zstd = CacheExport {
        encoding: Encoding::ZSTD,
        location: at(place.path().join("zstd")),
        ..to(&place, CacheMode::Min)
    };
    build(&warm, &BuildRequest { cache_to: vec![zstd.clone()], ..place.request(STAGES) });
    let location = zstd.location;
    let third = BuildRequest {
        cache_from: vec![CacheImport { location }],
        ..place.request(STAGES).output(out("third.tar"))
    };
    let third = build(&engine(&place, "third"), &third);
    assert_eq!(third.executed, 0);
    let three = Exported::from_tar(&archive("third.tar"));
    three.check();
    assert_eq!(one.manifest()["layers"], three.manifest()["layers"]);
}

fn the_same_build_again_writes_nothing() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    let request = exporting(&place, STAGES, CacheMode::Max);
    build(&warm, &request);
    let before = fs_err::metadata(place.path().join("cache/index.json")).unwrap().modified();
    let again = build(&warm, &request);
    assert_eq!((again.executed, traffic(&again).sent_layers), (0, 0));
    // Nor does a cold store that has it all from there.
    let cold = BuildRequest { cache_from: vec![from(&place)], ..request };
    let again = build(&engine(&place, "cold"), &cold.output(Output::CacheOnly));
    assert_eq!((again.executed, traffic(&again).sent_layers), (0, 0));
    let after = fs_err::metadata(place.path().join("cache/index.json")).unwrap().modified();
    assert_eq!(before.unwrap(), after.unwrap());
}

fn what_ran_here_is_not_mixed_with_what_ran_there() {
    let place = Place::new();
    let text = "RUN head -c 8 /dev/urandom > /random\nRUN md5sum /random > /sum\n";
    let there = build(&engine(&place, "there"), &exporting(&place, text, CacheMode::Max));
    // Here the first of the two steps ran already, and gave something else.
    let here = engine(&place, "here");
    let (first, _) = text.split_once("RUN md5sum").unwrap();
    build(&here, &place.request(first));
    let built = build(&here, &importing(&place, text).tag("here"));
    assert_eq!(built.executed, 1);
    assert_ne!(id(&built), id(&there));
    place.sh(&here, "here", "md5sum -c /sum");
}

/// Spoils the layers of the cache and builds what must see them.
fn spoilt(spoil: impl Fn(&Path)) -> Vec<String> {
    let place = Place::new();
    build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Max));
    for layer in manifest(&place)["layers"].as_array().unwrap() {
        spoil(&blob(&place, &layer["digest"]));
    }
    let cold = engine(&place, "cold");
    let (built, notices) = build_noticing(&cold, &importing(&place, STAGES).tag("kept"));
    assert!(built.executed >= LAYERS, "{:?}", ran(&built));
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
    assert_eq!(place.leftovers_of("cold"), Vec::<String>::new());
    // What was made here is what the next build takes.
    assert_eq!(build(&cold, &place.request(STAGES).tag("kept")).executed, 0);
    assert!(notices.iter().all(|notice| notice.contains("is not taken from the cache")));
    notices
}

fn a_layer_that_is_gone_is_made_again() {
    let notices = spoilt(|layer| fs_err::remove_file(layer).unwrap());
    assert!(notices[0].contains("is not there"), "{notices:?}");
    assert!(notices[0].contains("the cache in /"), "{notices:?}");
}

fn a_layer_with_other_bytes_is_made_again() {
    let notices = spoilt(|layer| {
        let mut bytes = fs_err::read(layer).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs_err::write(layer, bytes).unwrap();
    });
    assert!(!notices.is_empty());
}

fn a_layer_that_is_another_than_the_index_says_is_made_again() {
    let place = Place::new();
    build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Max));
    let index_of = |place: &Place| {
        let bytes = fs_err::read(blob(place, &manifest(place)["config"]["digest"])).unwrap();
        let text = zstd::decode_all(bytes.as_slice()).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()
    };
    // Every step leads to the layer of the first.
    let mut index = index_of(&place);
    let records = index["records"].as_array_mut().unwrap();
    let first = records[0]["blob"].clone();
    for record in records.iter_mut() {
        record["blob"] = first.clone();
    }
    let bytes = zstd::encode_all(index.to_string().as_bytes(), 3).unwrap();
    let digest = Digest::of(&bytes);
    fs_err::write(blob(&place, &Value::from(digest.to_string())), &bytes).unwrap();
    let mut manifest = manifest(&place);
    manifest["config"]["digest"] = digest.to_string().into();
    manifest["config"]["size"] = bytes.len().into();
    let bytes = manifest.to_string();
    let digest = Value::from(Digest::of(&bytes).to_string());
    fs_err::write(blob(&place, &digest), &bytes).unwrap();
    let path = place.path().join("cache/index.json");
    let mut layout: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    layout["manifests"][0]["digest"] = digest;
    layout["manifests"][0]["size"] = bytes.len().into();
    fs_err::write(&path, layout.to_string()).unwrap();

    for output in [None, Some(Output::OciArchive(place.path().join("out.tar").into()))] {
        let store = format!("cold-{}", output.is_some());
        let cold = engine(&place, &store);
        let mut request = importing(&place, STAGES).tag("kept");
        request.outputs.extend(output.map(Into::into));
        let (built, notices) = build_noticing(&cold, &request);
        assert!(built.executed >= LAYERS - 1, "{:?} {notices:?}", ran(&built));
        assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
        assert!(!notices.is_empty());
    }
    Exported::from_tar(&place.path().join("out.tar")).check();
}

fn a_damaged_index_is_a_warning() {
    let place = Place::new();
    build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Max));
    let index = blob(&place, &manifest(&place)["config"]["digest"]);
    let mut bytes = fs_err::read(&index).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs_err::write(&index, bytes).unwrap();
    let (built, notices) = build_noticing(&engine(&place, "cold"), &importing(&place, STAGES));
    assert_eq!(built.executed, STEPS);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("nothing is taken from the cache in /"), "{notices:?}");
}

fn a_lost_index_is_written_anew() {
    let spoils: [fn(&Path); 3] = [
        |path| fs_err::remove_file(path).unwrap(),
        |path| fs_err::write(path, "").unwrap(),
        |path| fs_err::write(path, "x".repeat(17 << 20)).unwrap(),
    ];
    let place = Place::new();
    let warm = engine(&place, "warm");
    let request = exporting(&place, STAGES, CacheMode::Max);
    build(&warm, &request);
    let index = || blob(&place, &manifest(&place)["config"]["digest"]);
    let own_manifest = || {
        let bytes = fs_err::read(place.path().join("cache/index.json")).unwrap();
        let layout: Value = serde_json::from_slice(&bytes).unwrap();
        blob(&place, &layout["manifests"][0]["digest"])
    };
    for (number, spoil) in spoils.iter().enumerate() {
        for path in [index(), own_manifest()] {
            spoil(&path);
            let (_, notices) = build_noticing(&warm, &request);
            assert_eq!(notices.len(), 1, "{notices:?}");
            assert!(notices[0].starts_with("the cache in /"), "{notices:?}");
            assert!(notices[0].contains("/cache starts anew: "), "{notices:?}");
            let name = format!("cold-{number}-{}", path == index());
            let (again, notices) = build_noticing(&engine(&place, &name), &unseen(&place, STAGES));
            assert_eq!((again.executed, notices), (0, Vec::new()));
        }
    }
    // Where an index is asked for by name, in a registry.
    let registry = Registry::start();
    let location = in_registry(&registry, "team/app:cache");
    let export = CacheExport { location: location.clone(), ..to(&place, CacheMode::Max) };
    let request = BuildRequest { cache_to: vec![export], ..place.request(STAGES) };
    build(&warm, &request);
    let lost = registry.manifest("team/app", "cache")["config"]["digest"].clone();
    registry.lose("team/app", lost.as_str().unwrap());
    let (_, notices) = build_noticing(&warm, &request);
    assert!(notices.len() == 1 && notices[0].contains("starts anew: "), "{notices:?}");
    let cache_from = vec![CacheImport { location }];
    let request = BuildRequest { cache_from, ..place.request(STAGES) };
    let cold = build(&engine(&place, "cold"), &request.output(Output::CacheOnly));
    assert_eq!(cold.executed, 0, "{:?}", ran(&cold));
}

fn what_is_no_cache_is_left_out() {
    let place = Place::new();
    // A directory that is not there is an empty cache: that of the first build.
    let (built, notices) = build_noticing(&engine(&place, "one"), &importing(&place, STAGES));
    assert_eq!((built.executed, notices.len()), (STEPS, 0));
    // An image is no cache, and stays beside one.
    let image = Output::OciLayout(place.path().join("cache"));
    build(&engine(&place, "one"), &place.request(STAGES).tag("x:latest").output(image));
    let (_, notices) = build_noticing(&engine(&place, "two"), &importing(&place, STAGES));
    assert!(notices[0].contains("is no cache of rbuild"), "{notices:?}");
}

fn a_local_cache_keeps_what_it_names_and_nothing_else() {
    let place = Place::new();
    let warm = engine(&place, "warm");
    build(&warm, &exporting(&place, STAGES, CacheMode::Max));
    fs_err::write(place.path().join("cache/blobs/sha256/rest"), "x").unwrap();
    let changed = STAGES.replace("echo below", "echo changed");
    build(&warm, &exporting(&place, &changed, CacheMode::Max));
    // Manifest, index, and each layer once; the old index is gone. The changed step and the one
    // that reads it gave new ones.
    let layers = manifest(&place)["layers"].as_array().unwrap().len();
    assert_eq!(layers, STEPS - 1 + 2);
    assert_eq!(blobs(&place).len(), layers + 2);
    // The steps of both builds are there.
    for text in [STAGES, &changed] {
        let cold = place.path().join("cold");
        let _ = fs_err::remove_dir_all(&cold);
        assert_eq!(build(&engine(&place, "cold"), &unseen(&place, text)).executed, 0);
    }
}

fn the_form_is_that_of_an_image() {
    let place = Place::new();
    build(&engine(&place, "warm"), &exporting(&place, STAGES, CacheMode::Min));
    let manifest = manifest(&place);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let config = "application/vnd.rbuild.cache.index.v1+json+zstd";
    assert_eq!(manifest["config"]["mediaType"], config);
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), LAYERS);
    for described in layers.iter().chain([&manifest["config"]]) {
        let bytes = fs_err::read(blob(&place, &described["digest"])).unwrap();
        assert_eq!(described["digest"], Digest::of(&bytes).to_string());
        assert_eq!(described["size"], bytes.len());
    }
    for layer in layers {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
}

fn a_cache_that_cannot_be_written_is_a_warning() {
    let place = Place::new();
    let path = place.write("a-file", "no directory");
    let export = CacheExport::new(at(path));
    let request = BuildRequest { cache_to: vec![export.clone()], ..place.request(STAGES) };
    let (built, notices) = build_noticing(&engine(&place, "one"), &request);
    assert_eq!(built.executed, STEPS);
    assert!(notices.iter().any(|notice| notice.contains("is not complete")), "{notices:?}");
    let must = CacheExport { must_succeed: true, ..export };
    let request = BuildRequest { cache_to: vec![must], ..place.request(STAGES).tag("made") };
    let warm = engine(&place, "one");
    let error = crate::support::build_error(&warm, &request).to_string();
    assert!(error.starts_with("cannot write the cache in /"), "{error}");
    // The image is there all the same.
    assert_eq!(place.sh(&warm, "made", "cat /tool"), "tools\nmore\n");
}

fn a_slow_cache_holds_up_no_other() {
    let place = Place::new();
    // It has no layer, and never takes one.
    let silent = Web::start(|asked| match asked.method.as_str() {
        "HEAD" => answer(404, ""),
        _ => loop {
            std::thread::park();
        },
    });
    let reference = format!("{}/team/app:cache", silent.address).parse().unwrap();
    let location = CacheLocation::Registry { reference, insecure: false };
    let slow =
        CacheExport { mode: CacheMode::Max, timeout: Duration::ZERO, ..CacheExport::new(location) };
    // Longer than it takes, and no longer than a failure should.
    let patient = Duration::from_secs(60);
    let cache_to = vec![slow, CacheExport { timeout: patient, ..to(&place, CacheMode::Max) }];
    let request = BuildRequest { cache_to, ..place.request(STAGES) };
    let (built, notices) = build_noticing(&place.engine(), &request);
    assert_eq!(traffic(&built).sent_layers, STEPS - 1);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].starts_with("the cache 127.0.0.1:"), "{notices:?}");
    assert!(notices[0].contains("not all layers were sent within 0 s"), "{notices:?}");
    let again = build(&engine(&place, "cold"), &unseen(&place, STAGES));
    assert_eq!(again.executed, 0, "{:?}", ran(&again));
}

fn a_cache_is_written_beside_one_that_cannot_be() {
    let place = Place::new();
    let no_directory = |name: &str| {
        let location = at(place.write(name, "no directory"));
        CacheExport { must_succeed: true, ..CacheExport::new(location) }
    };
    let cache_to = vec![no_directory("one"), to(&place, CacheMode::Max), no_directory("two")];
    let request = BuildRequest { cache_to, ..place.request(STAGES) };
    let events = Events::default();
    let error = place.engine().build(&request, &events, &CancelToken::default()).unwrap_err();
    let (error, notices) = (error.to_string(), notices(&events));
    // The first that failed is the error, the other is named too.
    assert!(error.contains("/one: "), "{error}");
    assert!(notices.len() == 1 && notices[0].contains("/two is not complete"), "{notices:?}");
    let again = build(&engine(&place, "cold"), &unseen(&place, STAGES));
    assert_eq!(again.executed, 0, "{:?}", ran(&again));
}

fn two_writers_lose_nothing() {
    let place = Place::new();
    let builds: Vec<String> =
        (0..6).map(|number| format!("{STAGES}RUN echo {number} > /number\n")).collect();
    std::thread::scope(|scope| {
        for (number, text) in builds.iter().enumerate() {
            let place = &place;
            scope.spawn(move || {
                let engine = engine(place, &format!("store-{number}"));
                build(&engine, &exporting(place, text, CacheMode::Max));
            });
        }
    });
    for (number, text) in builds.iter().enumerate() {
        let cold = engine(&place, &format!("cold-{number}"));
        let built = build(&cold, &unseen(&place, text));
        assert_eq!(built.executed, 0, "{:?}", ran(&built));
    }
}

fn in_registry(registry: &Registry, name: &str) -> CacheLocation {
    CacheLocation::Registry { reference: registry.name(name).parse().unwrap(), insecure: false }
}

fn a_registry_keeps_a_cache() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry, "team/app:cache");
    let export = CacheExport { location: location.clone(), ..to(&place, CacheMode::Max) };
    let warm = engine(&place, "warm");
    let request = BuildRequest { cache_to: vec![export], ..place.request(STAGES) };
    let first = build(&warm, &request);
    assert_eq!(traffic(&first).sent_layers, STEPS - 1);
    let manifest = registry.manifest("team/app", "cache");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), STEPS - 1);
    registry.asked();
    // Everything is there: what is written is nothing.
    build(&warm, &request);
    let asked = registry.asked();
    assert!(!asked.iter().any(|asked| asked.starts_with("P")), "{asked:?}");
    // In a cold store a manifest and an index are all that is asked for.
    let cache_from = vec![CacheImport { location }];
    let cold = engine(&place, "cold");
    let request = BuildRequest { cache_from, ..place.request(STAGES) };
    let second = build(&cold, &request.clone().output(Output::CacheOnly));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    assert_eq!(registry.asked().len(), 2);
    let third = build(&cold, &request.tag("kept"));
    assert_eq!((third.executed, traffic(&third).fetched_layers), (0, LAYERS));
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
}

fn writers_to_a_registry_lose_nothing() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry, "team/app:cache");
    let builds: Vec<String> = (0..3).map(|n| format!("RUN echo {n} > /number\n")).collect();
    std::thread::scope(|scope| {
        for (number, text) in builds.iter().enumerate() {
            let (place, location) = (&place, location.clone());
            scope.spawn(move || {
                let export = CacheExport { location, ..to(place, CacheMode::Max) };
                let request = BuildRequest { cache_to: vec![export], ..place.request(text) };
                build(&engine(place, &format!("store-{number}")), &request);
            });
        }
    });
    for (number, text) in builds.iter().enumerate() {
        let cache_from = vec![CacheImport { location: location.clone() }];
        let request = BuildRequest { cache_from, ..place.request(text) };
        let cold = engine(&place, &format!("cold-{number}"));
        let built = build(&cold, &request.output(Output::CacheOnly));
        assert_eq!(built.executed, 0, "{:?}", ran(&built));
    }
}

fn a_registry_that_is_gone_is_a_warning() {
    let place = Place::new();
    let registry = Registry::start();
    let location = in_registry(&registry, "team/app:cache");
    drop(registry);
    let export = CacheExport::new(location.clone());
    let request = BuildRequest {
        cache_from: vec![CacheImport { location }],
        cache_to: vec![export],
        ..place.request("")
    };
    let options = EngineOptions {
        registry: rbuild::RegistryOptions { retries: 1, ..<_>::default() },
        ..place.options()
    };
    let (built, notices) = build_noticing(&Engine::with_options(options).unwrap(), &request);
    assert_eq!(built.executed, BASE_STEPS);
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert!(notices[0].starts_with("nothing is taken from the cache 127.0.0.1:"), "{notices:?}");
    assert!(notices[1].contains("is not complete"), "{notices:?}");
}

fn a_registry_that_says_nothing_is_waited_for_no_longer_than_asked() {
    let place = Place::new();
    let silent = Web::start(|_| Answer { stall: true, ..answer(200, "never sent") });
    let reference = format!("{}/team/app:cache", silent.address).parse().unwrap();
    let location = CacheLocation::Registry { reference, insecure: false };
    let export = CacheExport { timeout: Duration::ZERO, ..CacheExport::new(location) };
    let request = BuildRequest { cache_to: vec![export], ..place.request("").tag("made") };
    let engine = place.engine();
    let (built, notices) = build_noticing(&engine, &request);
    assert_eq!(built.executed, BASE_STEPS);
    // Layers may have been done with before: then it is the index.
    let late = ["not all layers were sent within 0 s", "its index could not be written in time"];
    assert!(late.iter().any(|late| notices[0].contains(late)), "{notices:?}");
    assert_eq!(place.sh(&engine, "made", "echo here"), "here\n");
}

/// Pushes an image with its steps in it, in a store of this name.
fn push_inline(place: &Place, store: &str, registry: &Registry, text: &str) -> Built {
    let export = CacheExport { must_succeed: true, ..CacheExport::new(CacheLocation::Inline) };
    let request = BuildRequest { cache_to: vec![export], ..place.request(text) };
    let request = request.tag(registry.name("team/app:1"));
    build(
        &engine(place, store),
        &request.output(Output::Registry { insecure: false, by_digest: false }),
    )
}

fn an_image_brings_its_own_steps() {
    let place = Place::new();
    let registry = Registry::start();
    let first = push_inline(&place, "warm", &registry, STAGES);
    let location = in_registry(&registry, "team/app:1");
    let cache_from = vec![CacheImport { location }];
    let cold = engine(&place, "cold");
    registry.asked();
    let request = BuildRequest { cache_from, ..place.request(STAGES) };
    let second = build(&cold, &request.clone().output(Output::CacheOnly));
    assert_eq!((second.executed, second.cached), (0, LAYERS));
    // The manifest and the config of the image.
    assert_eq!(registry.asked().len(), 2);
    let third = build(&cold, &request.tag("kept"));
    assert_eq!((third.executed, traffic(&third).fetched_layers), (0, LAYERS));
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
    // The image that says so again is the same image, and one that does not is another.
    assert_eq!(id(&push_inline(&place, "cold", &registry, STAGES)), id(&first));
    assert_ne!(id(&third), id(&first));
}

fn an_index_of_images_brings_the_steps_of_all() {
    let place = Place::new();
    let registry = Registry::start();
    let text = "FROM scratch\nARG TARGETARCH\nCOPY busybox /busybox-$TARGETARCH\n";
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap());
    let request = |place: &Place| {
        let mut request = BuildRequest::new(place.context()).dockerfile_text(text);
        request.options.platforms = platforms.to_vec();
        request
    };
    let export = CacheExport { must_succeed: true, ..CacheExport::new(CacheLocation::Inline) };
    let pushed = BuildRequest { cache_to: vec![export], ..request(&place) }
        .tag(registry.name("team/app:1"))
        .output(Output::Registry { insecure: false, by_digest: false });
    assert_eq!(build(&engine(&place, "warm"), &pushed).executed, 2);
    let cache_from = vec![CacheImport { location: in_registry(&registry, "team/app:1") }];
    let taken = BuildRequest { cache_from, ..request(&place) }.output(Output::CacheOnly);
    assert_eq!(build(&engine(&place, "cold"), &taken).executed, 0);
}

fn a_step_that_took_the_place_of_another_is_found() {
    let place = Place::new();
    let text = |lint: &str| {
        format!("RUN {lint}; echo x > /made; touch -d @1 /made\nRUN cat /proc/uptime > /top\n")
    };
    let warm = engine(&place, "warm");
    build(&warm, &exporting(&place, &text("true"), CacheMode::Max));
    let second = build(&warm, &exporting(&place, &text("echo other"), CacheMode::Max));
    assert_eq!(second.executed, 1, "{:?}", ran(&second));
    let cold = engine(&place, "cold");
    let unseen = build(&cold, &unseen(&place, &text("echo other")));
    assert_eq!(unseen.executed, 0, "{:?}", ran(&unseen));
    let kept = build(&cold, &importing(&place, &text("echo other")));
    assert_eq!(kept.executed, 0, "{:?}", ran(&kept));
    // What was brought is found without the cache.
    let local = build(&cold, &place.request(&text("echo other")));
    assert_eq!((local.executed, id(&local)), (0, id(&kept)), "{:?}", ran(&local));
}

fn an_empty_store_is_explained_by_the_last_build_elsewhere() {
    let place = Place::new();
    let text = "FROM base AS tools\nRUN echo tools > /tool\nFROM base\nARG V=1\nCOPY file /file\n\
                RUN echo $V > /v\nRUN echo up > /up\nCOPY --from=tools /tool /tool\n";
    place.write("file", "one");
    build(&engine(&place, "warm"), &exporting(&place, text, CacheMode::Max));
    let told = |store: &str, request: BuildRequest| {
        let all = why(&build(&engine(&place, store), &request));
        all.into_iter().map(|(step, reason)| (step, reason.to_string())).collect::<Vec<_>>()
    };
    let said = |step: &str, reason: String| (step.to_owned(), reason);
    let below = |step: &str| Reason::Below { step: step.to_owned() }.to_string();

    let variable = |old: &str, new: &str| {
        let (old, new) = (Some(old.to_owned()), Some(new.to_owned()));
        Reason::Variable { arg: true, name: "V".to_owned(), old, new }.to_string()
    };
    let all = told("variable", unseen(&place, text).arg("V", "2"));
    let expected = [
        said("RUN echo 2 > /v", variable("1", "2")),
        said("RUN echo up > /up", variable("1", "2")),
        said("COPY --from=tools /tool /tool", below("[stage-2 3/4] RUN echo up > /up")),
    ];
    assert_eq!(all, expected);

    let all = told("text", unseen(&place, &text.replace("echo up", "echo down")));
    let (old, new) = ("RUN echo up > /up".to_owned(), "RUN echo down > /up".to_owned());
    let changed = Reason::Text { old, new }.to_string();
    assert_eq!(all[0], said("RUN echo down > /up", changed));

    // A step more moves the numbers of the others.
    let all = told("more", unseen(&place, &text.replace("RUN echo up", "RUN true\nRUN echo up")));
    let below_true = below("[stage-2 3/5] RUN true");
    let expected = [
        said("RUN true", Reason::New.to_string()),
        said("RUN echo up > /up", below_true),
        said("COPY --from=tools /tool /tool", below("[stage-2 4/5] RUN echo up > /up")),
    ];
    assert_eq!(all, expected);

    place.write("file", "two");
    let all = told("file", unseen(&place, text));
    assert_eq!(all[0], said("COPY file /file", Reason::Files.to_string()));
    assert_eq!(all[1].1, below("[stage-2 1/4] COPY file /file"));
}
