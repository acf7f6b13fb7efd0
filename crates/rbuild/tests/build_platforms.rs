//! Builds for several platforms, and what the machine can do for platforms that are not its own.

use std::path::{Path, PathBuf};

use rbuild::{
    BuildError, BuildRequest, Built, Engine, EngineOptions, Output, Platform, PruneOptions, Silent,
    StepError,
};
use serde_json::Value;

use crate::exported::{Exported, OCI_INDEX, entries, text};
use crate::support::{BASE_STEPS, Place, build, build_error, explain, id, ran, shell};
use crate::tests;

tests![
    an_index_holds_an_image_for_each_platform,
    what_platforms_have_in_common_is_made_once,
    a_cached_index_is_the_same_bytes,
    an_index_is_made_of_one_image_when_asked_for,
    files_are_in_a_directory_for_each_platform,
    files_share_a_directory_when_none_is_in_both,
    one_image_has_a_directory_when_asked_for,
    a_docker_archive_holds_one_platform,
    an_index_is_one_image_of_the_store,
    the_images_of_an_index_are_bases,
    pruning_keeps_what_an_index_needs,
    an_index_survives_the_loss_of_the_stores_index,
    a_base_that_cannot_be_run_ends_the_build_before_its_step,
    an_emulator_that_is_not_held_open_must_be_in_the_image,
    a_step_that_is_cached_needs_no_emulator,
    a_program_that_nobody_runs_says_what_it_is_for,
];

const PLATFORMS: [&str; 3] = ["linux/arm64", "linux/arm/v7", "linux/ppc64le"];

/// What is made once, and what is made for each platform.
const CROSS: &str = "\
FROM base AS build
RUN echo once > /once
FROM build AS cross
ARG TARGETPLATFORM
RUN echo $TARGETPLATFORM > /for
FROM scratch
COPY --from=build /once /
COPY --from=cross /for /
";

fn for_platforms(request: BuildRequest, platforms: &[&str]) -> BuildRequest {
    platforms.iter().fold(request, |request, one| request.platform(one.parse().unwrap()))
}

fn built_for(place: &Place, engine: &Engine, text: &str, platforms: &[&str]) -> Built {
    build(engine, &for_platforms(place.request(text), platforms).tag("app"))
}

fn export(place: &Place, engine: &Engine, text: &str, platforms: &[&str]) -> (Exported, Built) {
    let path = place.path().join("image.tar");
    let request = for_platforms(place.request(text), platforms);
    let built = build(engine, &request.output(Output::OciArchive(path.clone().into())));
    let image = Exported::from_tar(&path);
    image.check();
    (image, built)
}

/// The only document of `index.json`, which is to be an index.
fn index(image: &Exported) -> Value {
    let descriptors = image.json("index.json")["manifests"].clone();
    assert_eq!(descriptors.as_array().unwrap().len(), 1);
    assert_eq!(descriptors[0]["mediaType"], OCI_INDEX);
    assert_eq!(descriptors[0].get("platform"), None);
    serde_json::from_slice(image.blob(&text(&descriptors[0]["digest"]))).unwrap()
}

fn an_index_holds_an_image_for_each_platform() {
    let place = Place::new();
    let engine = place.engine();
    let (image, built) = export(&place, &engine, CROSS, &PLATFORMS);
    let index = index(&image);
    assert_eq!(index["mediaType"], OCI_INDEX);
    let manifests = index["manifests"].as_array().unwrap();
    let platforms: Vec<_> = manifests.iter().map(|one| one["platform"].to_string()).collect();
    assert_eq!(
        platforms,
        [
            r#"{"architecture":"arm64","os":"linux"}"#,
            r#"{"architecture":"arm","os":"linux","variant":"v7"}"#,
            r#"{"architecture":"ppc64le","os":"linux"}"#,
        ]
    );
    for (manifest, platform) in manifests.iter().zip(PLATFORMS) {
        let layers = image.layers_of(&text(&manifest["digest"]));
        let top = entries(layers.last().unwrap().as_slice());
        assert_eq!(top["for"].content, format!("{platform}\n").as_bytes());
    }
    let built = built.image.unwrap();
    assert_eq!((built.id, built.config_digest), (built.manifest_digest, None));
    assert_eq!(built.media_type, OCI_INDEX);
    let shown: Vec<_> = built.platforms.iter().map(Platform::to_string).collect();
    assert_eq!(shown, PLATFORMS);
}

fn what_platforms_have_in_common_is_made_once() {
    let place = Place::new();
    let engine = place.engine();
    let built = built_for(&place, &engine, CROSS, &PLATFORMS);
    let names = ran(&built);
    let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
    assert_eq!(built.executed, BASE_STEPS + 8, "{names:#?}");
    assert_eq!((count("RUN echo once"), count("RUN echo $TARGETPLATFORM")), (1, 0));
    for name in [
        "[linux/arm64 build 1/1] RUN echo once > /once",
        "[linux/arm64 cross 1/1] RUN echo linux/arm64 > /for",
        "[linux/arm/v7 cross 1/1] RUN echo linux/arm/v7 > /for",
        "[linux/ppc64le cross 1/1] RUN echo linux/ppc64le > /for",
        "[linux/ppc64le stage-3 2/2] COPY --from=cross /for /",
    ] {
        assert_eq!(count(name), 1, "{name}: {names:#?}");
    }
    // One that was built for all is in the cache for one, and the other way round.
    assert_eq!(built_for(&place, &engine, CROSS, &["linux/arm/v7"]).executed, 0);
    let more = ["linux/s390x", "linux/arm64"];
    assert_eq!(ran(&built_for(&place, &engine, CROSS, &more)).len(), 2);
}

fn a_cached_index_is_the_same_bytes() {
    let place = Place::new();
    let engine = place.engine();
    let (first, _) = export(&place, &engine, CROSS, &PLATFORMS);
    let (second, built) = export(&place, &engine, CROSS, &PLATFORMS);
    assert_eq!(built.executed, 0);
    assert_eq!(first, second);
    // The order is the caller's.
    let (other, _) = export(&place, &engine, CROSS, &["linux/ppc64le", "linux/arm64"]);
    let first = &index(&other)["manifests"][0]["platform"];
    assert_eq!(first["architecture"], "ppc64le");
}

fn an_index_is_made_of_one_image_when_asked_for() {
    let place = Place::new();
    let engine = place.engine();
    let path = place.path().join("image.tar");
    let request = place.request(CROSS).arg("BUILDKIT_MULTI_PLATFORM", "1");
    let files = place.path().join("files");
    let request = request.output(Output::OciArchive(path.clone().into()));
    let built = build(&engine, &request.output(Output::Directory(files.clone())));
    let image = Exported::from_tar(&path);
    image.check();
    assert_eq!(index(&image)["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(built.image.unwrap().media_type, OCI_INDEX);
    let host = Platform::host().to_string().replace('/', "_");
    assert_eq!(listing(&files), [format!("{host}/for"), format!("{host}/once")]);
}

/// The files below a directory, sorted.
fn listing(path: &Path) -> Vec<String> {
    Exported::from_directory(path).0.into_keys().collect()
}

fn files_are_in_a_directory_for_each_platform() {
    let place = Place::new();
    let engine = place.engine();
    let (files, tar) = (place.path().join("files"), place.path().join("files.tar"));
    let request = for_platforms(place.request(CROSS), &PLATFORMS[..2])
        .arg("SOURCE_DATE_EPOCH", "1000")
        .output(Output::Directory(files.clone()))
        .output(Output::Tar(tar.clone().into()));
    build(&engine, &request);
    assert_eq!(
        listing(&files),
        ["linux_arm64/for", "linux_arm64/once", "linux_arm_v7/for", "linux_arm_v7/once"]
    );
    let content = fs_err::read_to_string(files.join("linux_arm_v7/for")).unwrap();
    assert_eq!(content, "linux/arm/v7\n");
    let entries = entries(fs_err::File::open(tar).unwrap());
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "linux_arm64",
            "linux_arm64/for",
            "linux_arm64/once",
            "linux_arm_v7",
            "linux_arm_v7/for",
            "linux_arm_v7/once"
        ]
    );
    assert!(entries.values().all(|entry| entry.mtime == 1000), "{entries:?}");
    assert_eq!(entries["linux_arm64"].mode, 0o755);
    assert_eq!(entries["linux_arm64/for"].content, b"linux/arm64\n");
}

fn files_share_a_directory_when_none_is_in_both() {
    let place = Place::new();
    let engine = place.engine();
    let files = place.path().join("files");
    let request = |text: &str| {
        let mut request = for_platforms(place.request(text), &["linux/arm64", "linux/amd64"])
            .output(Output::Directory(files.clone()));
        request.platform_split = Some(false);
        request
    };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY busybox /bin/app-$TARGETARCH\n";
    build(&engine, &request(text));
    assert_eq!(listing(&files), ["bin/app-amd64", "bin/app-arm64"]);
    let error = build_error(&engine, &request(&format!("{text}COPY busybox /bin/app\n")));
    let told = error.to_string();
    assert!(told.contains("/bin/app is in the images for linux/arm64 and linux/amd64"), "{told}");
}

fn one_image_has_a_directory_when_asked_for() {
    let place = Place::new();
    let engine = place.engine();
    let files = place.path().join("files");
    let mut request = for_platforms(place.request(CROSS), &["linux/s390x"])
        .output(Output::Directory(files.clone()));
    request.platform_split = Some(true);
    build(&engine, &request);
    assert_eq!(listing(&files), ["linux_s390x/for", "linux_s390x/once"]);
}

fn a_docker_archive_holds_one_platform() {
    let place = Place::new();
    let engine = place.engine();
    let path = place.path().join("image.tar");
    let archive = |platforms: &[&str]| {
        for_platforms(place.request(CROSS), platforms)
            .output(Output::DockerArchive(path.clone().into()))
    };
    let error = build_error(&engine, &archive(&PLATFORMS)).to_string();
    assert!(error.contains("does not support manifest lists"), "{error}");
    assert!(!path.exists());
    // It was said before anything was run.
    assert!(build(&engine, &archive(&["linux/arm64"])).executed > BASE_STEPS);
    assert!(path.exists());
}

/// An index of this machine's platform and another one.
fn two(place: &Place, engine: &Engine) -> Built {
    let host = Platform::host().to_string();
    let text = "FROM base AS made\nARG TARGETARCH\nRUN echo $TARGETARCH > /for\n\
                FROM made\nENV MADE=$TARGETARCH\nCMD [\"cat\", \"/for\"]\n";
    built_for(place, engine, text, &["linux/s390x", &host])
}

fn an_index_is_one_image_of_the_store() {
    let place = Place::new();
    let engine = place.engine();
    let built = two(&place, &engine);
    let host = Platform::host();
    let images = engine.images().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!((images[0].image_id, images[0].media_type.as_str()), (id(&built), OCI_INDEX));
    // As large as both of its images.
    assert!(images[0].size > 2 * fs_err::metadata("/bin/busybox").unwrap().len());
    // This machine's is what is looked at and run.
    let details = engine.image_config("app").unwrap();
    assert_eq!(details.config.architecture, host.architecture);
    let platforms: Vec<_> =
        details.manifests.iter().map(|one| one.platform.clone().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/s390x", &host.to_string()]);
    assert!(engine.history("app").unwrap()[0].created_by.starts_with("CMD"));
    assert_eq!(place.sh(&engine, "app", "cat /for"), format!("{}\n", host.architecture));
    engine.tag_image("app", "other").unwrap();
    assert_eq!(place.sh(&engine, &id(&built).hex()[..12], "cat /for").trim(), host.architecture);
    assert_eq!(engine.remove_image("app", false).unwrap().deleted, []);
    assert_eq!(engine.remove_image("other", false).unwrap().deleted, [id(&built)]);
    // One without this machine's image cannot be run, and says what it has.
    built_for(&place, &engine, CROSS, &["linux/s390x", "linux/arm/v6"]);
    let error = engine.create("test", "app", shell("true")).unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm/v6"), "{error}");
    assert_eq!(engine.image_config("app").unwrap().config.architecture, "s390x");
}

fn the_images_of_an_index_are_bases() {
    let place = Place::new();
    let engine = place.engine();
    two(&place, &engine);
    let made = |platform: &str| {
        let text = "FROM app\nCOPY busybox /new\n";
        let built = built_for(&place, &engine, text, &[platform]);
        let details = engine.image_config(&id(&built).to_string()).unwrap();
        details.config.config.env.iter().find(|it| it.starts_with("MADE=")).unwrap().clone()
    };
    let host = Platform::host();
    engine.tag_image("app", "kept").unwrap();
    assert_eq!(made(&host.to_string()), format!("MADE={}", host.architecture));
    engine.tag_image("kept", "app").unwrap();
    assert_eq!(made("linux/s390x"), "MADE=s390x");
    let request = place.request("FROM kept\n").platform("linux/riscv64".parse().unwrap());
    let error = build_error(&engine, &request);
    let BuildError::Dockerfile { diagnostics, source_text, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("no match for platform linux/riscv64"), "{error}");
    let help = diagnostics[0].help.as_deref().unwrap();
    assert_eq!(help, format!("the image has: linux/s390x, {host}"));
    let span = diagnostics[0].span().unwrap();
    assert_eq!(&source_text[span.start..span.end], "kept");
}

fn pruning_keeps_what_an_index_needs() {
    let place = Place::new();
    let engine = place.engine();
    let built = two(&place, &engine);
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    engine.prune(&all, &Silent, &rbuild::CancelToken::default()).unwrap();
    let (image, _) = export(&place, &engine, "FROM app\n", &["linux/s390x"]);
    assert_eq!(image.config()["architecture"], "s390x");
    assert_eq!(place.sh(&engine, "app", "cat /for").trim(), Platform::host().architecture);
    engine.remove_image(&id(&built).to_string(), true).unwrap();
    engine.prune(&all, &Silent, &rbuild::CancelToken::default()).unwrap();
    assert!(engine.image_config("app").is_err());
}

fn an_index_survives_the_loss_of_the_stores_index() {
    let place = Place::new();
    let engine = place.engine();
    two(&place, &engine);
    let before = engine.images().unwrap();
    drop(engine);
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs_err::remove_file(place.store().join(name));
    }
    let engine = place.engine();
    assert_eq!(engine.images().unwrap(), before);
    assert_eq!(place.sh(&engine, "app", "cat /for").trim(), Platform::host().architecture);
}

/// A processor that this machine is not.
fn foreign() -> &'static str {
    if Platform::host().architecture == "s390x" { "riscv64" } else { "s390x" }
}

/// How ELF begins for [`foreign`].
const HEADS: [(&str, &str); 2] = [
    ("s390x", "7f454c4602020100000000000000000000020016"),
    ("riscv64", "7f454c46020101000000000000000000020000f3"),
];

/// The kernel's list of emulators with one for [`foreign`], or with none.
fn emulators(place: &Place, flags: Option<&str>) -> PathBuf {
    let directory = place.path().join(format!("binfmt-{}", flags.unwrap_or("none")));
    fs_err::create_dir(&directory).unwrap();
    fs_err::write(directory.join("status"), "enabled\n").unwrap();
    if let Some(flags) = flags {
        let magic = HEADS.iter().find(|(name, _)| *name == foreign()).unwrap().1;
        let text = format!(
            "enabled\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic {magic}\n"
        );
        fs_err::write(directory.join("qemu"), text).unwrap();
    }
    directory
}

fn engine_with(place: &Place, flags: Option<&str>) -> Engine {
    let binfmt_misc = emulators(place, flags);
    Engine::with_options(EngineOptions { binfmt_misc, ..place.options() }).unwrap()
}

/// An image that says it is for [`foreign`]. Its programs are not, so they can be run.
fn foreign_base(place: &Place, engine: &Engine, name: &str) {
    let platform = format!("linux/{}", foreign());
    build(engine, &for_platforms(place.request("FROM base\n"), &[&platform]).tag(name));
}

fn a_base_that_cannot_be_run_ends_the_build_before_its_step() {
    let place = Place::new();
    let engine = engine_with(&place, None);
    foreign_base(&place, &engine, "foreign");
    let text = "FROM base AS slow\nRUN touch /slow\n\
                FROM foreign\nCOPY --from=slow /slow /\nRUN true\nFROM foreign AS early\nRUN a\n";
    let error = build_error(&engine, &place.request(text));
    let BuildError::Step { source_text, failure, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failure.name, "[early 2/2] RUN a");
    let span = failure.span.unwrap();
    assert_eq!(&source_text[span.start..span.end], "RUN a");
    let told = error.to_string();
    let words = format!("programs of linux/{} do not run on this machine", foreign());
    assert!(told.contains(&words) && told.contains("binfmt_misc"), "{told}");
    let help = failure.source.help().unwrap();
    for part in ["qemu-user-static", &format!("tonistiigi/binfmt --install {}", foreign())] {
        assert!(help.contains(part), "{help}");
    }
    // Files can be copied onto it all the same.
    build(&engine, &place.request("FROM foreign\nCOPY busybox /new\nWORKDIR /there\n"));
    // With an emulator there is nothing to say: the kernel does it.
    let engine = engine_with(&place, Some("OCF"));
    build(&engine, &place.request("FROM foreign\nRUN true\n"));
}

fn an_emulator_that_is_not_held_open_must_be_in_the_image() {
    let place = Place::new();
    let engine = engine_with(&place, Some("OC"));
    foreign_base(&place, &engine, "foreign");
    let error = build_error(&engine, &place.request("FROM foreign\nRUN true\n"));
    let BuildError::Step { failure, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(failure.source, StepError::Platform { .. }), "{failure:?}");
    let told = error.to_string();
    assert!(told.contains("/usr/bin/qemu is registered without the flag F"), "{told}");
    build(&engine, &place.request("FROM foreign\nCOPY busybox /usr/bin/qemu\nRUN true\n"));
}

fn a_step_that_is_cached_needs_no_emulator() {
    let place = Place::new();
    let engine = engine_with(&place, Some("F"));
    foreign_base(&place, &engine, "foreign");
    let request = place.request("FROM foreign\nRUN true\n");
    assert_eq!(build(&engine, &request).executed, 1);
    let engine = engine_with(&place, None);
    assert_eq!(build(&engine, &request).executed, 0);
    build_error(&engine, &request.no_cache());
}

fn a_program_that_nobody_runs_says_what_it_is_for() {
    let place = Place::new();
    let engine = place.engine();
    let magic = HEADS.iter().find(|(name, _)| *name == foreign()).unwrap().1;
    let mut program = hex::decode(magic).unwrap();
    program.resize(64, 0);
    place.write("program", program);
    let text = "FROM scratch\nCOPY --chmod=755 program /\nRUN [\"/program\"]\n";
    let error = explain(&build_error(&engine, &place.request(text)));
    assert!(error.contains(&format!("it is a program for {}", foreign())), "{error}");
}
