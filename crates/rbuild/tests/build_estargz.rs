//! Images whose layers are eStargz: valid for who knows the form, and for who does not.

use std::io::Read;

use rbuild::{
    BuildRequest, CacheExport, CacheLocation, CancelToken, Digest, Encoding, Engine, Export,
    Family, ImageForm, LayerForm, LoadSource, NamedContextInput, Output, Platforms, PullRequest,
    PushRequest, SaveRequest, Silent,
};
use serde_json::{Value, json};

use crate::build_push::Registry;
use crate::exported::{Exported, text};
use crate::support::{Place, build, build_error, explain};
use crate::tests;

tests![
    each_layer_has_a_table_that_its_annotation_names,
    the_config_names_other_tars_and_nothing_else,
    it_is_made_once_and_alike_everywhere,
    a_base_is_converted_only_by_force,
    it_comes_back_as_what_was_built,
    an_image_of_the_store_is_pushed_and_saved_so,
    what_else_finds_layers_by_diff_ids_is_refused,
];

const TEXT: &str =
    "FROM base\nRUN seq 100000 > /numbers && mkdir /d && ln -s x /d/y\nCOPY one.txt /\n";
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

fn never() -> CancelToken {
    CancelToken::default()
}

fn place() -> Place {
    let place = Place::new();
    place.write("one.txt", "1\n");
    place
}

fn form() -> LayerForm {
    LayerForm { encoding: Encoding::ESTARGZ, ..LayerForm::default() }
}

fn forced() -> LayerForm {
    LayerForm { force: true, ..form() }
}

/// The archive of a request, with its layers in this form.
fn archive(place: &Place, request: &BuildRequest, form: LayerForm) -> Exported {
    let path = place.path().join("image.tar");
    let output = Export { layers: form, ..Export::from(Output::OciArchive(path.clone().into())) };
    let built = build(&place.engine(), &request.clone().output(output)).image.unwrap();
    let image = Exported::from_tar(&path);
    let exported = built.exported.unwrap();
    assert_eq!(exported.digest.to_string(), image.manifest_digest());
    assert_eq!(exported.config_digest.unwrap().to_string(), image.config_digest());
    image.check();
    image
}

fn layers(image: &Exported) -> Vec<Value> {
    image.manifest()["layers"].as_array().unwrap().clone()
}

/// Some bytes of the gzip member that starts here.
fn member(blob: &[u8], offset: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::bufread::GzDecoder::new(&blob[offset..]).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The table of a layer, found by the last 51 bytes of its blob and held against the annotations.
fn table(image: &Exported, layer: &Value) -> Vec<Value> {
    let blob = image.blob(&text(&layer["digest"]));
    let footer = &blob[blob.len() - 51..];
    assert_eq!(footer[32..38], *b"STARGZ");
    let offset = std::str::from_utf8(&footer[16..32]).unwrap();
    let tar = member(blob, usize::from_str_radix(offset, 16).unwrap());
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str().unwrap(), "stargz.index.json");
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    let annotations = layer["annotations"].as_object().unwrap();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), [TOC_DIGEST, UNCOMPRESSED_SIZE]);
    assert_eq!(text(&annotations[TOC_DIGEST]), Digest::of(&bytes).to_string());
    let table: Value = serde_json::from_slice(&bytes).unwrap();
    table["entries"].as_array().unwrap().clone()
}

fn each_layer_has_a_table_that_its_annotation_names() {
    let place = place();
    let image = archive(&place, &place.request(TEXT), form());
    let mut files = 0;
    for (layer, tar) in layers(&image).iter().zip(image.layers()) {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(text(&layer["annotations"][UNCOMPRESSED_SIZE]), tar.len().to_string());
        let blob = image.blob(&text(&layer["digest"]));
        for entry in table(&image, layer) {
            let Some(offset) = entry["offset"].as_u64() else { continue };
            let mut content = member(blob, offset as usize);
            content.truncate(entry["size"].as_u64().unwrap() as usize);
            assert_eq!(text(&entry["chunkDigest"]), Digest::of(&content).to_string());
            assert_eq!(entry["digest"], entry["chunkDigest"]);
            files += 1;
        }
    }
    assert!(files >= 3, "{files}");
}

fn the_config_names_other_tars_and_nothing_else() {
    let place = place();
    let request = place.request(TEXT);
    let gzip = archive(&place, &request, LayerForm::default());
    let image = archive(&place, &request, form());
    assert_ne!(image.config_digest(), gzip.config_digest());
    let (mut config, mut other) = (image.config(), gzip.config());
    assert_ne!(config["rootfs"]["diff_ids"], other["rootfs"]["diff_ids"]);
    for config in [&mut config, &mut other] {
        config["rootfs"]["diff_ids"] = json!([]);
    }
    assert_eq!(config, other);
    for (tar, plain) in image.layers().iter().zip(gzip.layers()) {
        assert!(tar.len() > plain.len() && tar.starts_with(&plain), "the same, and a table");
    }
}

fn it_is_made_once_and_alike_everywhere() {
    let place = place();
    let request = place.request(TEXT).arg("SOURCE_DATE_EPOCH", "0");
    let blobs = || {
        let store = rbuild_cache::Store::open(place.store()).unwrap();
        store.blobs().list().unwrap().len()
    };
    let first = archive(&place, &request, form());
    let known = blobs();
    assert!(first == archive(&place, &request, form()));
    assert_eq!(blobs(), known);
    let stored = LayerForm { encoding: Encoding::Estargz { level: 0 }, ..form() };
    assert_ne!(layers(&archive(&place, &request, stored)), layers(&first));
    // From gzip blobs of the same layers in another store.
    let (away, layout) = (Place::new(), place.path().join("layout"));
    build(&place.engine(), &request.clone().output(Output::OciLayout(layout.clone())));
    let loaded = LoadSource::Path(layout);
    let engine = away.engine();
    let loaded = engine.load_images(loaded, None, &Silent, &never()).unwrap().remove(0).id;
    let path = away.path().join("image.tar");
    let form = ImageForm { encoding: Encoding::ESTARGZ, force: true, family: None };
    save(&engine, &loaded.to_string(), Output::OciArchive(path.clone().into()), form);
    let converted = Exported::from_tar(&path);
    converted.check();
    assert_eq!(layers(&converted), layers(&first));
}

fn save(engine: &Engine, image: &str, output: Output, form: ImageForm) {
    let request =
        SaveRequest { images: vec![image.to_owned()], output, platform: None, form: Some(form) };
    engine.save_images(&request, &Silent, &never()).unwrap();
}

fn upon(place: &Place, layout: &std::path::Path) -> BuildRequest {
    let input = NamedContextInput::OciLayout { path: layout.to_owned(), tag: None, digest: None };
    BuildRequest::new(place.context())
        .dockerfile_text("FROM away\nCOPY one.txt /own\n")
        .build_context("away", input)
}

fn a_base_is_converted_only_by_force() {
    let (away, place) = (place(), place());
    let path = |name: &str| away.path().join(name);
    build(&away.engine(), &away.request(TEXT).output(Output::OciLayout(path("gzip"))));
    let gzip = Exported::from_directory(&path("gzip"));
    let request = upon(&place, &path("gzip"));
    let kept = archive(&place, &request, form());
    assert_eq!(layers(&kept)[..4], layers(&gzip), "the very blobs");
    table(&kept, &layers(&kept)[4]);
    let converted = archive(&place, &request, forced());
    layers(&converted).iter().for_each(|layer| drop(table(&converted, layer)));
    // One that is converted already stays, with what is said of it; as gzip too, which it is.
    let output = Export { layers: form(), ..Export::from(Output::OciLayout(path("estargz"))) };
    build(&away.engine(), &away.request(TEXT).output(output));
    let estargz = Exported::from_directory(&path("estargz"));
    let request = upon(&place, &path("estargz"));
    for form in [form(), forced(), LayerForm { force: true, ..LayerForm::default() }] {
        let kept = archive(&place, &request, form);
        assert_eq!(layers(&kept)[..4], layers(&estargz), "{form:?}");
    }
    let zstd = archive(&place, &request, LayerForm { encoding: Encoding::ZSTD, ..forced() });
    assert!(layers(&zstd).iter().all(|layer| layer.get("annotations").is_none()));
}

fn it_comes_back_as_what_was_built() {
    let (place, other) = (place(), Place::new());
    let image = archive(&place, &place.request(TEXT), form());
    let engine = other.engine();
    let path = LoadSource::Path(place.path().join("image.tar"));
    let loaded = engine.load_images(path, None, &Silent, &never()).unwrap().remove(0).id;
    assert_eq!(loaded.to_string(), image.config_digest());
    let seen = other.sh(&engine, &loaded.to_string(), "ls -A / && tail -n 1 /numbers");
    assert!(seen.lines().any(|line| line == "one.txt") && seen.ends_with("\n100000\n"), "{seen}");
    assert!(!seen.contains("stargz") && !seen.contains("landmark"), "{seen}");
}

fn an_image_of_the_store_is_pushed_and_saved_so() {
    let (registry, place) = (Registry::start(), place());
    let engine = place.engine();
    build(&engine, &place.request(TEXT).tag("app:1"));
    let form = ImageForm { encoding: Encoding::ESTARGZ, ..ImageForm::default() };
    let name = registry.name("team/app:1");
    let destination = Some(name.parse().unwrap());
    let request =
        PushRequest { image: "app:1".to_owned(), destination, form, ..PushRequest::default() };
    engine.push_image(&request, &Silent, &never()).unwrap();
    let manifest = registry.manifest("team/app", "1");
    let path = place.path().join("saved.tar");
    save(&engine, "app:1", Output::OciArchive(path.clone().into()), form);
    let saved = Exported::from_tar(&path);
    saved.check();
    assert_eq!(manifest, saved.manifest());
    layers(&saved).iter().for_each(|layer| drop(table(&saved, layer)));
    let (other, request) = (
        Place::new(),
        PullRequest { name: name.parse().unwrap(), all_tags: false, platforms: Platforms::Host },
    );
    let elsewhere = other.engine();
    let pulled = elsewhere.pull_image(&request, &Silent, &never()).unwrap().remove(0);
    assert_eq!(pulled.id.to_string(), saved.config_digest());
    assert_eq!(other.sh(&elsewhere, &name, "cat /one.txt"), "1\n");
    // Manifests of Docker cannot say what has to be said.
    let docker = ImageForm { family: Some(Family::Docker), ..ImageForm::default() };
    let path = place.path().join("docker-types");
    save(&engine, "app:1", Output::OciLayout(path.clone()), docker);
    let away = Place::new();
    let engine_away = away.engine();
    let loaded = engine_away.load_images(LoadSource::Path(path), None, &Silent, &never()).unwrap();
    let path = away.path().join("estargz.tar");
    let forced = ImageForm { force: true, ..form };
    save(&engine_away, &loaded[0].id.to_string(), Output::OciArchive(path.clone().into()), forced);
    assert_eq!(layers(&Exported::from_tar(&path)), layers(&saved));
    // Docker's archive holds the same blobs.
    let path = place.path().join("docker.tar");
    save(&engine, "app:1", Output::DockerArchive(path.clone().into()), form);
    let third = Place::new();
    let loaded =
        third.engine().load_images(LoadSource::Path(path), None, &Silent, &never()).unwrap();
    assert_eq!(loaded[0].id.to_string(), saved.config_digest());
}

fn what_else_finds_layers_by_diff_ids_is_refused() {
    let place = place();
    let output = Output::OciArchive(place.path().join("image.tar").into());
    let output = Export { layers: form(), ..Export::from(output) };
    let inline = CacheExport::new(CacheLocation::Inline);
    let request = BuildRequest { cache_to: vec![inline], ..place.request(TEXT) };
    let error = build_error(&place.engine(), &request.output(output));
    assert!(explain(&error).contains("inline cache"), "{}", explain(&error));
    let local = CacheExport {
        encoding: Encoding::ESTARGZ,
        ..CacheExport::new(CacheLocation::Local {
            path: place.path().join("cache"),
            tag: "latest".to_owned(),
            digest: None,
        })
    };
    let request = BuildRequest { cache_to: vec![local], ..place.request(TEXT) };
    let error = build_error(&place.engine(), &request);
    assert!(explain(&error).contains("cannot hold layers as estargz"), "{}", explain(&error));
}
