//! What `Engine::diff` says of two images.

use rbuild::{
    Aspect, BuildRequest, CancelToken, Engine, FileDifference, FileKind, ImageDifference, Output,
    Platform, SaveRequest, Silent,
};

use crate::support::{Place, build};
use crate::tests;

tests![
    every_property_of_a_file_is_compared,
    what_only_its_owner_may_read_is_not_excerpted,
    one_build_is_no_difference_and_shared_layers_are_not_read,
    another_packing_of_the_same_files_is_a_difference_of_the_manifest,
    of_an_index_the_image_for_a_platform_is_compared,
    images_in_files_are_compared_and_leave_no_name,
];

fn diff(engine: &Engine, before: &str, after: &str) -> ImageDifference {
    engine.diff(before, after, None, &Silent, &CancelToken::default()).unwrap()
}

fn of<'a>(difference: &'a ImageDifference, path: &str) -> &'a FileDifference {
    let found = difference.files.iter().find(|file| file.path == path.as_bytes());
    found.unwrap_or_else(|| panic!("{path} in {difference:?}"))
}

fn every_property_of_a_file_is_compared() {
    let place = Place::new();
    let engine = place.engine();
    let both = "touch -hd @1000 * .";
    let before = format!(
        "FROM base\nRUN mkdir /d; cd /d; echo a > content; touch mode owner time; ln -s a link; \
         mknod fifo p; echo x > kind; mkdir dir; touch dir/a dir/b; echo l > l1; ln l1 l2; \
         touch same; {both}\n"
    );
    let after = format!(
        "FROM base\nRUN mkdir /d; cd /d; echo b > content; touch mode owner time; ln -s b link; \
         chmod 4755 mode; chown 7:8 owner; mkdir kind; echo l > l1; echo l > l2; mkdir new; \
         touch same; {both}; touch -hd @2000 time\n"
    );
    build(&engine, &place.request(&before).tag("before"));
    build(&engine, &place.request(&after).tag("after"));
    let difference = diff(&engine, "before", "after");
    assert_eq!((difference.same_layers, difference.layers.len()), (2, 1));
    let aspects = |path: &str| of(&difference, path).aspects.clone();
    assert_eq!(aspects("d/content"), [Aspect::Content]);
    assert_eq!(of(&difference, "d/content").content.as_ref().unwrap().offset, 0);
    assert_eq!(aspects("d/mode"), [Aspect::Mode]);
    assert_eq!(aspects("d/owner"), [Aspect::Owner]);
    assert_eq!(aspects("d/time"), [Aspect::Time]);
    assert_eq!(aspects("d/link"), [Aspect::Target]);
    assert_eq!(aspects("d/kind"), [Aspect::Kind]);
    assert_eq!(aspects("d/l2"), [Aspect::HardLink]);
    let gone = of(&difference, "d/dir");
    assert!(gone.after.is_none());
    assert_eq!(gone.before.as_ref().unwrap().entries, 2);
    assert_eq!(of(&difference, "d/fifo").before.as_ref().unwrap().kind, Some(FileKind::Fifo));
    assert!(of(&difference, "d/new").before.is_none());
    let paths: Vec<_> =
        difference.files.iter().map(|file| String::from_utf8_lossy(&file.path)).collect();
    assert_eq!(paths.len(), 10, "{paths:?}");
    assert!(paths.is_sorted(), "{paths:?}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn what_only_its_owner_may_read_is_not_excerpted() {
    let place = Place::new();
    let engine = place.engine();
    for tag in ["one", "two"] {
        let text =
            format!("FROM base\nRUN umask 077; echo {tag} > /key; umask 022; echo {tag} > /x\n");
        build(&engine, &place.request(&text).tag(tag));
    }
    let difference = diff(&engine, "one", "two");
    let content = |path: &str| of(&difference, path).content.clone().unwrap();
    assert_eq!(content("x").after, b"two\n");
    assert_eq!(content("key").offset, 0);
    assert!(content("key").before.is_empty() && content("key").after.is_empty());
}

fn one_build_is_no_difference_and_shared_layers_are_not_read() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN echo a > /a\n";
    build(&engine, &place.request(text).tag("one"));
    build(&engine, &place.request(text).tag("two"));
    assert!(diff(&engine, "one", "two").is_none());
    build(&engine, &place.request(&format!("{text}LABEL a=b\n")).tag("labelled"));
    let difference = diff(&engine, "one", "labelled");
    assert!(difference.layers.is_empty() && difference.files.is_empty());
    let fields: Vec<_> = difference.config.iter().map(|field| field.field.as_str()).collect();
    assert!(fields.contains(&"config.Labels"), "{fields:?}");
    let only_shown = difference.config.iter().find(|field| field.field == "config.Labels").unwrap();
    assert_eq!(only_shown.after.as_ref().unwrap()["a"], "b");
}

fn another_packing_of_the_same_files_is_a_difference_of_the_manifest() {
    let place = Place::new();
    let engine = place.engine();
    let layout = place.path().join("layout");
    let text = "FROM base\nRUN echo a > /a\n";
    let output = Output::OciLayout(layout.clone());
    build(&engine, &place.request(text).tag("here").output(output));
    let from = rbuild::NamedContextInput::OciLayout { path: layout, tag: None, digest: None };
    let request = rbuild::BuildRequest::new(place.context());
    let request = request.dockerfile_text("FROM one\n").build_context("one", from).tag("packed");
    build(&engine, &request);
    let difference = diff(&engine, "here", "packed");
    assert!(difference.layers.is_empty() && difference.files.is_empty(), "{difference:?}");
    let of_layers = |field: &&rbuild::FieldDifference| field.field.starts_with("layers[2].");
    assert!(difference.manifest.iter().any(|field| of_layers(&field)), "{difference:?}");
}

fn of_an_index_the_image_for_a_platform_is_compared() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n";
    let platforms: [Platform; 2] = ["linux/s390x", "linux/arm64"].map(|one| one.parse().unwrap());
    for (tag, text) in [("one", text), ("two", &text.replace("COPY", "ENV A=1\nCOPY"))] {
        let request = BuildRequest::new(place.context()).dockerfile_text(text).tag(tag);
        let with = |request: BuildRequest, one: &Platform| request.platform(one.clone());
        build(&engine, &platforms.iter().fold(request, with));
    }
    let never = CancelToken::default();
    for platform in &platforms {
        let found = engine.diff("one", "two", Some(platform), &Silent, &never).unwrap();
        assert!(found.files.is_empty() && found.config.iter().any(|it| it.field == "config.Env.A"));
        let layers = engine.layers("one", Some(platform), &Silent, &never).unwrap();
        let paths: Vec<_> = layers.versions().map(|version| version.path.to_vec()).collect();
        assert_eq!(paths, [platform.architecture.as_bytes()]);
    }
    let missing = "linux/riscv64".parse().unwrap();
    let error = engine.layers("one", Some(&missing), &Silent, &never).unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm64"), "{error}");
}

fn images_in_files_are_compared_and_leave_no_name() {
    let place = Place::new();
    let engine = place.engine();
    for tag in ["one", "two"] {
        let text = format!("FROM base\nRUN echo {tag} > /which\n");
        build(&engine, &place.request(&text).tag(tag));
    }
    let never = CancelToken::default();
    let at = |name: &str| place.path().join(name);
    let save = |images: &[&str], output: Output| {
        let images = images.iter().map(ToString::to_string).collect();
        let request = SaveRequest { images, output, platform: None, form: None };
        engine.save_images(&request, &Silent, &never).unwrap();
    };
    save(&["one"], Output::DockerArchive(at("one.tar").into()));
    save(&["one", "two"], Output::OciArchive(at("both.tar").into()));
    save(&["one", "two"], Output::DockerArchive(at("both.docker.tar").into()));
    save(&["two"], Output::OciLayout(at("layout")));
    let path = place.path().display();
    let elsewhere = Place::new();
    let other = elsewhere.engine();
    let both = format!("oci-archive:{path}/both.tar");
    for (before, after, is_same) in [
        (format!("docker-archive:{path}/one.tar"), format!("{both}:one:latest"), true),
        (format!("docker-archive:{path}/both.docker.tar:two"), format!("oci:{path}/layout"), true),
        (format!("{both}:two"), format!("oci-layout://{path}/layout"), true),
        (format!("{both}:one"), format!("oci:{path}/layout:latest"), false),
    ] {
        let found = diff(&other, &before, &after);
        assert_eq!(
            (found.files.is_empty(), found.config.is_empty()),
            (is_same, is_same),
            "{before}"
        );
        assert_eq!(found.before.name.as_deref(), Some(before.as_str()));
        assert_eq!(is_same, found.before.id == found.after.id, "{before} {after}");
    }
    // One side may be in the store.
    assert!(diff(&engine, "one", &format!("{both}:one")).files.is_empty());
    let refused =
        |before: &str| other.diff(before, &both, None, &Silent, &never).unwrap_err().to_string();
    assert!(refused(&both).ends_with("there are several images, name one: one:latest, two:latest"));
    assert!(refused(&format!("{both}:three")).ends_with("there is no such image"));
    assert_eq!(refused("three:1"), "no such image: three:1");
    assert_eq!(other.images().unwrap(), []);
}
