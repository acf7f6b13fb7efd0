//! What leaves the machine: archives, layouts, root filesystems.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rbuild::{BuildError, BuildRequest, Engine, Output};

use crate::exported::{self, Exported, text};
use crate::support::{Place, build, build_error, id, ran};
use crate::tests;

tests![
    an_oci_archive_is_what_the_specification_says,
    an_oci_layout_holds_what_the_archive_holds,
    a_layout_keeps_its_other_images,
    a_docker_archive_is_read_by_old_and_new_loaders,
    equal_images_are_equal_bytes,
    a_cached_build_on_a_local_image_is_exported_whole,
    an_image_without_steps_of_its_own_is_exported,
    a_tar_holds_files_as_they_are,
    a_directory_belongs_to_the_caller,
    a_directory_keeps_what_it_had,
    links_in_the_destination_are_not_followed,
    a_pipe_gets_the_bytes_of_a_file,
    destinations_that_cannot_be_are_named,
    a_broken_layout_is_left_alone,
    no_name_moves_when_an_output_fails,
];

const TEXT: &str = "\
FROM base
COPY one.txt /data/
RUN echo two > /data/two.txt
ENV A=1
CMD [\"cat\", \"/data/one.txt\"]
";

fn place() -> Place {
    let place = Place::new();
    place.write("one.txt", "1\n");
    place
}

fn archive(path: &Path) -> Output {
    Output::OciArchive(path.into())
}

fn an_oci_archive_is_what_the_specification_says() {
    let place = place();
    let engine = place.engine();
    let path = place.path().join("image.tar");
    let request = place.request(TEXT).tag("first:1").tag("example.com/second:2");
    let built = build(&engine, &request.output(archive(&path)));
    let image = Exported::from_tar(&path);
    image.check();
    assert_eq!(image.config_digest(), id(&built).to_string());
    assert_eq!(image.config()["config"]["Env"][1], "A=1");
    let index = image.json("index.json");
    let names: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let annotations = &one["annotations"];
            let name = text(&annotations["io.containerd.image.name"]);
            (name, text(&annotations["org.opencontainers.image.ref.name"]))
        })
        .collect();
    let expected = [("docker.io/library/first:1", "1"), ("example.com/second:2", "2")];
    assert_eq!(names, expected.map(|(name, tag)| (name.to_owned(), tag.to_owned())));
    // Each layer holds what its own step made.
    let layers = image.layers();
    let top = exported::entries(layers.last().unwrap().as_slice());
    assert_eq!(top["data/two.txt"].content, b"two\n");
    assert!(!top.contains_key("data/one.txt"), "{:?}", top.keys());
    assert_eq!(layers.len(), 4);
}

fn an_oci_layout_holds_what_the_archive_holds() {
    let place = place();
    let engine = place.engine();
    let (tar, directory) = (place.path().join("image.tar"), place.path().join("new/layout"));
    let request = place.request(TEXT).tag("app:1");
    build(&engine, &request.output(archive(&tar)).output(Output::OciLayout(directory.clone())));
    let layout = Exported::from_directory(&directory);
    layout.check();
    assert_eq!(layout, Exported::from_tar(&tar));
}

fn a_layout_keeps_its_other_images() {
    let place = place();
    let engine = place.engine();
    let directory = place.path().join("layout");
    let export = |text: &str, tag: &str| {
        let output = Output::OciLayout(directory.clone());
        id(&build(&engine, &place.request(text).tag(tag).output(output))).to_string()
    };
    let names = || -> Vec<(String, String)> {
        let layout = Exported::from_directory(&directory);
        let index = layout.json("index.json");
        let all = index["manifests"].as_array().unwrap().iter();
        all.map(|one| {
            let manifest = text(&one["digest"]);
            let manifest: serde_json::Value =
                serde_json::from_slice(layout.blob(&manifest)).unwrap();
            let name = text(&one["annotations"]["org.opencontainers.image.ref.name"]);
            (name, text(&manifest["config"]["digest"]))
        })
        .collect()
    };
    let one = export(TEXT, "app:one");
    let two = export("FROM base\nCOPY one.txt /two\n", "app:two");
    let both = [("one".to_owned(), one.clone()), ("two".to_owned(), two.clone())];
    assert_eq!(names(), both);
    Exported::from_directory(&directory).check();
    // The same again changes nothing.
    let before = Exported::from_directory(&directory);
    export(TEXT, "app:one");
    let mut after = names();
    after.sort();
    assert_eq!(after, both);
    assert_eq!(before.0.keys().count(), Exported::from_directory(&directory).0.len());
    // A name moves.
    let three = export("FROM base\nCOPY one.txt /three\n", "app:one");
    let mut moved = names();
    moved.sort();
    assert_eq!(moved, [("one".to_owned(), three), ("two".to_owned(), two)]);
}

fn a_docker_archive_is_read_by_old_and_new_loaders() {
    let place = place();
    let engine = place.engine();
    let path = place.path().join("image.tar");
    let request = place.request(TEXT).tag("app").tag("example.com/team/app:2");
    let built = build(&engine, &request.output(Output::DockerArchive(path.as_path().into())));
    let image = Exported::from_tar(&path);
    image.check();
    let saved = image.json("manifest.json");
    let saved = saved.as_array().unwrap();
    assert_eq!(saved.len(), 1);
    let tags = serde_json::json!(["app:latest", "example.com/team/app:2"]);
    assert_eq!(saved[0]["RepoTags"], tags);
    let config = image.file(&text(&saved[0]["Config"]));
    assert_eq!(rbuild::Digest::of(config), id(&built));
    let paths: Vec<_> = saved[0]["Layers"].as_array().unwrap().iter().map(text).collect();
    let manifest = image.manifest();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let expected: Vec<_> =
        layers.map(|it| format!("blobs/{}", text(&it["digest"]).replace(':', "/"))).collect();
    assert_eq!(paths, expected);
}

/// Exports everything that is one file.
fn files_of(place: &Place, engine: &Engine, name: &str) -> Vec<Vec<u8>> {
    let path = |kind: &str| place.path().join(format!("{name}.{kind}"));
    let request = place
        .request(TEXT)
        .tag("app:1")
        .output(archive(&path("oci")))
        .output(Output::DockerArchive(path("docker").into()))
        .output(Output::Tar(path("tar").into()));
    build(engine, &request);
    ["oci", "docker", "tar"].map(|kind| fs_err::read(path(kind)).unwrap()).into()
}

fn equal_images_are_equal_bytes() {
    let place = place();
    let engine = place.engine();
    let first = files_of(&place, &engine, "first");
    assert!(first == files_of(&place, &engine, "second"), "the same engine");
    drop(engine);
    // Nor does it matter that layers are compressed anew.
    let store = rbuild_cache::Store::open(place.store()).unwrap();
    let mut layers = 0;
    for digest in store.blobs().list().unwrap() {
        let bytes = fs_err::read(store.blobs().path(&digest)).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            layers += 1;
            fs_err::remove_file(store.blobs().path(&digest)).unwrap();
        }
    }
    assert_eq!(layers, 4);
    drop(store);
    assert!(first == files_of(&place, &place.engine(), "third"), "compressed anew");
}

fn a_cached_build_on_a_local_image_is_exported_whole() {
    let place = place();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nRUN echo base > /base.txt\n").tag("local/base:1"));
    let request = BuildRequest::new(place.context()).dockerfile_text(
        "FROM local/base:1\nCOPY one.txt /own/\nRUN rm /base.txt && echo run > /own/run.txt\n",
    );
    let first = build(&engine, &request);
    assert_ne!(first.executed, 0);
    drop(engine);
    let (tar, directory, oci) =
        (place.path().join("root.tar"), place.path().join("root"), place.path().join("oci.tar"));
    let request = request
        .output(Output::Tar(tar.clone().into()))
        .output(Output::Directory(directory.clone()))
        .output(archive(&oci));
    let second = build(&place.engine(), &request);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
    let files = exported::entries(fs_err::File::open(&tar).unwrap());
    assert_eq!(files["own/one.txt"].content, b"1\n");
    assert_eq!(files["own/run.txt"].content, b"run\n");
    assert!(files["bin/busybox"].content.len() > 100_000);
    assert_eq!(files["bin/cat"].kind, tar::EntryType::Symlink);
    assert!(!files.contains_key("base.txt") && !files.contains_key(".wh.base.txt"));
    let busybox = fs_err::read("/bin/busybox").unwrap();
    assert!(fs_err::read(directory.join("bin/busybox")).unwrap() == busybox);
    assert!(!directory.join("base.txt").exists());
    assert_eq!(fs_err::read(directory.join("own/run.txt")).unwrap(), b"run\n");
    let image = Exported::from_tar(&oci);
    image.check();
    assert_eq!(image.layers().len(), 5);
    let top = exported::entries(image.layers().pop().unwrap().as_slice());
    assert!(top.contains_key(".wh.base.txt"), "{:?}", top.keys());
}

fn an_image_without_steps_of_its_own_is_exported() {
    let place = place();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nCOPY one.txt /\n").tag("local"));
    let (tar, oci) = (place.path().join("root.tar"), place.path().join("oci.tar"));
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM local\nLABEL a=b\n")
        .output(Output::Tar(tar.clone().into()))
        .output(archive(&oci));
    build(&engine, &request);
    let files = exported::entries(fs_err::File::open(&tar).unwrap());
    assert_eq!(files["one.txt"].content, b"1\n");
    let image = Exported::from_tar(&oci);
    image.check();
    assert_eq!(image.config()["config"]["Labels"]["a"], "b");
    assert_eq!(image.layers().len(), 3);
}

const FILES: &str = "\
FROM base
RUN mkdir -m 750 /d && echo f > /d/file && chown 12:34 /d/file && chmod 4751 /d/file && \\
    ln /d/file /d/hard && ln -s ../nowhere /d/link && mkfifo -m 600 /d/pipe && \\
    touch -h -d @1000000 /d/file /d/link
";

fn a_tar_holds_files_as_they_are() {
    let place = place();
    let engine = place.engine();
    let path = place.path().join("root.tar");
    build(&engine, &place.request(FILES).output(Output::Tar(path.as_path().into())));
    let files = exported::entries(fs_err::File::open(&path).unwrap());
    let directory = &files["d"];
    assert_eq!((directory.kind, directory.mode), (tar::EntryType::Directory, 0o750));
    let file = &files["d/file"];
    assert_eq!((file.mode, file.owner, file.mtime), (0o4751, (12, 34), 1_000_000));
    assert_eq!(file.content, b"f\n");
    assert_eq!(files["d/hard"].kind, tar::EntryType::Link);
    assert_eq!(files["d/hard"].link.as_deref(), Some("d/file"));
    assert_eq!(files["d/link"].link.as_deref(), Some("../nowhere"));
    assert_eq!(files["d/pipe"].kind, tar::EntryType::Fifo);
}

fn a_directory_belongs_to_the_caller() {
    let place = place();
    let engine = place.engine();
    let path = place.path().join("root");
    build(&engine, &place.request(FILES).output(Output::Directory(path.clone())));
    let file = fs_err::symlink_metadata(path.join("d/file")).unwrap();
    let me = rustix::process::geteuid().as_raw();
    assert_eq!((file.uid(), file.permissions().mode() & 0o7777), (me, 0o751), "no set-user-id");
    assert_eq!(file.mtime(), 1_000_000);
    assert_eq!(fs_err::read_link(path.join("d/link")).unwrap().to_str(), Some("../nowhere"));
    let directory = fs_err::symlink_metadata(path.join("d")).unwrap();
    assert_eq!(directory.permissions().mode() & 0o7777, 0o750);
    assert!(fs_err::symlink_metadata(path.join("d/pipe")).is_err());
    assert_eq!(fs_err::read(path.join("d/hard")).unwrap(), b"f\n");
}

fn a_directory_keeps_what_it_had() {
    let place = place();
    let engine = place.engine();
    let path = place.path().join("root");
    fs_err::create_dir_all(path.join("data")).unwrap();
    fs_err::write(path.join("data/mine"), "mine").unwrap();
    fs_err::write(path.join("data/one.txt"), "old and longer than the new one").unwrap();
    let request = place.request(TEXT).output(Output::Directory(path.clone()));
    build(&engine, &request);
    assert_eq!(fs_err::read(path.join("data/mine")).unwrap(), b"mine");
    assert_eq!(fs_err::read(path.join("data/one.txt")).unwrap(), b"1\n");
    // What stands in the way of a file is not deleted.
    fs_err::remove_file(path.join("data/two.txt")).unwrap();
    fs_err::create_dir(path.join("data/two.txt")).unwrap();
    fs_err::write(path.join("data/two.txt/mine"), "mine").unwrap();
    let error = build_error(&engine, &request);
    assert!(error.to_string().contains("two.txt"), "{error}");
    assert_eq!(fs_err::read(path.join("data/two.txt/mine")).unwrap(), b"mine");
}

fn links_in_the_destination_are_not_followed() {
    let place = place();
    let engine = place.engine();
    let (path, other) = (place.path().join("root"), place.path().join("other"));
    fs_err::create_dir(&path).unwrap();
    fs_err::create_dir(&other).unwrap();
    fs_err::write(other.join("one.txt"), "precious").unwrap();
    fs_err::os::unix::fs::symlink(&other, path.join("data")).unwrap();
    build(&engine, &place.request(TEXT).output(Output::Directory(path.clone())));
    assert_eq!(fs_err::read(other.join("one.txt")).unwrap(), b"precious");
    assert!(!other.join("two.txt").exists());
    assert!(fs_err::symlink_metadata(path.join("data")).unwrap().is_dir());
    assert_eq!(fs_err::read(path.join("data/one.txt")).unwrap(), b"1\n");
}

fn a_pipe_gets_the_bytes_of_a_file() {
    let place = place();
    let engine = place.engine();
    let (pipe, file) = (place.path().join("pipe"), place.path().join("file"));
    build(&engine, &place.request(TEXT).output(archive(&file)));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| fs_err::read(&pipe).unwrap());
        build(&engine, &place.request(TEXT).output(archive(&pipe)));
        reader.join().unwrap()
    });
    assert!(read == fs_err::read(&file).unwrap());
    let kind = fs_err::symlink_metadata(&pipe).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "it was replaced");
}

/// Names in a directory.
fn listing(path: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn destinations_that_cannot_be_are_named() {
    let place = place();
    let engine = place.engine();
    build(&engine, &place.request(TEXT));
    let out = place.path().join("out");
    fs_err::create_dir_all(out.join("directory")).unwrap();
    fs_err::write(out.join("directory/mine"), "mine").unwrap();
    fs_err::write(out.join("file"), "mine").unwrap();
    let (directory, before) = (out.join("directory"), listing(&out));
    let file_outputs: [fn(&Path) -> Output; 3] = [
        |path| Output::OciArchive(path.into()),
        |path| Output::DockerArchive(path.into()),
        |path| Output::Tar(path.into()),
    ];
    let directory_outputs: [fn(&Path) -> Output; 2] =
        [|path| Output::OciLayout(path.into()), |path| Output::Directory(path.into())];
    let mut all = Vec::new();
    for path in [out.join("missing/image.tar"), directory.clone(), out.join("file/image.tar")] {
        all.extend(file_outputs.map(|output| (path.clone(), output(&path))));
    }
    let full = Path::new("/dev/full");
    all.extend(file_outputs.map(|output| (full.to_owned(), output(full))));
    for path in [out.join("file"), out.join("file/layout")] {
        all.extend(directory_outputs.map(|output| (path.clone(), output(&path))));
    }
    for (path, output) in all {
        let error = build_error(&engine, &place.request(TEXT).output(output.clone()));
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        let named = path.to_str().unwrap();
        assert!(message.contains(named), "{output:?}: {message}");
        assert_eq!(listing(&out), before, "{output:?}");
        assert_eq!(listing(&directory), ["mine"], "{output:?}");
        assert_eq!(fs_err::read(out.join("file")).unwrap(), b"mine", "{output:?}");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_broken_layout_is_left_alone() {
    let place = place();
    let engine = place.engine();
    let layout = place.path().join("layout");
    fs_err::create_dir(&layout).unwrap();
    for broken in ["{", "[]", r#"{"schemaVersion":2,"manifests":7}"#] {
        fs_err::write(layout.join("index.json"), broken).unwrap();
        let request = place.request(TEXT).output(Output::OciLayout(layout.clone()));
        let error = build_error(&engine, &request);
        assert!(error.to_string().contains("index.json"), "{error}");
        assert_eq!(fs_err::read_to_string(layout.join("index.json")).unwrap(), broken);
    }
}

fn no_name_moves_when_an_output_fails() {
    let place = place();
    let engine = place.engine();
    let old = build(&engine, &place.request("FROM base\n").tag("app"));
    let bad = place.path().join("missing/image.tar");
    let good = place.path().join("good.tar");
    let request = place.request(TEXT).tag("app").tag("new").output(archive(&good));
    build_error(&engine, &request.clone().output(archive(&bad)));
    assert_eq!(engine.find_image("app").unwrap().image_id, id(&old));
    assert!(matches!(engine.find_image("new"), Err(BuildError::NoSuchImage { .. })));
    // Nothing runs again when the way is free.
    fs_err::create_dir(bad.parent().unwrap()).unwrap();
    let built = build(&engine, &request.output(archive(&bad)));
    assert_eq!(built.executed, 0);
    assert_eq!(engine.find_image("app").unwrap().image_id, id(&built));
    assert!(fs_err::read(&bad).unwrap() == fs_err::read(&good).unwrap());
}
