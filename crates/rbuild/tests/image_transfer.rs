//! Images that leave the store and come back: nothing changes that need not.

use std::io::Write as _;
use std::path::Path;

use rbuild::{
    BuildError, BuildRequest, CancelToken, Digest, Encoding, Engine, ImageForm, ImagePrune,
    LoadSource, LoadedImage, Output, Platforms, PullRequest, PulledImage, PushRequest, PushedImage,
    Reference, RemovedImage, SaveRequest, Silent,
};
use serde_json::{Value, json};

use crate::build_push::Registry;
use crate::exported::{Exported, OCI_INDEX, OCI_MANIFEST, put, text};
use crate::support::{Place, build, id, shell};
use crate::tests;

tests![
    what_is_pushed_comes_back_bit_for_bit,
    a_repository_that_has_it_gives_it,
    an_index_is_pulled_whole_or_in_part,
    all_tags_go_and_come,
    what_is_saved_is_what_a_build_writes,
    an_archive_for_docker_keeps_the_image_id,
    a_layer_that_is_not_what_the_config_says_is_refused,
    layers_that_are_links_and_gzip_around_everything_are_read,
    an_index_that_lacks_images_gives_the_one_that_is_there,
    only_the_image_for_a_platform_is_loaded,
    a_directory_of_skopeo_is_read,
    what_is_no_archive_is_refused,
    a_name_without_a_tag_is_all_its_tags,
    attestations_follow_their_image,
    an_image_has_to_go_somewhere,
    the_wrong_platform_is_not_taken,
    images_are_pruned_with_what_only_they_used,
    what_a_container_runs_from_is_not_pruned,
    a_name_with_a_digest_is_that_images_alone,
    indexes_in_an_archive_do_not_nest_for_ever,
    a_layer_of_a_base_is_found_where_it_lies,
];

const TEXT: &str = "FROM base\nRUN echo two > /two\n";

fn never() -> CancelToken {
    CancelToken::default()
}

fn push(engine: &Engine, image: &str) -> PushedImage {
    let request = PushRequest { image: image.to_owned(), ..PushRequest::default() };
    let mut pushed = engine.push_image(&request, &Silent, &never()).unwrap();
    assert_eq!(pushed.len(), 1);
    pushed.remove(0)
}

fn push_as(engine: &Engine, image: &str, name: &str) -> Digest {
    let destination = Some(name.parse().unwrap());
    let request = PushRequest { image: image.to_owned(), destination, ..PushRequest::default() };
    engine.push_image(&request, &Silent, &never()).unwrap()[0].digest
}

fn request(name: &str, platforms: Platforms) -> PullRequest {
    PullRequest { name: name.parse().unwrap(), all_tags: false, platforms }
}

fn pull(engine: &Engine, name: &str, platforms: Platforms) -> PulledImage {
    engine.pull_image(&request(name, platforms), &Silent, &never()).unwrap().remove(0)
}

fn save(engine: &Engine, images: &[&str], output: Output, form: Option<ImageForm>) {
    let images = images.iter().map(|image| (*image).to_owned()).collect();
    let request = SaveRequest { images, output, platform: None, form };
    engine.save_images(&request, &Silent, &never()).unwrap();
}

fn load(engine: &Engine, path: &Path) -> Vec<LoadedImage> {
    engine.load_images(LoadSource::Path(path.to_owned()), None, &Silent, &never()).unwrap()
}

fn load_error(engine: &Engine, path: &Path) -> BuildError {
    let loaded = engine.load_images(LoadSource::Path(path.to_owned()), None, &Silent, &never());
    assert_eq!(engine.images().unwrap(), []);
    loaded.unwrap_err()
}

/// A store with `app:1`.
fn built() -> (Place, Engine) {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request(TEXT).tag("app:1"));
    (place, engine)
}

fn what_is_pushed_comes_back_bit_for_bit() {
    let (registry, (_place, engine)) = (Registry::start(), built());
    let name = registry.name("team/app:1");
    engine.tag_image("app:1", &name).unwrap();
    let pushed = push(&engine, &name);
    assert_eq!(pushed.name.to_string(), name);

    let other = Place::new();
    let elsewhere = other.engine();
    let pulled = pull(&elsewhere, &name, Platforms::Host);
    assert_eq!((pulled.digest, pulled.is_new), (pushed.digest, true));
    assert_eq!(pulled.id, engine.find_image("app:1").unwrap().image_id);
    assert!(!pull(&elsewhere, &name, Platforms::Host).is_new);
    assert_eq!(other.sh(&elsewhere, &name, "cat /two"), "two\n");
    // By its digest, as its tag, and in another registry.
    let pinned = format!("{}@{}", registry.name("team/app"), pushed.digest);
    assert_eq!(elsewhere.find_image(&pinned).unwrap().manifest_digest, pushed.digest);
    assert_eq!(pull(&elsewhere, &pinned, Platforms::Host).digest, pushed.digest);
    let third = Registry::start();
    assert_eq!(push_as(&elsewhere, &name, &third.name("x/y:z")), pushed.digest);
    let zstd = ImageForm { encoding: Encoding::ZSTD, ..ImageForm::default() };
    let destination = Some(third.name("x/y:zstd").parse().unwrap());
    let request =
        PushRequest { image: name.clone(), destination, form: zstd, ..PushRequest::default() };
    // It has a form already, which is only changed by force.
    let kept = elsewhere.push_image(&request, &Silent, &never()).unwrap();
    assert_eq!(kept[0].digest, pushed.digest);
    let request = PushRequest { form: ImageForm { force: true, ..zstd }, ..request };
    elsewhere.push_image(&request, &Silent, &never()).unwrap();
    let layers = third.manifest("x/y", "zstd")["layers"].as_array().unwrap().clone();
    assert!(layers.iter().all(|layer| text(&layer["mediaType"]).ends_with("+zstd")), "{layers:?}");
}

fn a_repository_that_has_it_gives_it() {
    let (registry, (_place, engine)) = (Registry::start(), built());
    push_as(&engine, "app:1", &registry.name("team/app:1"));
    let other = Place::new();
    let elsewhere = other.engine();
    pull(&elsewhere, &registry.name("team/app:1"), Platforms::Host);
    registry.asked();
    push_as(&elsewhere, &registry.name("team/app:1"), &registry.name("other/app:2"));
    let asked = registry.asked();
    let sent = |line: &&String| line.starts_with("PUT") && line.contains("/blobs/");
    assert_eq!(asked.iter().filter(sent).count(), 0, "{asked:?}");
    assert_eq!(registry.manifest("team/app", "1"), registry.manifest("other/app", "2"));
}

/// `name` at a registry, as an index of two images and of what is attached to the first.
fn index_at(registry: &Registry, name: &str) -> Digest {
    let place = Place::new();
    let engine = place.engine();
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n")
        .platform("linux/amd64".parse().unwrap())
        .platform("linux/s390x".parse().unwrap())
        .tag(name)
        .output(Output::OciLayout(place.path().join("layout")));
    build(&engine, &request);
    attest(&place.path().join("layout"));
    let other = Place::new();
    let engine = other.engine();
    load(&engine, &place.path().join("layout"));
    let pushed = push(&engine, name);
    assert_eq!(registry.manifest(pushed.name.path(), pushed.name.tag().unwrap()), {
        registry.manifest(pushed.name.path(), &pushed.digest.to_string())
    });
    pushed.digest
}

/// Attaches a statement to the first image of a layout's index, as BuildKit does.
fn attest(layout: &Path) {
    let exported = Exported::from_directory(layout);
    let mut top = exported.json("index.json");
    let entry = top["manifests"][0].clone();
    let mut index: Value = serde_json::from_slice(exported.blob(&text(&entry["digest"]))).unwrap();
    let image = text(&index["manifests"][0]["digest"]);
    let hex = image.strip_prefix("sha256:").unwrap();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://spdx.dev/Document",
        "subject": [{ "name": "pkg:docker/app", "digest": { "sha256": hex } }],
        "predicate": {},
    });
    let kind = "application/vnd.in-toto+json";
    let layer = put(layout, kind, statement.to_string().as_bytes());
    let config = json!({
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config_kind = "application/vnd.oci.image.config.v1+json";
    let config = put(layout, config_kind, config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer],
    });
    let mut attached = put(layout, OCI_MANIFEST, manifest.to_string().as_bytes());
    attached["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attached["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image,
    });
    index["manifests"].as_array_mut().unwrap().push(attached);
    let mut renewed = put(layout, OCI_INDEX, index.to_string().as_bytes());
    renewed["annotations"] = entry["annotations"].clone();
    top["manifests"][0] = renewed;
    fs_err::write(layout.join("index.json"), top.to_string()).unwrap();
}

fn an_index_is_pulled_whole_or_in_part() {
    let registry = Registry::start();
    let name = registry.name("team/app:1");
    let digest = index_at(&registry, &name);
    let whole = Place::new();
    let engine = whole.engine();
    let pulled = pull(&engine, &name, Platforms::All);
    assert_eq!((pulled.digest, pulled.id), (digest, digest));
    let details = engine.image_config_for(&name, &"linux/s390x".parse().unwrap()).unwrap();
    assert_eq!(details.config.architecture, "s390x");
    let attached: Vec<_> = details.manifests.iter().map(|entry| entry.attests.is_some()).collect();
    assert_eq!(attached, [false, false, true]);
    let copy = Registry::start();
    assert_eq!(push_as(&engine, &name, &copy.name("copy:1")), digest);
    assert_eq!(copy.manifest("copy", "1")["manifests"].as_array().unwrap().len(), 3);

    let part = Place::new();
    let engine = part.engine();
    let s390x = Platforms::One("linux/s390x".parse().unwrap());
    assert_eq!(pull(&engine, &name, s390x).digest, digest);
    let details = engine.image_config(&name).unwrap();
    assert_eq!((details.config.architecture.as_str(), details.manifests.len()), ("s390x", 0));
    let [amd64, s390x] = ["linux/amd64", "linux/s390x"].map(|text| text.parse().unwrap());
    assert!(engine.image_config_for(&name, &amd64).is_err());
    assert!(engine.history_for(&name, &s390x).unwrap()[0].created_by.starts_with("COPY"));
    let here = pull(&engine, &name, Platforms::Host);
    assert!(here.is_new && here.id != details.id);
    let nowhere = request(&name, Platforms::One("linux/riscv64".parse().unwrap()));
    let error = engine.pull_image(&nowhere, &Silent, &never()).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64") && error.contains("linux/s390x"), "{error}");
}

fn all_tags_go_and_come() {
    let (registry, (place, engine)) = (Registry::start(), built());
    for tag in ["1", "2"] {
        engine.tag_image("app:1", &registry.name(&format!("team/app:{tag}"))).unwrap();
    }
    let third = place.request("FROM base\nRUN echo 3 > /two\n").tag(registry.name("team/app:3"));
    build(&engine, &third);
    let all =
        PushRequest { image: registry.name("team/app"), all_tags: true, ..PushRequest::default() };
    let pushed = engine.push_image(&all, &Silent, &never()).unwrap();
    let tags: Vec<_> = pushed.iter().map(|image| image.name.tag().unwrap()).collect();
    assert_eq!(tags, ["1", "2", "3"]);
    assert!(pushed[0].digest == pushed[1].digest && pushed[1].digest != pushed[2].digest);

    let other = Place::new();
    let engine = other.engine();
    let request =
        PullRequest { all_tags: true, ..request(&registry.name("team/app"), Platforms::Host) };
    let pulled = engine.pull_image(&request, &Silent, &never()).unwrap();
    assert_eq!(pulled.len(), 3);
    assert_eq!(engine.images().unwrap().len(), 3);
}

fn what_is_saved_is_what_a_build_writes() {
    let place = Place::new();
    let engine = place.engine();
    let at = |name: &str| place.path().join(name);
    let request = place
        .request(TEXT)
        .tag("app:1")
        .output(Output::OciArchive(at("built.tar").into()))
        .output(Output::DockerArchive(at("docker.tar").into()));
    build(&engine, &request);
    save(&engine, &["app:1"], Output::OciArchive(at("saved.tar").into()), None);
    let (built, saved) = (fs_err::read(at("built.tar")), fs_err::read(at("saved.tar")));
    assert!(built.unwrap() == saved.unwrap(), "the archives differ");
    Exported::from_tar(&at("saved.tar")).check();
    let gzip = Some(ImageForm::default());
    save(&engine, &["app:1"], Output::DockerArchive(at("saved.docker.tar").into()), gzip);
    let (built, saved) = (fs_err::read(at("docker.tar")), fs_err::read(at("saved.docker.tar")));
    assert!(built.unwrap() == saved.unwrap(), "the archives differ");
    save(&engine, &["app:1"], Output::OciLayout(at("layout")), None);
    Exported::from_directory(&at("layout")).check();

    // Elsewhere the layers are what they were here, and leave so.
    let other = Place::new();
    let elsewhere = other.engine();
    let [loaded] = load(&elsewhere, &at("saved.tar")).try_into().unwrap();
    assert_eq!(loaded.names, ["app:1".parse::<Reference>().unwrap()]);
    let again = other.path().join("again.tar");
    save(&elsewhere, &["app:1"], Output::OciArchive(again.clone().into()), None);
    assert!(fs_err::read(&again).unwrap() == fs_err::read(at("saved.tar")).unwrap());
}

fn an_archive_for_docker_keeps_the_image_id() {
    let (place, engine) = built();
    let path = place.path().join("app.tar");
    save(&engine, &["app:1"], Output::DockerArchive(path.clone().into()), None);
    let saved = Exported::from_tar(&path);
    saved.check();
    let kind = saved.manifest()["layers"][0]["mediaType"].clone();
    assert_eq!(kind, "application/vnd.oci.image.layer.v1.tar", "uncompressed");
    let other = Place::new();
    let elsewhere = other.engine();
    let [loaded] = load(&elsewhere, &path).try_into().unwrap();
    assert_eq!(loaded.id, engine.find_image("app:1").unwrap().image_id);
    assert_eq!(other.sh(&elsewhere, "app:1", "cat /two"), "two\n");
    // What came uncompressed is compressed where it goes to a registry, as if it were built there.
    let registry = Registry::start();
    let ours = push_as(&engine, "app:1", &registry.name("ours:1"));
    assert_eq!(push_as(&elsewhere, "app:1", &registry.name("theirs:1")), ours);
}

/// An archive as docker and podman wrote it before there was an OCI index in it.
fn classic(layout: &Exported, change: impl Fn(usize, Vec<u8>) -> Vec<u8>, links: bool) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header
    };
    let mut names = Vec::new();
    for (number, layer) in layout.layers().into_iter().enumerate() {
        let bytes = change(number, layer);
        let blob = format!("{number:064}.tar");
        tar.append_data(&mut header(bytes.len()), &blob, bytes.as_slice()).unwrap();
        names.push(match links {
            false => blob,
            true => {
                let name = format!("{number}/layer.tar");
                let mut link = header(0);
                link.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut link, &name, format!("../{blob}")).unwrap();
                name
            }
        });
    }
    let config = layout.blob(&layout.config_digest());
    tar.append_data(&mut header(config.len()), "config.json", config).unwrap();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": ["old:1", "old:2"], "Layers": names }]);
    let manifest = manifest.to_string();
    tar.append_data(&mut header(manifest.len()), "manifest.json", manifest.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn exported(place: &Place, engine: &Engine) -> Exported {
    let path = place.path().join("exported.tar");
    save(engine, &["app:1"], Output::OciArchive(path.clone().into()), None);
    Exported::from_tar(&path)
}

fn layers_that_are_links_and_gzip_around_everything_are_read() {
    let (place, engine) = built();
    let bytes = classic(&exported(&place, &engine), |_, layer| layer, true);
    let path = place.path().join("old.tar.gz");
    let file = fs_err::File::create(&path).unwrap();
    let mut writer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    writer.write_all(&bytes).unwrap();
    writer.finish().unwrap();
    let other = Place::new();
    let elsewhere = other.engine();
    let [loaded] = load(&elsewhere, &path).try_into().unwrap();
    let names = ["old:1", "old:2"].map(|name| name.parse::<Reference>().unwrap());
    assert_eq!(
        (loaded.id, loaded.names),
        (engine.find_image("app:1").unwrap().image_id, names.into())
    );
    assert_eq!(other.sh(&elsewhere, "old:2", "cat /two"), "two\n");
    assert_eq!(other.leftovers(), Vec::<String>::new());
    // The same from a stream.
    let stream = LoadSource::Stream(Box::new(bytes.as_slice()));
    assert_eq!(elsewhere.load_images(stream, None, &Silent, &never()).unwrap()[0].id, loaded.id);
}

fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let (place, engine) = built();
    let layout = exported(&place, &engine);
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    for compressed in [false, true] {
        let change = |number: usize, mut layer: Vec<u8>| {
            if number == 2 {
                // The zeros behind the last entry: every reader unpacks the same without them.
                layer.truncate(layer.len() - 512);
            }
            if compressed { gzip(&layer) } else { layer }
        };
        let path = place.path().join("bad.tar");
        fs_err::write(&path, classic(&layout, change, false)).unwrap();
        let other = Place::new();
        let error = load_error(&other.engine(), &path).to_string();
        assert!(error.contains("sha256:") || error.contains("it was said to be"), "{error}");
        assert_eq!(other.leftovers(), Vec::<String>::new());
        // Also where the layers are there already.
        let elsewhere = Place::new();
        let engine = elsewhere.engine();
        fs_err::write(&path, classic(&layout, |_, layer| layer, false)).unwrap();
        load(&engine, &path);
        fs_err::write(&path, classic(&layout, change, false)).unwrap();
        let source = LoadSource::Path(path);
        assert!(engine.load_images(source, None, &Silent, &never()).is_err());
    }
}

fn an_index_that_lacks_images_gives_the_one_that_is_there() {
    let place = Place::new();
    let layout = place.path().join("layout");
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n")
        .platform("linux/amd64".parse().unwrap())
        .platform("linux/s390x".parse().unwrap())
        .tag("two:1")
        .output(Output::OciLayout(layout.clone()));
    build(&place.engine(), &request);
    let exported = Exported::from_directory(&layout);
    let entry = text(&exported.json("index.json")["manifests"][0]["digest"]);
    let index: Value = serde_json::from_slice(exported.blob(&entry)).unwrap();
    let gone = text(&index["manifests"][0]["digest"]);
    let hex = gone.strip_prefix("sha256:").unwrap();
    fs_err::remove_file(layout.join("blobs/sha256").join(hex)).unwrap();
    let other = Place::new();
    let engine = other.engine();
    let [loaded] = load(&engine, &layout).try_into().unwrap();
    assert_eq!(loaded.names, ["two:1".parse::<Reference>().unwrap()]);
    assert_eq!(engine.image_config("two:1").unwrap().config.architecture, "s390x");
}

fn only_the_image_for_a_platform_is_loaded() {
    let place = Place::new();
    let engine = place.engine();
    let build_for = |name: &str, platforms: &[&str]| {
        let request = BuildRequest::new(place.context())
            .dockerfile_text("FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n")
            .tag(name);
        let with = |request: BuildRequest, one: &&str| request.platform(one.parse().unwrap());
        build(&engine, &platforms.iter().fold(request, with));
    };
    build_for("two:1", &["linux/amd64", "linux/s390x"]);
    build_for("one:1", &["linux/arm64"]);
    let layout = place.path().join("layout");
    save(&engine, &["two:1", "one:1"], Output::OciLayout(layout.clone()), None);
    let docker = place.path().join("docker.tar");
    save(&engine, &["one:1"], Output::DockerArchive(docker.clone().into()), None);
    let load_for = |engine: &Engine, path: &Path, platform: &str| {
        let platform = Some(platform.parse().unwrap());
        let source = LoadSource::Path(path.to_owned());
        engine.load_images(source, platform.as_ref(), &Silent, &never())
    };
    for (path, platform, name, architecture) in [
        (&layout, "linux/s390x", "two:1", "s390x"),
        (&layout, "linux/arm64", "one:1", "arm64"),
        (&docker, "linux/arm64/v8", "one:1", "arm64"),
    ] {
        let other = Place::new();
        let elsewhere = other.engine();
        let [loaded] = load_for(&elsewhere, path, platform).unwrap().try_into().unwrap();
        assert_eq!(loaded.names, [name.parse::<Reference>().unwrap()]);
        let details = elsewhere.image_config(name).unwrap();
        assert_eq!(details.config.architecture, architecture);
        assert_eq!((details.manifests.len(), elsewhere.images().unwrap().len()), (0, 1));
    }
    let other = Place::new();
    let elsewhere = other.engine();
    let refused = |path, platform| load_for(&elsewhere, path, platform).unwrap_err().to_string();
    assert_eq!(
        refused(&layout, "linux/riscv64"),
        "no image for platform linux/riscv64; there are: linux/amd64, linux/arm64, linux/s390x"
    );
    assert!(refused(&docker, "linux/amd64").ends_with("there are: linux/arm64"));
    assert_eq!(elsewhere.images().unwrap(), []);
}

fn a_directory_of_skopeo_is_read() {
    let (place, engine) = built();
    let exported = exported(&place, &engine);
    let directory = place.path().join("dir");
    fs_err::create_dir(&directory).unwrap();
    for (name, bytes) in &exported.0 {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            fs_err::write(directory.join(hex), bytes).unwrap();
        }
    }
    let manifest = exported.blob(&exported.manifest_digest());
    fs_err::write(directory.join("manifest.json"), manifest).unwrap();
    fs_err::write(directory.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let other = Place::new();
    let elsewhere = other.engine();
    let [loaded] = load(&elsewhere, &directory).try_into().unwrap();
    assert_eq!(loaded.names, []);
    let record = elsewhere.find_image(&loaded.id.to_string()).unwrap();
    assert_eq!(record.manifest_digest.to_string(), exported.manifest_digest());
    // A blob that is a link to elsewhere is no blob.
    let layer = text(&exported.manifest()["layers"][0]["digest"]);
    let blob = directory.join(layer.strip_prefix("sha256:").unwrap());
    fs_err::rename(&blob, place.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path().join("elsewhere"), &blob).unwrap();
    let error = load_error(&Place::new().engine(), &directory);
    assert!(matches!(error, BuildError::Image(_)), "{error:?}");
}

fn what_is_no_archive_is_refused() {
    let place = Place::new();
    let engine = place.engine();
    let path = place.path().join("x");
    for bytes in [
        Vec::new(),
        b"no".to_vec(),
        vec![0x1f, 0x8b, 8, 0],
        tar::Builder::new(Vec::new()).into_inner().unwrap(),
    ] {
        fs_err::write(&path, bytes).unwrap();
        let error = load_error(&engine, &path).to_string();
        assert!(error.contains("archive"), "{error}");
    }
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    tar.append_data(&mut header, "hello.txt", &b"hi"[..]).unwrap();
    fs_err::write(&path, tar.into_inner().unwrap()).unwrap();
    let error = load_error(&engine, &path).to_string();
    assert!(error.contains("manifest.json"), "{error}");
    let error = load_error(&engine, place.path()).to_string();
    assert!(error.contains("oci-layout"), "{error}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_name_without_a_tag_is_all_its_tags() {
    let (place, engine) = built();
    engine.tag_image("app:1", "app:2").unwrap();
    engine.tag_image("app:1", "other:1").unwrap();
    let path = place.path().join("all.tar");
    let names = |images: &[&str]| {
        save(&engine, images, Output::DockerArchive(path.clone().into()), None);
        Exported::from_tar(&path).json("manifest.json")[0]["RepoTags"].clone()
    };
    assert_eq!(names(&["app"]), json!(["app:1", "app:2"]));
    assert_eq!(names(&["app:2", "other:1"]), json!(["app:2", "other:1"]));
    let id = engine.find_image("app:1").unwrap().image_id;
    assert_eq!(names(&[&id.to_string()]), Value::Null);
}

fn attestations_follow_their_image() {
    let registry = Registry::start();
    let name = registry.name("team/app:1");
    index_at(&registry, &name);
    let place = Place::new();
    let engine = place.engine();
    pull(&engine, &name, Platforms::All);
    let layout = place.path().join("layout");
    let zstd = ImageForm { encoding: Encoding::ZSTD, force: true, family: None };
    save(&engine, &[&name], Output::OciLayout(layout.clone()), Some(zstd));
    let exported = Exported::from_directory(&layout);
    let parse =
        |digest: &Value| -> Value { serde_json::from_slice(exported.blob(&text(digest))).unwrap() };
    let index = parse(&exported.json("index.json")["manifests"][0]["digest"]);
    let (image, attached) = (&index["manifests"][0], &index["manifests"][2]);
    assert_eq!(attached["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let before = registry.manifest("team/app", "1");
    assert_ne!(before["manifests"][0]["digest"], image["digest"]);
    let manifest = parse(&attached["digest"]);
    let statement = parse(&manifest["layers"][0]["digest"]);
    let subject = format!("sha256:{}", text(&statement["subject"][0]["digest"]["sha256"]));
    assert_eq!(subject, text(&image["digest"]));
    let config = parse(&manifest["config"]["digest"]);
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
}

fn an_image_has_to_go_somewhere() {
    let (_place, engine) = built();
    let id = engine.find_image("app:1").unwrap().image_id.to_string();
    for image in [id.as_str(), "nothing:1"] {
        let request = PushRequest { image: image.to_owned(), ..PushRequest::default() };
        let error = engine.push_image(&request, &Silent, &never()).unwrap_err();
        match image {
            "nothing:1" => assert!(matches!(error, BuildError::NoSuchImage { .. })),
            _ => assert!(error.to_string().contains("rbuild tag"), "{error}"),
        }
    }
}

fn the_wrong_platform_is_not_taken() {
    let (registry, place) = (Registry::start(), Place::new());
    let engine = place.engine();
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nCOPY busybox /\n")
        .platform("linux/s390x".parse().unwrap())
        .tag(registry.name("app:1"));
    let built = build(&engine, &request);
    push(&engine, &registry.name("app:1"));
    let other = Place::new();
    let elsewhere = other.engine();
    let arm = Platforms::One("linux/arm64".parse().unwrap());
    let asked = self::request(&registry.name("app:1"), arm);
    let error = elsewhere.pull_image(&asked, &Silent, &never()).unwrap_err().to_string();
    assert!(error.contains("linux/s390x"), "{error}");
    // Without a wish there is no other, and somebody may want to look at it.
    let pulled = pull(&elsewhere, &registry.name("app:1"), Platforms::Host);
    assert_eq!(pulled.id, id(&built));
}

fn images_are_pruned_with_what_only_they_used() {
    let (place, engine) = built();
    let archive = place.path().join("app.tar");
    save(&engine, &["app:1"], Output::OciArchive(archive.clone().into()), None);
    let other = Place::new();
    let engine = other.engine();
    load(&engine, &archive);
    let prune = |which: &ImagePrune| engine.prune_images(which, &Silent, &never()).unwrap();
    assert_eq!(prune(&ImagePrune::default()).0, RemovedImage::default());
    let all = ImagePrune { all: true, ..ImagePrune::default() };
    let label = ("kept".to_owned(), None);
    assert_eq!(prune(&ImagePrune { labels: vec![label], ..all.clone() }).0.deleted, []);
    assert_eq!(prune(&ImagePrune { until: Some(1), ..all.clone() }).0.deleted, []);
    let (removed, pruned) = prune(&all);
    assert_eq!((removed.untagged, removed.deleted.len()), (vec!["app:1".to_owned()], 1));
    assert!(pruned.bytes > 1 << 20, "{pruned:?}");
    assert_eq!((engine.images().unwrap(), engine.rows().unwrap()), (vec![], vec![]));
    // What is build cache too stays.
    let engine = place.engine();
    engine.prune_images(&all, &Silent, &never()).unwrap();
    let again = build(&engine, &place.request(TEXT).tag("app:1"));
    assert_eq!(again.executed, 0);
}

fn what_a_container_runs_from_is_not_pruned() {
    let (_place, engine) = built();
    let container = engine.create("keeper", "app:1", shell("true")).unwrap();
    let all = ImagePrune { all: true, ..ImagePrune::default() };
    let prune = || engine.prune_images(&all, &Silent, &never()).unwrap().0;
    assert_eq!(prune(), RemovedImage::default());
    container.delete().unwrap();
    assert_eq!(prune().untagged, ["app:1"]);
}

fn a_name_with_a_digest_is_that_images_alone() {
    let (place, engine) = built();
    let layout = place.path().join("layout");
    save(&engine, &["app:1"], Output::OciLayout(layout.clone()), None);
    let mut index = Exported::from_directory(&layout).json("index.json");
    let other = Digest::of("other");
    let name = format!("docker.io/library/alpine@{other}");
    index["manifests"][0]["annotations"]["io.containerd.image.name"] = json!(name);
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    let elsewhere = Place::new();
    let engine = elsewhere.engine();
    let [loaded] = load(&engine, &layout).try_into().unwrap();
    assert_eq!(loaded.names, []);
    assert!(engine.find_image(&name).is_err());
    assert!(engine.tag_image(&loaded.id.to_string(), &name).is_err());
    assert!(engine.find_image(&name).is_err());
    // One that is out of an index with the digest is found by that.
    let registry = Registry::start();
    let digest = index_at(&registry, &registry.name("team/app:1"));
    let pinned = format!("{}@{digest}", registry.name("team/app"));
    let pulled = pull(&engine, &pinned, Platforms::Host);
    assert_eq!(pulled.digest, digest);
    assert_eq!(engine.find_image(&pinned).unwrap().image_id, pulled.id);
}

fn indexes_in_an_archive_do_not_nest_for_ever() {
    let place = Place::new();
    let layout = place.path().join("layout");
    fs_err::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let absent = json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of("no"), "size": 2 });
    let mut top = absent.clone();
    for _ in 0..2000 {
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [absent, top],
        });
        top = put(&layout, OCI_INDEX, index.to_string().as_bytes());
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [top] });
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let error = load_error(&place.engine(), &layout).to_string();
    assert!(error.contains("inside one another"), "{error}");
}

fn a_layer_of_a_base_is_found_where_it_lies() {
    let (registry, (_first, engine)) = (Registry::start(), built());
    push_as(&engine, "app:1", &registry.name("team/base:1"));
    let place = Place::new();
    let engine = place.engine();
    let text = format!("FROM {}\nCOPY busybox /more\n", registry.name("team/base:1"));
    let request = BuildRequest::new(place.context()).dockerfile_text(text);
    let target = Registry::start();
    build(&engine, &request.clone().tag(target.name("team/app:1")));
    // The bytes of the base go, its files stay.
    for layer in registry.manifest("team/base", "1")["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let hex = digest.strip_prefix("sha256:").unwrap();
        fs_err::remove_file(place.store().join("blobs/sha256").join(hex)).unwrap();
    }
    push(&engine, &target.name("team/app:1"));
    let layers = target.manifest("team/app", "1")["layers"].as_array().unwrap().len();
    assert_eq!(layers, 4);
    // In its own registry they are mounted.
    registry.asked();
    push_as(&engine, &target.name("team/app:1"), &registry.name("team/more:1"));
    let asked = registry.asked();
    let mounted = asked
        .iter()
        .filter(|line| line.contains("from=team%2Fbase") || line.contains("from=team/base"));
    assert_eq!(mounted.count(), 3, "{asked:?}");
}
