//! Layers that are packaged in another way than they were built.

use rbuild::{BuildRequest, Built, Engine, Output, Packaging};
use serde_json::Value;

use crate::exported::{Exported, OCI_CONFIG, OCI_MANIFEST, put, text};
use crate::support::{Place, build, id};
use crate::tests;

tests![
    everything_upon_the_base_is_one_layer,
    as_many_layers_as_were_asked_for,
    the_base_is_in_it_too,
    steps_stay_cached_one_by_one,
    what_is_merged_shows_the_same_files,
    a_base_of_one_layer_is_kept_whole,
    a_base_without_history_is_built_upon,
];

const STEPS: &str = "\
FROM base
RUN mkdir -p /d/deep /gone/dir && echo 1 > /d/one && echo x > /gone/dir/x && ln /d/one /d/twin
RUN rm -r /gone && echo 2 > /d/two && rm /bin/vi
ENV A=1
RUN rm -r /d/deep && mkdir /d/deep && echo 3 > /d/deep/three && ln -s two /d/link && chmod 4755 /d/one
";

fn packaged(place: &Place, engine: &Engine, text: &str, packaging: Packaging) -> (Built, Exported) {
    let path = place.path().join("out.tar");
    let request = match text.contains("FROM base") || text.contains("FROM mine") {
        true => place.request(text),
        false => BuildRequest::new(place.context()).dockerfile_text(text),
    };
    let request = BuildRequest { packaging, ..request }
        .tag("app:1")
        .output(Output::OciArchive(path.clone().into()));
    let built = build(engine, &request);
    let exported = Exported::from_tar(&path);
    exported.check();
    (built, exported)
}

/// A place whose store has the base as an image, and a Dockerfile upon it.
fn based() -> (Place, Engine, String) {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("").tag("mine:1"));
    (place, engine, STEPS.replace("FROM base", "FROM mine:1"))
}

fn layers(exported: &Exported) -> usize {
    exported.manifest()["layers"].as_array().unwrap().len()
}

/// What the history says of layers, bottom first.
fn history(exported: &Exported) -> Vec<bool> {
    let config = exported.config();
    let lines = config["history"].as_array().unwrap();
    lines.iter().map(|line| line["empty_layer"] != Value::Bool(true)).collect()
}

fn everything_upon_the_base_is_one_layer() {
    let (place, engine, text) = based();
    let (_, plain) = packaged(&place, &engine, &text, Packaging::Each);
    assert_eq!(layers(&plain), 5);
    let (_, squashed) = packaged(&place, &engine, &text, Packaging::AtMost(1));
    assert_eq!(layers(&squashed), 3);
    assert_eq!(squashed.layers()[..2], plain.layers()[..2], "the base is as it was");
    assert_eq!(history(&squashed), [true, true, false, false, false, true]);
}

fn as_many_layers_as_were_asked_for() {
    let (place, engine, text) = based();
    let (_, plain) = packaged(&place, &engine, &text, Packaging::Each);
    let (_, two) = packaged(&place, &engine, &text, Packaging::AtMost(2));
    assert_eq!((layers(&two), history(&two)), (4, vec![true, true, false, true, false, true]));
    assert_eq!(two.layers()[3], plain.layers()[4], "the newest is what it was");
    for many in [3, 9] {
        let (_, same) = packaged(&place, &engine, &text, Packaging::AtMost(many));
        assert_eq!(same.manifest(), plain.manifest(), "{many}");
    }
}

fn the_base_is_in_it_too() {
    let (place, engine, text) = based();
    let (_, one) = packaged(&place, &engine, &text, Packaging::One);
    assert_eq!((layers(&one), history(&one).iter().filter(|layer| **layer).count()), (1, 1));
    let names: Vec<String> = names(&one.layers()[0]);
    assert!(!names.iter().any(|name| name.contains(".wh.")), "{names:?}");
    assert!(names.contains(&"bin/busybox".to_owned()) && !names.contains(&"bin/vi".to_owned()));
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        entry.unwrap().path().unwrap().display().to_string()
    };
    archive.entries().unwrap().map(name).collect()
}

fn steps_stay_cached_one_by_one() {
    let (place, engine, text) = based();
    let (first, squashed) = packaged(&place, &engine, &text, Packaging::AtMost(1));
    let (again, same) = packaged(&place, &engine, &text, Packaging::AtMost(1));
    assert_eq!((again.executed, id(&first)), (0, id(&again)));
    assert_eq!(squashed.manifest(), same.manifest());
    let more = format!("{text}RUN echo 4 > /four\n");
    let (built, _) = packaged(&place, &engine, &more, Packaging::AtMost(1));
    assert_eq!(built.executed, 1);
    // Another store makes the same of the same.
    let layout = place.path().join("layout");
    let request = BuildRequest { packaging: Packaging::AtMost(1), ..place.request(&text) };
    build(&engine, &request.output(Output::OciLayout(layout.clone())));
    assert_eq!(Exported::from_directory(&layout).manifest()["layers"], same.manifest()["layers"]);
}

fn what_is_merged_shows_the_same_files() {
    let (place, engine, text) = based();
    let script = "for file in $(find /d /gone /bin/vi /bin/sh 2>/dev/null | sort); do \
                  stat -c '%n %F %a %u %Y %s' $file; done";
    let listing = |packaging| {
        packaged(&place, &engine, &text, packaging);
        place.sh(&engine, "app:1", script)
    };
    let each = listing(Packaging::Each);
    assert!(each.contains("/d/deep/three") && each.contains("/d/one regular file 4755"), "{each}");
    assert!(!each.contains("/gone") && !each.contains("/bin/vi "), "{each}");
    for packaging in [Packaging::AtMost(2), Packaging::AtMost(1), Packaging::One] {
        assert_eq!(listing(packaging), each, "{packaging:?}");
    }
    let config = text_of(&place, &engine);
    assert!(config.contains("A=1"), "{config}");
}

fn text_of(place: &Place, engine: &Engine) -> String {
    let exported = packaged(place, engine, STEPS, Packaging::One).1;
    text(&exported.config()["config"]["Env"][1])
}

fn a_base_of_one_layer_is_kept_whole() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM scratch\nCOPY busybox /bin/\n";
    build(&engine, &BuildRequest::new(place.context()).dockerfile_text(text).tag("one:1"));
    let text = "FROM one:1\nENV A=1\n";
    let (_, one) = packaged(&place, &engine, text, Packaging::One);
    assert_eq!(layers(&one), 1);
    assert!(names(&one.layers()[0]).contains(&"bin/busybox".to_owned()));
}

fn a_base_without_history_is_built_upon() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM scratch\nCOPY busybox /bin/\n";
    let layout = place.path().join("layout");
    let request = BuildRequest::new(place.context()).dockerfile_text(text);
    build(&engine, &request.output(Output::OciLayout(layout.clone())));
    // As tools write it that know of no history.
    let exported = Exported::from_directory(&layout);
    let mut config = exported.config();
    config.as_object_mut().unwrap().remove("history");
    let mut manifest = exported.manifest();
    manifest["config"] = put(&layout, OCI_CONFIG, config.to_string().as_bytes());
    let entry = put(&layout, OCI_MANIFEST, manifest.to_string().as_bytes());
    let mut index = exported.json("index.json");
    index["manifests"][0] = entry;
    fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
    let source = rbuild::LoadSource::Path(layout);
    let loaded =
        engine.load_images(source, None, &rbuild::Silent, &rbuild::CancelToken::default()).unwrap();
    engine.tag_image(&loaded[0].id.to_string(), "bare:1").unwrap();
    for packaging in [Packaging::Each, Packaging::AtMost(1), Packaging::One] {
        let text = "FROM bare:1\nCOPY busybox /more\nCOPY busybox /most\n";
        let (_, built) = packaged(&place, &engine, text, packaging);
        let wanted = match packaging {
            Packaging::Each => 3,
            Packaging::AtMost(_) => 2,
            Packaging::One => 1,
        };
        assert_eq!(layers(&built), wanted, "{packaging:?}");
    }
}
