//! Contexts that lie elsewhere: git repositories and URLs, from servers on the loopback device.

use rbuild::{
    BuildError, BuildRequest, CancelToken, ContextArchive, ContextInput, DockerfileInput, Engine,
    Event, NamedContextInput, Output, PruneOptions, Silent,
};

use crate::build_context::{piped, tar};
use crate::build_http::engine;
use crate::exported::Exported;
use crate::git_server::{Protocol, Server};
use crate::support::{Events, Place, build, build_error, explain, id, ran};
use crate::tests;
use crate::web::{Asked, Web, answer};

tests![
    a_repository_is_a_context,
    a_context_that_did_not_change_is_not_fetched_again,
    a_git_dir_is_part_of_a_context_when_asked_for,
    the_dockerfile_is_in_the_context_unless_its_path_is_absolute,
    credentials_of_a_context_are_sent_and_not_shown,
    a_tar_behind_a_url_is_a_context,
    a_dockerfile_behind_a_url_needs_no_context,
    what_cannot_be_had_is_named,
    a_context_elsewhere_is_checked,
    a_repository_goes_by_a_name,
    a_url_goes_by_a_name,
    the_time_of_a_repository_is_its_commit_s,
    the_time_of_a_url_is_what_its_server_says,
    the_time_of_a_tar_is_that_of_its_newest_file,
    a_name_gives_the_time_of_the_build,
    a_push_does_not_part_the_time_from_the_files,
];

const DOCKERFILE: &str = "\
FROM scratch
COPY busybox /bin/
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
COPY . /c
";

/// A repository with a Dockerfile, also one in a directory.
fn served() -> Server {
    let server = Server::start(Protocol::Two);
    server.repository("r");
    let busybox = fs_err::read("/bin/busybox").unwrap();
    for directory in ["", "sub/"] {
        server.write("r", &format!("{directory}Dockerfile"), DOCKERFILE);
        let path = format!("{directory}busybox");
        server.write("r", &path, &busybox);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(server.path("r").join(path), mode).unwrap();
        server.write("r", &format!("{directory}f"), format!("in {directory}\n"));
    }
    server.write("r", ".dockerignore", "f\n");
    server.write("r", "other", format!("{DOCKERFILE}ENV OTHER=1\n"));
    server.commit("r");
    server.git("r", "tag v1");
    server.write("r", "f", "newer\n");
    server.commit("r");
    server
}

fn request(context: &str) -> BuildRequest {
    let mut request = BuildRequest::new(".").tag("app");
    request.context = ContextInput::of(context);
    request
}

fn a_repository_is_a_context() {
    let server = served();
    let engine = engine(&server.place);
    for (rest, file) in [
        ("r.git", "newer\n"),
        ("r.git#v1", "in \n"),
        ("r.git#v1:sub", "in sub/\n"),
        ("r.git?tag=v1&subdir=sub", "in sub/\n"),
    ] {
        build(&engine, &request(&server.url(rest)));
        // Its ignore file does not count.
        let found = server.place.sh(&engine, "app", "cat /c/f; ls -A /c; stat -c %u:%g%a /c/f");
        assert!(found.starts_with(file) && !found.contains(".git\n"), "{rest}: {found}");
        assert!(found.ends_with("0:0644\n"), "{found}");
        assert_eq!(found.contains(".dockerignore"), !rest.contains("sub"), "{found}");
    }
    assert_eq!(server.place.leftovers(), [""; 0]);
}

fn a_context_that_did_not_change_is_not_fetched_again() {
    let server = served();
    let request = request(&server.url("r.git"));
    let first = build(&engine(&server.place), &request);
    assert_eq!(server.asked().0, 1);
    let second = build(&engine(&server.place), &request);
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    assert_eq!(server.asked(), (0, 2), "references are listed and nothing is fetched");
    server.write("r", "f", "newest\n");
    server.commit("r");
    let third = build(&engine(&server.place), &request);
    assert_eq!(ran(&third), ["[3/3] COPY . /c"]);
    assert_eq!(server.asked().0, 1);
}

fn a_git_dir_is_part_of_a_context_when_asked_for() {
    let server = served();
    let engine = engine(&server.place);
    let has = |request: &BuildRequest| {
        build(&engine, request);
        server.place.sh(&engine, "app", "test -e /c/.git/HEAD && echo kept || echo gone")
    };
    let url = server.url("r.git");
    assert_eq!(has(&request(&url)), "gone\n");
    assert_eq!(has(&request(&url).arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "0")), "gone\n");
    assert_eq!(has(&request(&url).arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1")), "kept\n");
    assert_eq!(has(&request(&format!("{url}?keep-git-dir=true"))), "kept\n");
}

fn the_dockerfile_is_in_the_context_unless_its_path_is_absolute() {
    let server = served();
    let engine = engine(&server.place);
    let mut request = request(&server.url("r.git"));
    request.dockerfile = DockerfileInput::Path("other".into());
    build(&engine, &request);
    assert_eq!(server.place.sh(&engine, "app", "echo $OTHER"), "1\n");
    let own = server.place.write("Own", format!("{DOCKERFILE}ENV OTHER=2\n"));
    request.dockerfile = DockerfileInput::Path(own);
    build(&engine, &request);
    assert_eq!(server.place.sh(&engine, "app", "echo $OTHER"), "2\n");
    request.dockerfile = DockerfileInput::Path("../../../../../etc/passwd".into());
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("failed to read dockerfile") && told.contains("r.git"), "{told}");
    let text = format!("{DOCKERFILE}ENV OTHER=3\n");
    request.dockerfile = DockerfileInput::Text { name: "stdin".to_owned(), text };
    build(&engine, &request);
    assert_eq!(server.place.sh(&engine, "app", "echo $OTHER"), "3\n");
}

fn credentials_of_a_context_are_sent_and_not_shown() {
    let place = Place::new();
    let closed = Web::start(|_| answer(401, ""));
    let engine = engine(&place);
    let url = closed.url("/r.git").replace("//", "//me:s3cret@");
    let told = explain(&build_error(&engine, &request(&url)));
    assert!(!told.contains("s3cret") && told.contains("me:xxxxx@"), "{told}");
    closed.asked();
    let mut with_token = request(&closed.url("/r.git"));
    with_token.secrets.insert("GIT_AUTH_TOKEN", b"t0ken".to_vec());
    build_error(&engine, &with_token);
    assert!(closed.asked()[0].header("authorization").starts_with("basic "));
    let mut with_token = request(&closed.url("/x.tar"));
    with_token.secrets.insert("HTTP_AUTH_TOKEN_127.0.0.1", b"t0ken".to_vec());
    build_error(&engine, &with_token);
    assert_eq!(closed.asked()[0].header("authorization"), "Bearer t0ken");
}

fn a_tar_behind_a_url_is_a_context() {
    let place = Place::new();
    place.write("Dockerfile", DOCKERFILE);
    place.write(".dockerignore", "f\n");
    place.write("f", "1");
    let plain = tar(&place);
    let engine = engine(&place);
    let mut ids = Vec::new();
    for program in ["gzip", "bzip2", "xz", "zstd", ""] {
        let bytes = if program.is_empty() { plain.clone() } else { piped(program, &plain) };
        let web = Web::start(move |asked| match asked.header("if-none-match") {
            "\"1\"" => answer(304, ""),
            _ => answer(200, bytes.clone()).with("ETag", "\"1\""),
        });
        // The name does not matter.
        let request = request(&web.url("/download?what=it"));
        ids.push(id(&build(&engine, &request)));
        assert_eq!(place.sh(&engine, "app", "cat /c/f"), "1");
        let again = build(&engine, &request);
        assert_eq!((again.executed, id(&again)), (0, ids[0]));
        assert_eq!(web.asked().len(), 2);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(place.leftovers(), [""; 0]);
    // It is unpacked once, and may be pruned.
    let rows = engine.rows().unwrap();
    let unpacked = rows.iter().filter(|row| row.description.starts_with("unpack http://"));
    assert_eq!(unpacked.count(), 5);
}

fn a_dockerfile_behind_a_url_needs_no_context() {
    let place = Place::new();
    let engine = engine(&place);
    let web = Web::start(|_| answer(200, "FROM scratch\nCOPY <<x /x\nhello\nx\n"));
    let mut request = request(&web.url("/some/file"));
    build(&engine, &request);
    request.dockerfile = DockerfileInput::Path("Dockerfile".into());
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("/some/file is a Dockerfile by itself"), "{told}");
    request.dockerfile = DockerfileInput::Default;
    let ignoring = BuildRequest { ignore_file: Some("rules".into()), ..request.clone() };
    let told = explain(&build_error(&engine, &ignoring));
    assert!(told.contains("no context that an ignore file could hold for"), "{told}");
    web.change(|_| answer(200, "FROM scratch\nCOPY x /\n"));
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("context"), "{told}");
    web.change(|_| answer(200, vec![b'#'; (16 << 20) + 1]));
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("neither a tar nor a Dockerfile"), "{told}");
}

fn what_cannot_be_had_is_named() {
    let server = served();
    let engine = engine(&server.place);
    for (rest, message) in [
        ("nope.git", "404"),
        ("r.git#nope", "does not contain ref \"nope\""),
        ("r.git#:nope", "invalid subdir nope"),
        ("nope.tar", "404"),
    ] {
        let error = build_error(&engine, &request(&server.url(rest)));
        assert!(matches!(error, BuildError::Fetch { .. }), "{error:?}");
        let told = explain(&error);
        assert!(told.contains("cannot load the build context") && told.contains(message), "{told}");
    }
    let told = explain(&build_error(&engine, &request(&server.url("r.git?tag=a&branch=b"))));
    assert!(told.contains("branch conflicts with tag"), "{told}");
    let error =
        rbuild::preview_contexts(&request(&server.url("r.git")), &Silent, &CancelToken::default());
    assert!(error.unwrap_err().to_string().contains("only a directory"));
}

fn a_context_elsewhere_is_checked() {
    let server = served();
    let place = &server.place;
    server.write("r", "Dockerfile", "FROM scratch as x\n");
    server.commit("r");
    let request = request(&server.url("r.git"));
    let check = |engine: Option<&Engine>| rbuild::check(&request, engine, &CancelToken::default());
    let checked = check(Some(&engine(place))).unwrap();
    assert_eq!(checked.findings[0].diagnostic.code, "FromAsCasing");
    assert!(check(None).unwrap_err().to_string().contains("needs a store"));
}

fn named(url: &str) -> NamedContextInput {
    NamedContextInput::parse(url).unwrap()
}

fn a_repository_goes_by_a_name() {
    let server = served();
    let engine = engine(&server.place);
    let url = server.url("r.git#v1:sub");
    let text = "FROM base\nCOPY --from=far f /f\n\
        RUN --mount=from=far,target=/m cmp /f /m/f && test \"$(cat /f)\" = 'in sub/'\n";
    let request = server.place.request(text).build_context("far", named(&url));
    build(&engine, &request);
    assert_eq!(server.asked().0, 1);
    assert_eq!(build(&engine, &request).executed, 0);
    // As a root filesystem, also of a stage that has its name.
    let text = "FROM scratch AS far\nRUN false\n\
        FROM far\nRUN [\"/busybox\", \"cat\", \"/f\"]\n";
    let request = BuildRequest::new(server.place.context())
        .dockerfile_text(text)
        .build_context("far", named(&url));
    let built = build(&engine, &request);
    assert_eq!(ran(&built)[1], "[far 1/1] FROM far");
    assert_eq!(server.asked().0, 0);
}

fn a_url_goes_by_a_name() {
    let place = Place::new();
    let engine = engine(&place);
    let web = Web::start(|_| answer(200, "hello"));
    let text = "FROM base\nCOPY --from=far context /f\n\
        RUN test \"$(cat /f) $(stat -c %a /f)\" = 'hello 600'\n";
    let request = place.request(text).build_context("far", named(&web.url("/some.txt")));
    build(&engine, &request);
    web.change(|_| answer(404, ""));
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("404") && told.contains("/some.txt"), "{told}");
}

/// When the image of a build was made, as its config says; without fractions.
fn created(engine: &Engine, place: &Place, request: &BuildRequest, epoch: &str) -> String {
    let out = place.path().join("out.tar");
    let request = request.clone().arg("SOURCE_DATE_EPOCH", epoch);
    build(engine, &request.output(Output::OciArchive(out.clone().into())));
    let config = Exported::from_tar(&out).config();
    let created = config["created"].as_str().unwrap();
    for item in config["history"].as_array().unwrap() {
        assert_eq!(item["created"], created);
    }
    created.to_owned()
}

/// The commits of the tests.
const COMMITTED: &str = "2017-07-14T02:40:00Z";

fn the_time_of_a_repository_is_its_commit_s() {
    let server = served();
    let (place, engine) = (&server.place, engine(&server.place));
    let by_branch = request(&server.url("r.git"));
    assert_eq!(created(&engine, place, &by_branch, "context"), COMMITTED);
    let times = "stat -c %Y /c /c/f /c/sub /c/sub/f | sort -u";
    assert_eq!(place.sh(&engine, "app", times), "1500000000\n");
    // Also where the tree is there and its record is not.
    let options = PruneOptions { all: true, ..PruneOptions::default() };
    engine.prune(&options, &Silent, &CancelToken::default()).unwrap();
    assert_eq!(created(&engine, place, &by_branch, "context"), COMMITTED);
    // A stage sees seconds.
    let mut plain = request(&server.url("r.git"));
    plain.dockerfile = DockerfileInput::Text {
        name: "x".to_owned(),
        text: format!(
            "ARG SOURCE_DATE_EPOCH=context\n{DOCKERFILE}ARG SOURCE_DATE_EPOCH\n\
                       RUN test $SOURCE_DATE_EPOCH = 1500000000\n"
        ),
    };
    build(&engine, &plain);
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A tar with one file of each time, and one directory that is newer.
fn timed_tar(times: &[u64]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, time: u64, content: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(time);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    };
    add("Dockerfile", tar::EntryType::Regular, 1, "FROM scratch\nWORKDIR /x\n");
    for (number, time) in times.iter().enumerate() {
        add(&number.to_string(), tar::EntryType::Regular, *time, "");
    }
    add("newer", tar::EntryType::Directory, 2_000_000_000, "");
    builder.into_inner().unwrap()
}

fn the_time_of_a_url_is_what_its_server_says() {
    let place = Place::new();
    let engine = engine(&place);
    let bytes = timed_tar(&[5, 60, 10]);
    let other = bytes.clone();
    let web = Web::start(move |_| answer(200, bytes.clone()).with("Last-Modified", MODIFIED));
    let request = request(&web.url("/x"));
    assert_eq!(created(&engine, &place, &request, "context"), "1994-11-06T08:49:37Z");
    web.change(move |_| answer(200, other.clone()));
    assert_eq!(created(&engine, &place, &request, "context"), "1970-01-01T00:01:00Z");
    let lone = |_: &Asked| answer(200, "FROM scratch\nWORKDIR /x\n");
    web.change(move |asked| lone(asked).with("Last-Modified", MODIFIED));
    assert_eq!(created(&engine, &place, &request, "context"), "1994-11-06T08:49:37Z");
    web.change(lone);
    assert!(created(&engine, &place, &request, "context").starts_with("20"));
}

fn the_time_of_a_tar_is_that_of_its_newest_file() {
    let place = Place::new();
    let engine = engine(&place);
    let mut request = BuildRequest::new(place.context());
    let bytes = std::io::Cursor::new(timed_tar(&[5, 60, 10]));
    request.context = ContextInput::Archive(ContextArchive::new(bytes));
    assert_eq!(created(&engine, &place, &request, "context"), "1970-01-01T00:01:00Z");
    // A directory of the host has none.
    place.write("Dockerfile", "FROM scratch\nWORKDIR /y\n");
    let request = BuildRequest::new(place.context());
    assert!(created(&engine, &place, &request, "context").starts_with("20"));
}

fn a_name_gives_the_time_of_the_build() {
    let server = served();
    let (place, engine) = (&server.place, engine(&server.place));
    let web = Web::start(|_| answer(200, "x").with("Last-Modified", MODIFIED));
    let (url, file) = (server.url("r.git"), web.url("/f"));
    let text = format!(
        "FROM scratch AS src\nARG V=v1\nADD {url}#$V /\n\
         FROM scratch AS file\nADD {file} /\nFROM scratch\nWORKDIR /x\n"
    );
    let request = BuildRequest::new(place.context())
        .dockerfile_text(text)
        .build_context("far", named(&file))
        .build_context("local", NamedContextInput::Directory(place.context()));
    for (name, time) in
        [("SRC", COMMITTED), ("file", "1994-11-06T08:49:37Z"), ("far", "1994-11-06T08:49:37Z")]
    {
        assert_eq!(created(&engine, place, &request, name), time, "{name}");
    }
    assert!(created(&engine, place, &request, "local").starts_with("20"));
    let events = Events::default();
    let timed = request.clone().arg("SOURCE_DATE_EPOCH", "far");
    engine.build(&timed, &events, &CancelToken::default()).unwrap();
    let warned = events.take().into_iter().find_map(|event| match event {
        Event::Warning(warning) => Some(warning.message),
        _ => None,
    });
    assert_eq!(warned.unwrap(), "nothing was taken from the build context `local`");
    let error = build_error(&engine, &request.clone().arg("SOURCE_DATE_EPOCH", "nope"));
    assert!(matches!(error, BuildError::Dockerfile { .. }), "{error:?}");
    assert!(explain(&error).contains("invalid SOURCE_DATE_EPOCH: nope"));
    web.change(|_| answer(404, ""));
    let told = explain(&build_error(&engine, &request.arg("SOURCE_DATE_EPOCH", "far")));
    assert!(told.contains("cannot load the time that SOURCE_DATE_EPOCH names"), "{told}");
}

fn a_push_does_not_part_the_time_from_the_files() {
    let server = served();
    let engine = engine(&server.place);
    let text = format!("FROM scratch AS src\nADD {} /\nFROM src\n", server.url("r.git"));
    let request = BuildRequest::new(server.place.context()).dockerfile_text(text);
    created(&engine, &server.place, &request, "src");
    let (packs, others) = server.asked();
    assert_eq!((packs, others), (1, 3), "the reference is looked up once");
}
