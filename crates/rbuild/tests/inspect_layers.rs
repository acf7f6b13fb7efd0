//! What `Engine::layers` says of images.

use rbuild::{BuildRequest, CancelToken, Fate, ImageLayers, Output, Silent};

use crate::support::{Place, build};
use crate::tests;

tests![
    whiteouts_and_opaque_directories_waste_what_they_hide,
    a_layer_that_is_a_blob_is_unpacked_to_be_looked_at,
];

fn layers(engine: &rbuild::Engine, image: &str) -> ImageLayers {
    engine.layers(image, None, &Silent, &CancelToken::default()).unwrap()
}

fn fate(image: &ImageLayers, layer: usize, path: &str) -> Option<(u64, Fate)> {
    let found = image.versions().find(|one| one.layer == layer && one.path == path.as_bytes());
    found.map(|one| (one.size, one.fate))
}

fn whiteouts_and_opaque_directories_waste_what_they_hide() {
    let place = Place::new();
    let engine = place.engine();
    let text = "\
FROM base
RUN mkdir -p /d/deep /e && seq 1000 > /d/deep/file && seq 10 > /e/gone && ln /e/gone /e/other
RUN rm -r /d && mkdir /d && echo new > /d/new && rm /e/gone
RUN chmod 600 /e/other
";
    build(&engine, &place.request(text).tag("app"));
    let image = layers(&engine, "app");
    assert_eq!(image.name.as_deref(), Some("app:latest"));
    assert_eq!(image.layers.len(), 5);
    assert!(image.layers[2].created_by.starts_with("RUN /bin/sh -c mkdir"), "{image:?}");
    assert_eq!(fate(&image, 2, "d/deep/file"), Some((3893, Fate::Removed(3))));
    assert_eq!(fate(&image, 3, "d/new"), Some((4, Fate::Kept)));
    // The bytes of a file with two names count once, for the first.
    assert_eq!(fate(&image, 2, "e/gone"), Some((21, Fate::Removed(3))));
    assert_eq!(fate(&image, 2, "e/other"), Some((0, Fate::Replaced(4))));
    assert_eq!(fate(&image, 4, "e/other"), Some((21, Fate::Kept)));
    let doings: Vec<_> = image.layers[2..]
        .iter()
        .map(|layer| (layer.added, layer.changed, layer.removed, layer.bytes, layer.wasted))
        .collect();
    assert_eq!(doings, [(3, 0, 0, 3914, 3914), (1, 0, 2, 4, 0), (0, 1, 0, 21, 0)]);
    assert_eq!(image.wasted(), 3914);
    assert!(image.efficiency() < 1.0 && image.efficiency() > 0.9, "{}", image.efficiency());
    let largest = image.largest(1, |file| file.fate != Fate::Kept);
    assert_eq!(largest[0].path, b"d/deep/file");
    let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.size).collect();
    let history: Vec<u64> = engine
        .history("app")
        .unwrap()
        .iter()
        .rev()
        .filter(|line| !line.empty_layer)
        .map(|line| line.size)
        .collect();
    assert_eq!(sizes, history);
}

fn a_layer_that_is_a_blob_is_unpacked_to_be_looked_at() {
    let place = Place::new();
    let other = Place::new();
    place.write("file", "content");
    let layout = place.path().join("layout");
    let request = BuildRequest::new(place.context()).dockerfile_text("FROM scratch\nCOPY file /\n");
    build(&place.engine(), &request.output(Output::OciLayout(layout.clone())));
    let engine = other.engine();
    let from = rbuild::NamedContextInput::OciLayout { path: layout, tag: None, digest: None };
    let request = BuildRequest::new(other.context())
        .dockerfile_text("FROM one\nLABEL a=b\n")
        .build_context("one", from)
        .tag("two");
    build(&engine, &request);
    let image = layers(&engine, "two");
    assert_eq!(fate(&image, 0, "file"), Some((7, Fate::Kept)));
    assert_eq!(other.leftovers(), Vec::<String>::new());
}
