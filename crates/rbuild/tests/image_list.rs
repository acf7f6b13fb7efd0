//! Manifest lists made by hand.

use rbuild::{
    BuildError, BuildRequest, CancelToken, Engine, ListChange, Output, PushRequest, Reference,
    Silent,
};
use serde_json::json;

use crate::build_push::Registry;
use crate::support::{Place, build};
use crate::tests;

tests![
    images_of_two_repositories_are_put_together,
    a_list_of_images_in_the_store_is_pushed_with_them,
    entries_are_changed_and_taken_out,
    a_name_is_not_taken_over,
    those_who_add_at_once_lose_nothing,
];

fn never() -> CancelToken {
    CancelToken::default()
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

fn create(engine: &Engine, name: &str, members: &[&str], amend: bool) -> Result<(), BuildError> {
    let members: Vec<_> = members.iter().map(|member| (*member).to_owned()).collect();
    engine.create_list(&reference(name), &members, amend, &Silent, &never()).map(drop)
}

fn push(engine: &Engine, name: &str) {
    let request = PushRequest { image: name.to_owned(), ..PushRequest::default() };
    engine.push_image(&request, &Silent, &never()).unwrap();
}

/// An image for this architecture.
fn request(place: &Place, architecture: &str) -> BuildRequest {
    BuildRequest::new(place.context())
        .dockerfile_text(format!("FROM scratch\nCOPY busybox /{architecture}\n"))
        .platform(format!("linux/{architecture}").parse().unwrap())
}

fn images_of_two_repositories_are_put_together() {
    let (registry, place) = (Registry::start(), Place::new());
    let engine = place.engine();
    for architecture in ["arm64", "s390x"] {
        let name = registry.name(&format!("{architecture}/app:1"));
        let output = Output::Registry { insecure: false, by_digest: false };
        build(&engine, &request(&place, architecture).tag(name).output(output));
    }
    // Where nothing of them is known, only documents come, and layers are mounted.
    let other = Place::new();
    let engine = other.engine();
    let [arm, s390x, list] =
        ["arm64/app:1", "s390x/app:1", "team/app:1"].map(|name| registry.name(name));
    create(&engine, &list, &[&arm, &s390x], false).unwrap();
    registry.asked();
    push(&engine, &list);
    let asked = registry.asked();
    let count = |part: &str| asked.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("from=arm64/app"), count("from=s390x/app")), (1, 1), "{asked:?}");
    assert!(!asked.iter().any(|line| line.starts_with("GET") && line.contains("/blobs/")));
    let index = registry.manifest("team/app", "1");
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries[0]["platform"], json!({ "architecture": "arm64", "os": "linux" }));
    for (entry, repository) in entries.iter().zip(["arm64/app", "s390x/app"]) {
        let digest = entry["digest"].as_str().unwrap();
        assert_eq!(registry.manifest(repository, "1"), registry.manifest("team/app", digest));
    }
    let shown = engine.image_document(&list, &Silent, &never()).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&shown.bytes).unwrap(), index);
}

fn a_list_of_images_in_the_store_is_pushed_with_them() {
    let (registry, place) = (Registry::start(), Place::new());
    let engine = place.engine();
    for architecture in ["arm64", "s390x"] {
        build(&engine, &request(&place, architecture).tag(format!("app:{architecture}")));
    }
    let list = registry.name("team/app:1");
    create(&engine, &list, &["app:arm64"], false).unwrap();
    create(&engine, &list, &["app:s390x", "app:arm64"], true).unwrap();
    push(&engine, &list);
    let index = registry.manifest("team/app", "1");
    let architectures: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(architectures, ["s390x", "arm64"]);
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let manifest = registry.manifest("team/app", digest);
    let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
    assert!(kind.ends_with("+gzip"), "{kind}");
}

fn entries_are_changed_and_taken_out() {
    let place = Place::new();
    let engine = place.engine();
    for architecture in ["arm", "s390x"] {
        build(&engine, &request(&place, architecture).tag(format!("app:{architecture}")));
    }
    create(&engine, "list:1", &["app:arm", "app:s390x"], false).unwrap();
    let change = ListChange {
        variant: Some("v6".to_owned()),
        os_features: vec!["x".to_owned()],
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        ..ListChange::default()
    };
    let list = reference("list:1");
    engine.annotate_list(&list, "app:arm", &change, &Silent, &never()).unwrap();
    let shown = || -> serde_json::Value {
        let document = engine.image_document("list:1", &Silent, &never()).unwrap();
        serde_json::from_slice(&document.bytes).unwrap()
    };
    let entry = shown()["manifests"][0].clone();
    assert_eq!(entry["annotations"], json!({ "a": "b" }));
    let platform =
        json!({ "architecture": "arm", "os": "linux", "variant": "v6", "os.features": ["x"] });
    assert_eq!(entry["platform"], platform);
    // By its digest, which has no name of its own.
    let digest = entry["digest"].as_str().unwrap().to_owned();
    engine.remove_from_list(&list, std::slice::from_ref(&digest), &Silent, &never()).unwrap();
    assert_eq!(shown()["manifests"].as_array().unwrap().len(), 1);
    let gone = engine.remove_from_list(&list, &[digest], &Silent, &never());
    assert!(matches!(gone, Err(BuildError::NoSuchImage { .. })), "{gone:?}");
}

fn a_name_is_not_taken_over() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &request(&place, "arm64").tag("app:1"));
    let error = create(&engine, "app:1", &["app:1"], false).unwrap_err();
    assert!(error.to_string().contains("--amend"), "{error}");
    let error = create(&engine, "app:1", &["app:1"], true).unwrap_err();
    assert!(error.to_string().contains("no list"), "{error}");
    let missing = Registry::start().name("none:1");
    assert!(create(&engine, "list:1", &[&missing], false).is_err());
    assert!(engine.find_image("list:1").is_err());
}

fn those_who_add_at_once_lose_nothing() {
    let place = Place::new();
    let engine = place.engine();
    let architectures = ["amd64", "arm64", "s390x", "riscv64", "ppc64le", "386"];
    for architecture in architectures {
        build(&engine, &request(&place, architecture).tag(format!("app:{architecture}")));
    }
    create(&engine, "list:1", &[], false).unwrap();
    std::thread::scope(|scope| {
        for architecture in architectures {
            let place = &place;
            scope.spawn(move || {
                create(&place.engine(), "list:1", &[&format!("app:{architecture}")], true).unwrap();
            });
        }
    });
    let document = engine.image_document("list:1", &Silent, &never()).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&document.bytes).unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), architectures.len());
    assert!(engine.check_list(&reference("app:386")).is_err());
}
