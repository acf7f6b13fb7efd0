//! Where files come from: the build context, archives, and what `--build-context` names.

use rbuild::{
    BuildError, BuildRequest, CancelToken, ContextArchive, ContextInput, DockerfileInput, Event,
    NamedContextInput, Output, Silent,
};

use crate::exported::{Exported, entries};
use crate::support::{Events, Place, build, build_error, explain, id, ran};
use crate::tests;

tests![
    a_named_directory_is_copied_from_and_mounted,
    a_named_directory_has_its_own_ignore_file,
    a_named_directory_is_a_root_filesystem,
    only_what_is_used_of_a_named_directory_counts,
    a_directory_replaces_a_stage,
    an_image_replaces_a_stage_and_its_config,
    an_image_stands_for_another,
    scratch_stands_for_an_image,
    a_layout_is_an_image,
    what_a_layout_lacks_is_named,
    the_context_of_the_platform_comes_first,
    what_cannot_be_a_context_is_named,
    an_unused_context_is_a_warning,
    a_tar_is_a_context,
    a_compressed_tar_is_a_context,
    a_hostile_tar_stays_inside,
    a_broken_tar_is_an_error,
    an_ignore_file_may_be_named,
    a_hidden_file_is_told_with_its_rule,
];

fn directory(place: &Place, name: &str, files: &[(&str, &str)]) -> NamedContextInput {
    let path = place.path().join(name);
    for (file, content) in files {
        let file = path.join(file);
        fs_err::create_dir_all(file.parent().unwrap()).unwrap();
        fs_err::write(file, content).unwrap();
    }
    NamedContextInput::Directory(path)
}

fn image(name: &str) -> NamedContextInput {
    NamedContextInput::Image(name.to_owned())
}

fn a_named_directory_is_copied_from_and_mounted() {
    let place = Place::new();
    let engine = place.engine();
    let extra = directory(&place, "extra", &[("sub/f", "named"), ("top", "top")]);
    let text = "FROM base\n\
        COPY --from=extra sub/f /f\n\
        COPY --from=extra . /all\n\
        RUN test \"$(cat /f) $(ls /all)\" = \"$(printf 'named sub\\ntop')\"\n\
        RUN --mount=from=extra,target=/m test \"$(cat /m/sub/f)\" = named\n\
        RUN --mount=from=extra,target=/m,source=sub,rw test \"$(ls /m)\" = f && touch /m/new\n\
        RUN test \"$(stat -c %u:%g /f /all/top | sort -u)\" = 0:0\n";
    let request = place.request(text).build_context("extra", extra);
    build(&engine, &request);
    assert_eq!(ran(&build(&engine, &request)), Vec::<String>::new());
    assert!(!place.path().join("extra/sub/new").exists());
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_named_directory_has_its_own_ignore_file() {
    let place = Place::new();
    let engine = place.engine();
    place.write(".dockerignore", "kept\n");
    let files = [("kept", "1"), ("hidden", "2"), (".dockerignore", "hidden\n")];
    let extra = directory(&place, "extra", &files);
    let text = "FROM base\n\
        COPY --from=extra . /all\n\
        RUN test -e /all/kept && test ! -e /all/hidden\n\
        RUN --mount=from=extra,target=/m test ! -e /m/hidden\n";
    build(&engine, &place.request(text).build_context("extra", extra.clone()));
    let text = "FROM base\nCOPY --from=extra hidden /\n";
    let error = build_error(&engine, &place.request(text).build_context("extra", extra));
    let told = explain(&error);
    assert!(told.contains("context extra: \"/hidden\": not found"), "{told}");
    assert!(told.contains(".dockerignore line 1: hidden"), "{told}");
}

fn a_named_directory_is_a_root_filesystem() {
    let place = Place::new();
    let engine = place.engine();
    let rootfs = directory(&place, "rootfs", &[("etc/motd", "hello")]);
    let out = place.path().join("out.tar");
    let text = "FROM rootfs\nENV A=1\nCOPY <<x /x\ny\nx\n";
    let request = BuildRequest::new(place.context())
        .dockerfile_text(text)
        .build_context("rootfs", rootfs)
        .output(Output::OciArchive(out.clone().into()));
    build(&engine, &request);
    let exported = Exported::from_tar(&out);
    exported.check();
    let layers = exported.layers();
    assert_eq!(layers.len(), 2);
    assert_eq!(entries(layers[0].as_slice())["etc/motd"].content, b"hello");
    let env = exported.config()["config"]["Env"].to_string();
    assert!(env.contains("PATH=") && env.contains("A=1"), "{env}");
}

fn only_what_is_used_of_a_named_directory_counts() {
    let place = Place::new();
    let engine = place.engine();
    let extra = directory(&place, "extra", &[("used", "1"), ("unused", "1")]);
    let request = place
        .request("FROM base\nCOPY --from=extra used /\nRUN true\n")
        .build_context("extra", extra);
    let first = build(&engine, &request);
    directory(&place, "extra", &[("unused", "2")]);
    // Nothing below it was looked at either.
    std::os::unix::fs::symlink("/nowhere", place.path().join("extra/broken")).unwrap();
    let second = build(&engine, &request);
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    directory(&place, "extra", &[("used", "2")]);
    assert_eq!(build(&engine, &request).executed, 2);
    // The same files under another name are the same step.
    let other = directory(&place, "other", &[("used", "1")]);
    let request = place
        .request("FROM base\nCOPY --from=other used /\nRUN true\n")
        .build_context("other", other);
    assert_eq!(build(&engine, &request).executed, 0);
}

fn a_directory_replaces_a_stage() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM nothing.invalid/x AS dep\nRUN false\n\
        FROM base\n\
        COPY --from=dep f /f\n\
        COPY --from=1 f /g\n\
        RUN --mount=from=DEP,target=/m cmp /f /m/f && cmp /f /g\n";
    let dep = directory(&place, "dep", &[("f", "mine")]);
    let request = place.request(text).build_context("dep", dep);
    let built = build(&engine, &request);
    let ran = ran(&built).join("\n");
    assert!(!ran.contains("RUN false") && !ran.contains("FROM"), "{ran}");
}

fn an_image_replaces_a_stage_and_its_config() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nENV KIND=named\nWORKDIR /named\nONBUILD RUN echo fired > /fired\n";
    build(&engine, &place.request(text).tag("other"));
    let text = "FROM nothing.invalid/x AS dep\nENV KIND=own\nRUN false\n\
        FROM dep\n\
        RUN test \"$KIND $(pwd) $(cat /fired)\" = 'named /named fired'\n";
    let request = place.request(text).build_context("dep", image("other"));
    build(&engine, &request);
    // As the target it is that image, triggers not fired.
    let text = "FROM scratch AS dep\nCOPY nothing /\n";
    let request =
        place.request(text).build_context("dep", image("other")).tag("again").target("dep");
    build(&engine, &request);
    assert_eq!(place.sh(&engine, "again", "echo $KIND; pwd; test ! -e /fired"), "named\n/named\n");
}

fn an_image_stands_for_another() {
    let place = Place::new();
    let engine = place.engine();
    build(&engine, &place.request("FROM base\nENV KIND=named\nRUN touch /of-named\n").tag("other"));
    let text = "FROM nothing.invalid/x\nRUN test $KIND = named\n\
        COPY --from=files /of-named /copy\n\
        RUN --mount=from=files,target=/m test -e /m/of-named -a -e /copy\n";
    let request = BuildRequest::new(place.context())
        .dockerfile_text(text)
        .build_context("nothing.invalid/x:latest", image("other"))
        .build_context("files", image("other:latest"));
    build(&engine, &request);
}

fn scratch_stands_for_an_image() {
    let place = Place::new();
    let text = "FROM nothing.invalid/x\nCOPY busybox /\nCOPY --from=nothing.invalid/x / /\n";
    let request = BuildRequest::new(place.context())
        .dockerfile_text(text)
        .build_context("nothing.invalid/x", image("scratch"));
    build(&place.engine(), &request);
}

/// A layout with an image that has a file and a variable.
fn layout(place: &Place) -> std::path::PathBuf {
    let maker = Place::new();
    let path = place.path().join("layout");
    let request = maker
        .request("FROM base\nENV KIND=layout\nRUN echo hi > /of-layout\n")
        .tag("made:1")
        .output(Output::OciLayout(path.clone()));
    build(&maker.engine(), &request);
    path
}

fn of_layout(path: &std::path::Path, tag: Option<&str>) -> NamedContextInput {
    let tag = tag.map(str::to_owned);
    NamedContextInput::OciLayout { path: path.to_owned(), tag, digest: None }
}

fn a_layout_is_an_image() {
    let place = Place::new();
    let engine = place.engine();
    let path = layout(&place);
    let text = "FROM mine\nRUN test \"$KIND $(cat /of-layout)\" = 'layout hi'\n\
        COPY --from=mine /of-layout /copy\n";
    let plain = BuildRequest::new(place.context()).dockerfile_text(text).tag("child");
    let digest = Exported::from_directory(&path).manifest_digest().parse().unwrap();
    let pinned =
        NamedContextInput::OciLayout { path: path.clone(), tag: None, digest: Some(digest) };
    let mut ids = Vec::new();
    for context in [of_layout(&path, Some("1")), of_layout(&path, None), pinned] {
        let built = build(&engine, &plain.clone().build_context("mine", context));
        ids.push(id(&built));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    // What was built does not need the layout any more.
    fs_err::remove_dir_all(&path).unwrap();
    assert_eq!(place.sh(&engine, "child", "cat /copy"), "hi\n");
}

fn what_a_layout_lacks_is_named() {
    let place = Place::new();
    let engine = place.engine();
    let path = layout(&place);
    let request = BuildRequest::new(place.context()).dockerfile_text("FROM mine\nRUN true\n");
    let told =
        |context| explain(&build_error(&engine, &request.clone().build_context("mine", context)));
    let missing = told(of_layout(&path, Some("2")));
    assert!(missing.contains("no image is tagged 2; there are 1"), "{missing}");
    let nowhere = told(of_layout(&place.path().join("nowhere"), None));
    assert!(nowhere.contains("oci-layout://") && nowhere.contains("nowhere"), "{nowhere}");
    // A blob that is not what its name says.
    let exported = Exported::from_directory(&path);
    let layers = exported.manifest()["layers"].clone();
    let digest = layers[0]["digest"].as_str().unwrap().replace("sha256:", "");
    let blob = path.join("blobs/sha256").join(digest);
    let mut bytes = fs_err::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs_err::write(&blob, bytes).unwrap();
    let damaged = told(of_layout(&path, None));
    assert!(damaged.contains("sha256"), "{damaged}");
}

fn the_context_of_the_platform_comes_first() {
    let place = Place::new();
    let engine = place.engine();
    let host = rbuild::Platform::host();
    let any = directory(&place, "any", &[("f", "any")]);
    let mine = directory(&place, "mine", &[("f", "mine")]);
    let text = "FROM base\nCOPY --from=x f /f\nRUN test \"$(cat /f)\" = mine\n";
    let request = place
        .request(text)
        .build_context("x", any)
        .build_context(format!("x::{host}"), mine.clone())
        .build_context("x::linux/s390x", mine);
    build(&engine, &request);
}

fn what_cannot_be_a_context_is_named() {
    let place = Place::new();
    let engine = place.engine();
    let refused = |name: &str, value: &str| {
        let context = NamedContextInput::parse(value).unwrap();
        let request = place.request("FROM base\n").build_context(name, context);
        match build_error(&engine, &request) {
            BuildError::Request { message } => message,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused("scratch", ".").contains("cannot be replaced"));
    assert!(refused("context", ".").contains("cannot be replaced"));
    assert!(refused("Upper", ".").contains("must be lowercase"));
    assert!(refused("x", "https://h/x.git?y=1").contains("unexpected query \"y\""));
    assert!(refused("x", "http://h/%").contains("invalid URL"));
    assert!(refused("x", "target:y").contains("target:y is not supported"));
    assert!(refused("x", "docker-image://A").contains("build context x"));
}

fn an_unused_context_is_a_warning() {
    let place = Place::new();
    let engine = place.engine();
    let events = Events::default();
    let other = directory(&place, "other", &[("f", "")]);
    let request = place
        .request("FROM base AS build\nCOPY --from=used f /\n")
        .build_context("used", other.clone())
        .build_context("biuld", other.clone())
        .build_context("build::linux/s390x", other);
    engine.build(&request, &events, &CancelToken::default()).unwrap();
    let warnings: Vec<_> = events
        .take()
        .into_iter()
        .filter_map(|event| match event {
            Event::Warning(warning) => Some((warning.message, warning.help)),
            _ => None,
        })
        .collect();
    let message = "nothing was taken from the build context `biuld`".to_owned();
    assert_eq!(warnings, [(message, Some("did you mean `build`?".to_owned()))]);
}

/// A tar of the context.
pub fn tar(place: &Place) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("", place.context()).unwrap();
    builder.into_inner().unwrap()
}

fn archive(place: &Place, bytes: Vec<u8>) -> BuildRequest {
    let mut request = BuildRequest::new(place.context());
    request.context = ContextInput::Archive(ContextArchive::new(std::io::Cursor::new(bytes)));
    request
}

fn a_tar_is_a_context() {
    let place = Place::new();
    let engine = place.engine();
    let text = |file: &str| {
        format!(
            "FROM scratch\nCOPY busybox /bin/\nCOPY {file} /f\nCOPY hidden /\n\
             RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
             RUN --mount=target=/m cmp /f /m/{file}\n"
        )
    };
    place.write("Containerfile", text("one"));
    place.write("sub/other", text("two"));
    place.write("one", "1");
    place.write("two", "2");
    // Not looked at: BuildKit sends what is in a tar as it is.
    place.write(".dockerignore", "hidden\n");
    place.write("hidden", "seen");
    let bytes = tar(&place);
    let first = build(&engine, &archive(&place, bytes.clone()));
    assert_eq!(first.cached, 0);
    assert_eq!(place.leftovers(), Vec::<String>::new());
    let again = build(&engine, &archive(&place, bytes.clone()));
    assert_eq!((again.executed, id(&again)), (0, id(&first)));
    // `-f` names a file in it, and one that is read once is read once.
    let mut other = archive(&place, bytes.clone());
    other.dockerfile = DockerfileInput::Path("sub/other".into());
    build(&engine, &other);
    let told = explain(&build_error(&engine, &other));
    assert!(told.contains("was read by an earlier build"), "{told}");
    let mut outside = archive(&place, bytes);
    outside.dockerfile = DockerfileInput::Path(place.context().join("Containerfile"));
    let told = explain(&build_error(&engine, &outside));
    assert!(told.contains("failed to read dockerfile"), "{told}");
}

/// What a program makes of bytes.
pub fn piped(program: &str, bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in");
    fs_err::write(&path, bytes).unwrap();
    let output = std::process::Command::new(program)
        .arg("-c")
        .stdin(fs_err::File::open(&path).unwrap().into_file())
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

fn a_compressed_tar_is_a_context() {
    let place = Place::new();
    let engine = place.engine();
    place.write("Dockerfile", "FROM scratch\nCOPY f /\n");
    place.write("f", "1");
    let plain = tar(&place);
    let mut ids = vec![id(&build(&engine, &archive(&place, plain.clone())))];
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        ids.push(id(&build(&engine, &archive(&place, piped(program, &plain)))));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

fn a_hostile_tar_stays_inside() {
    let place = Place::new();
    let engine = place.engine();
    let outside = place.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    };
    let target = outside.display().to_string();
    add("Dockerfile", tar::EntryType::Regular, "", "FROM scratch\nCOPY f up /\n");
    add("f", tar::EntryType::Regular, "", "1");
    add("link", tar::EntryType::Symlink, &target, "");
    add("link/new", tar::EntryType::Regular, "", "x");
    add("../../../up", tar::EntryType::Regular, "", "x");
    add(&format!("{target}/absolute"), tar::EntryType::Regular, "", "x");
    add("passwd", tar::EntryType::Symlink, "/etc/passwd", "");
    let bytes = builder.into_inner().unwrap();
    let outcome = engine.build(&archive(&place, bytes.clone()), &Silent, &CancelToken::default());
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0, "{outcome:?}");
    assert!(!place.path().join("up").exists());
    // A link as the Dockerfile leads to the archive's own files.
    let mut request = archive(&place, bytes);
    request.dockerfile = DockerfileInput::Path("passwd".into());
    let told = explain(&build_error(&engine, &request));
    assert!(!told.contains("root:"), "{told}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_broken_tar_is_an_error() {
    let place = Place::new();
    let engine = place.engine();
    place.write("Dockerfile", "FROM scratch\nCOPY big /\n");
    place.write("big", vec![b'x'; 100_000]);
    let mut bytes = tar(&place);
    bytes.truncate(60_000);
    let error = build_error(&engine, &archive(&place, bytes));
    assert!(matches!(error, BuildError::Image(_)), "{error:?}");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn an_ignore_file_may_be_named() {
    let place = Place::new();
    let engine = place.engine();
    place.write(".dockerignore", "a\n");
    let named = place.path().join("other-rules");
    fs_err::write(&named, "b\n").unwrap();
    place.write("a", "");
    place.write("b", "");
    let mut request = place.request("FROM base\nCOPY . /c\nRUN test -e /c/a -a ! -e /c/b\n");
    request.ignore_file = Some(named);
    build(&engine, &request);
    request.ignore_file = Some(place.path().join("nowhere"));
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("cannot read the ignore file"), "{told}");
}

fn a_hidden_file_is_told_with_its_rule() {
    let place = Place::new();
    let engine = place.engine();
    place.write(".dockerignore", "# rules\n*.o\n");
    place.write("a.o", "");
    place.write("main.c", "");
    let told = |text: &str| explain(&build_error(&engine, &place.request(text)));
    let hidden = told("FROM base\nCOPY a.o /\n");
    assert!(hidden.contains("left out by .dockerignore line 2: *.o"), "{hidden}");
    let near = told("FROM base\nCOPY mian.c /\n");
    assert!(near.contains("(did you mean \"/main.c\"?)"), "{near}");
}
