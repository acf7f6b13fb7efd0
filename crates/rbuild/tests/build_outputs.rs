//! What outputs say of an image, and by which names it goes out.

use rbuild::{
    Annotation, AnnotationPlace, BuildError, BuildRequest, Export, Output, Platform, Reference,
};
use serde_json::{Value, json};

use crate::build_push::Registry;
use crate::exported::{Exported, text};
use crate::support::{Place, build, build_error};
use crate::tests;

tests![
    annotations_stand_where_they_were_put,
    an_index_annotation_needs_an_index,
    annotations_of_the_store_go_with_the_image,
    what_is_pushed_by_digest_moves_no_tag,
    every_output_has_its_own_name,
    an_image_may_be_named_by_its_digest,
    what_is_not_in_the_image_is_removed_if_asked,
];

const TEXT: &str = "FROM base\nRUN echo two > /two\n";

fn annotation(place: AnnotationPlace, platform: Option<&str>, value: &str) -> Annotation {
    Annotation {
        place,
        platform: platform.map(|text| text.parse().unwrap()),
        name: "org.example.what".to_owned(),
        value: value.to_owned(),
    }
}

/// A request for two platforms.
fn two(place: &Place) -> BuildRequest {
    let platform = |text: &str| -> Platform { text.parse().unwrap() };
    BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n")
        .platform(platform("linux/arm64"))
        .platform(platform("linux/s390x"))
}

fn annotations_stand_where_they_were_put() {
    use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
    let place = Place::new();
    let layout = place.path().join("layout");
    let mut request = two(&place).tag("app:1");
    request.annotations = vec![
        annotation(Manifest, Some("linux/s390x"), "of s390x"),
        annotation(Index, None, "of the index"),
        annotation(IndexDescriptor, None, "of its descriptor"),
    ];
    let own = vec![
        annotation(Manifest, None, "of all"),
        annotation(ManifestDescriptor, Some("linux/arm64"), "of arm64's descriptor"),
    ];
    let output = Export { annotations: own, ..Export::from(Output::OciLayout(layout.clone())) };
    let built = build(&place.engine(), &request.output(output));
    let exported = Exported::from_directory(&layout);
    exported.check();
    let what = |document: &Value| document["annotations"]["org.example.what"].clone();
    let top = &exported.json("index.json")["manifests"][0];
    assert_eq!(what(top), "of its descriptor");
    let parse =
        |digest: &Value| -> Value { serde_json::from_slice(exported.blob(&text(digest))).unwrap() };
    let index = parse(&top["digest"]);
    assert_eq!(what(&index), "of the index");
    assert_eq!(what(&index["manifests"][0]), "of arm64's descriptor");
    assert_eq!(what(&index["manifests"][1]), Value::Null);
    assert_eq!(what(&parse(&index["manifests"][0]["digest"])), "of all");
    assert_eq!(what(&parse(&index["manifests"][1]["digest"])), "of s390x");
    let left = built.image.unwrap().exported.unwrap();
    assert_eq!(left.annotations["org.example.what"], "of its descriptor");
}

fn an_index_annotation_needs_an_index() {
    let place = Place::new();
    for at in [AnnotationPlace::Index, AnnotationPlace::IndexDescriptor] {
        let mut request = place.request(TEXT);
        request.annotations = vec![annotation(at, None, "x")];
        let error = build_error(&place.engine(), &request);
        assert!(matches!(error, BuildError::Request { .. }), "{error:?}");
        assert!(error.to_string().contains("org.example.what"), "{error}");
    }
}

fn annotations_of_the_store_go_with_the_image() {
    let (registry, place) = (Registry::start(), Place::new());
    let engine = place.engine();
    let mut request = place.request(TEXT).tag(registry.name("app:1"));
    request.annotations = vec![annotation(AnnotationPlace::Manifest, None, "kept")];
    build(&engine, &request);
    let push = rbuild::PushRequest { image: registry.name("app:1"), ..Default::default() };
    engine.push_image(&push, &rbuild::Silent, &rbuild::CancelToken::default()).unwrap();
    let manifest = registry.manifest("app", "1");
    assert_eq!(manifest["annotations"], json!({ "org.example.what": "kept" }));
}

fn what_is_pushed_by_digest_moves_no_tag() {
    let (registry, place) = (Registry::start(), Place::new());
    let output = Output::Registry { insecure: false, by_digest: true };
    let output = Export { names: vec![registry.name("team/app")], ..Export::from(output) };
    let built = build(&place.engine(), &place.request(TEXT).output(output));
    let image = built.image.unwrap();
    let digest = image.exported.unwrap().digest;
    assert_eq!(registry.manifest("team/app", &digest.to_string())["schemaVersion"], 2);
    let asked = registry.asked();
    let put = |line: &&String| line.starts_with("PUT") && line.contains("/manifests/");
    assert_eq!(asked.iter().filter(put).count(), 1, "{asked:?}");
    assert_eq!(image.names, Vec::<String>::new());
}

fn every_output_has_its_own_name() {
    let (registry, place) = (Registry::start(), Place::new());
    let archive = place.path().join("app.tar");
    let named = |name: String, output: Output| Export { names: vec![name], ..Export::from(output) };
    let push = Output::Registry { insecure: false, by_digest: false };
    let request = place
        .request(TEXT)
        .tag("store:1")
        .output(named(registry.name("pushed:1"), push))
        .output(named("saved:1".to_owned(), Output::OciArchive(archive.clone().into())));
    let engine = place.engine();
    build(&engine, &request);
    let entry = &Exported::from_tar(&archive).json("index.json")["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/library/saved:1");
    assert_eq!(registry.manifest("pushed", "1")["schemaVersion"], 2);
    let names: Vec<_> =
        engine.images().unwrap().into_iter().filter_map(|it| it.reference).collect();
    assert_eq!(names, ["store:1".parse::<Reference>().unwrap()]);
}

fn an_image_may_be_named_by_its_digest() {
    let place = Place::new();
    let engine = place.engine();
    let request = BuildRequest { canonical_names: true, ..place.request(TEXT).tag("app:1") };
    let digest = build(&engine, &request).image.unwrap().manifest_digest;
    assert_eq!(engine.find_image(&format!("app@{digest}")).unwrap().manifest_digest, digest);
    let dangling = Some("left/over".to_owned());
    let text = format!("{TEXT}RUN echo three > /three\n");
    let request = BuildRequest { dangling_name: dangling, ..place.request(&text) };
    let image = build(&engine, &request).image.unwrap();
    let name = format!("docker.io/left/over@{}", image.manifest_digest);
    assert_eq!(image.names, std::slice::from_ref(&name));
    assert_eq!(engine.find_image(&name).unwrap().manifest_digest, image.manifest_digest);
}

fn what_is_not_in_the_image_is_removed_if_asked() {
    let place = Place::new();
    let target = place.path().join("out");
    fs_err::create_dir_all(target.join("old/deep")).unwrap();
    let output = |output: Output| {
        BuildRequest::new(place.context())
            .dockerfile_text("FROM scratch\nCOPY busybox /bin/\n")
            .output(output)
    };
    build(&place.engine(), &output(Output::Directory(target.clone())));
    assert!(target.join("old").exists() && target.join("bin/busybox").exists());
    build(&place.engine(), &output(Output::ExactDirectory(target.clone())));
    assert!(!target.join("old").exists() && target.join("bin/busybox").exists());
}
