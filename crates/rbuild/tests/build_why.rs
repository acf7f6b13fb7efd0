//! Why steps run: each kind of input is changed once, and the step that runs must name it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rbuild::{
    BuildRequest, Built, CancelToken, Digest, ExtraHost, FileChange, Network, NoCache, Outcome,
    PruneOptions, Reason, Silent,
};

use crate::build_http;
use crate::git_server::{Protocol, Server};
use crate::support::{BASE, Place, build, build_error, prune_nameless};
use crate::tests;
use crate::web::{Web, answer};

tests![
    files_of_the_context_are_named,
    files_of_a_bound_context_are_named,
    files_of_a_stage_are_named,
    what_an_instruction_says_is_told,
    what_the_stage_says_is_told,
    what_options_say_is_told,
    a_base_image_is_told_by_its_digests,
    what_a_url_gives_is_told,
    what_a_branch_means_is_told,
    a_changed_stage_is_named_by_who_binds_it,
    a_step_is_explained_by_the_one_below,
    what_was_pruned_is_said_to_be,
    what_was_lost_is_said_to_be,
    the_cache_may_be_forbidden,
    a_step_that_failed_is_not_called_new,
    another_checkout_is_compared_with_the_first,
    values_of_secret_variables_are_not_told,
    inserted_steps_are_new_and_others_keep_their_past,
    the_last_build_is_remembered,
];

/// Why the steps ran, as events say it: text of the step, reason.
pub fn why(built: &Built) -> Vec<(String, Reason)> {
    let text = |name: &str| name.split_once("] ").map_or(name, |(_, text)| text).to_owned();
    let steps = built.steps.iter().filter(|step| !step.cached);
    steps.filter_map(|step| Some((text(&step.name), step.reason.clone()?))).collect()
}

/// The first reason of a build.
fn first(built: &Built) -> Reason {
    let all = why(built);
    all.first().unwrap_or_else(|| panic!("nothing ran: {:?}", built.steps)).1.clone()
}

fn file(path: &str, change: FileChange) -> Reason {
    Reason::File { path: path.to_owned(), change }
}

fn content(old: &str, new: &str) -> FileChange {
    FileChange::Content { old: Digest::of(old), new: Digest::of(new) }
}

/// Builds, changes something, builds again: the reason of the first step that ran.
fn after(text: &str, change: impl Fn(&Place)) -> Reason {
    let place = Place::new();
    place.write("dir/a", "one");
    place.write("dir/b", "one");
    fs_err::os::unix::fs::symlink("a", place.context().join("dir/link")).unwrap();
    let engine = place.engine();
    place.build(&engine, text);
    change(&place);
    first(&place.build(&engine, text))
}

type Change = fn(&Place);

fn changes() -> Vec<(Change, Reason)> {
    vec![
        (|place| drop(place.write("dir/a", "two")), file("/dir/a", content("one", "two"))),
        (|place| drop(place.write("dir/new", "")), file("/dir/new", FileChange::Added)),
        (
            |place| fs_err::remove_file(place.context().join("dir/b")).unwrap(),
            file("/dir/b", FileChange::Removed),
        ),
        (
            |place| {
                let path = place.context().join("dir/a");
                fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
            },
            file("/dir/a", FileChange::Mode { old: 0o644, new: 0o755 }),
        ),
        (
            |place| {
                let link = place.context().join("dir/link");
                fs_err::remove_file(&link).unwrap();
                fs_err::os::unix::fs::symlink("b", link).unwrap();
            },
            file("/dir/link", FileChange::Target { old: "a".to_owned(), new: "b".to_owned() }),
        ),
        (
            |place| {
                fs_err::remove_file(place.context().join("dir/b")).unwrap();
                fs_err::create_dir(place.context().join("dir/b")).unwrap();
            },
            file("/dir/b", FileChange::Kind { old: "file".into(), new: "directory".into() }),
        ),
    ]
}

fn files_of_the_context_are_named() {
    for (change, expected) in changes() {
        assert_eq!(after("COPY dir /dir\nRUN true\n", change), expected);
    }
}

fn files_of_a_bound_context_are_named() {
    for (change, expected) in changes() {
        let text = "RUN --mount=type=bind,source=dir,target=/dir true\n";
        assert_eq!(after(text, change), expected);
    }
}

fn files_of_a_stage_are_named() {
    // The stage's own step is told by its text, the copy by what the files are.
    let place = Place::new();
    let engine = place.engine();
    let text = |script: &str| {
        format!("FROM base AS made\nRUN {script}\nFROM base\nCOPY --from=made /out /out\n")
    };
    let first = "mkdir /out; echo -n 1 > /out/f";
    place.build(&engine, &text(first));
    let expected = [
        ("mkdir /out; echo -n 2 > /out/f", content("1", "2")),
        ("mkdir /out; echo -n 1 > /out/f; chown 7:8 /out/f", {
            FileChange::Owner { old: (0, 0), new: (7, 8) }
        }),
        ("mkdir /out; mkfifo /out/f", {
            FileChange::Kind { old: "file".into(), new: "device or pipe".into() }
        }),
    ];
    for (script, change) in expected {
        let reasons = why(&place.build(&engine, &text(script)));
        assert!(matches!(reasons[0].1, Reason::Text { .. }), "{reasons:?}");
        assert_eq!(reasons[1].1, file("/out/f", change), "{script}");
        place.build(&engine, &text(first));
    }
}

/// Builds one text after the other: the reason of the first step that ran.
fn from_to(old: &str, new: &str) -> Reason {
    let place = Place::new();
    place.write("one", "1");
    place.write("two", "1");
    let engine = place.engine();
    place.build(&engine, old);
    first(&place.build(&engine, new))
}

fn setting(name: &str, old: &str, new: &str) -> Reason {
    Reason::Setting { name: name.to_owned(), old: old.to_owned(), new: new.to_owned() }
}

fn text(old: &str, new: &str) -> Reason {
    Reason::Text { old: old.to_owned(), new: new.to_owned() }
}

fn what_an_instruction_says_is_told() {
    for (old, new) in [
        ("RUN true", "RUN true # changed"),
        ("RUN [\"true\"]", "RUN [\"true\", \"x\"]"),
        ("COPY one /x", "COPY one /y"),
        ("COPY one /x", "COPY two /elsewhere/"),
        ("ADD one /x", "ADD one /y"),
    ] {
        assert_eq!(from_to(old, new), text(old, new));
    }
    let document = |body: &str| format!("RUN <<EOF\ntrue\n{body}\nEOF\n");
    let script = |body: &str| format!("true\n{body}\n");
    assert_eq!(from_to(&document("a=1"), &document("a=2")), text(&script("a=1"), &script("a=2")));
    let document = |body: &str| format!("RUN <<EOF\n#!/bin/sh\n{body}\nEOF\n");
    let script = |body: &str| format!("#!/bin/sh\n{body}\n");
    assert_eq!(from_to(&document("a=1"), &document("a=2")), text(&script("a=1"), &script("a=2")));
    let inline = |body: &str| format!("COPY <<f /f\n{body}\nf\n");
    assert_eq!(from_to(&inline("a"), &inline("b")), file("f", content("a\n", "b\n")));
    assert_eq!(
        from_to("WORKDIR /a\nRUN true\n", "WORKDIR /b\nRUN true\n"),
        setting("path", "/a", "/b")
    );
    for (old, new, expected) in [
        ("COPY one /", "COPY --chown=1:2 one /", setting("--chown", "not set", "1:2")),
        ("COPY one /", "COPY --chmod=600 one /", setting("--chmod", "not set", "600")),
        ("COPY one /", "COPY --link one /", setting("--link", "false", "true")),
        ("COPY one /x", "COPY --parents one /x", setting("--parents", "false", "true")),
        ("COPY one /x", "ADD one /x", setting("--unpack", "none", "local")),
        ("RUN true", "RUN --network=none true", setting("--network", "default", "none")),
    ] {
        assert_eq!(from_to(old, new), expected, "{old} → {new}");
    }
    let Reason::Setting { name, .. } = from_to("RUN true", "RUN --mount=type=tmpfs,target=/t true")
    else {
        panic!("a mount is a setting");
    };
    assert_eq!(name, "--mount");
}

fn variable(arg: bool, name: &str, old: Option<&str>, new: Option<&str>) -> Reason {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Reason::Variable { arg, name: name.to_owned(), old: owned(old), new: owned(new) }
}

fn what_the_stage_says_is_told() {
    for (old, new, expected) in [
        ("ENV A=1\nRUN true", "ENV A=2\nRUN true", variable(false, "A", Some("1"), Some("2"))),
        ("RUN true", "ENV A=2\nRUN true", variable(false, "A", None, Some("2"))),
        ("ENV A=1\nRUN true", "RUN true", variable(false, "A", Some("1"), None)),
        ("ARG A=1\nRUN true", "ARG A=2\nRUN true", variable(true, "A", Some("1"), Some("2"))),
        ("USER 1\nRUN true", "USER 2\nRUN true", setting("USER", "1", "2")),
        ("USER 1\nWORKDIR /x", "USER 2\nWORKDIR /x", setting("USER", "1", "2")),
    ] {
        assert_eq!(from_to(old, new), expected, "{old} → {new}");
    }
    let Reason::Text { old, new } =
        from_to("SHELL [\"/bin/sh\", \"-c\"]\nRUN true", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN true")
    else {
        panic!("another shell is another command");
    };
    assert_eq!((old.as_str(), new.as_str()), ("true", "true"));
}

type Alter = fn(&mut BuildRequest);

fn what_options_say_is_told() {
    let place = Place::new();
    let engine = place.engine();
    let plain = || place.request("ARG A\nWORKDIR /x\nRUN true\n");
    build(&engine, &plain());
    let first = |request: BuildRequest| first(&build(&engine, &request));
    assert_eq!(first(plain().arg("A", "1")), variable(true, "A", None, Some("1")));
    let host = ExtraHost { name: "db".to_owned(), address: "1.2.3.4".to_owned() };
    let mut request = plain();
    request.options.extra_hosts = vec![host];
    build(&engine, &plain());
    assert!(matches!(first(request), Reason::Setting { name, .. } if name == "--add-host"));
    let changes: [(&str, Alter); 4] = [
        ("--ulimit", |request| request.options.ulimits = vec!["nofile=99".parse().unwrap()]),
        ("--shm-size", |request| request.options.shm_size = Some(1 << 20)),
        ("--network", |request| request.options.network = Network::None),
        ("hostname", |request| request.options.hostname = "other".to_owned()),
    ];
    for (expected, change) in changes {
        build(&engine, &plain());
        let mut request = plain();
        change(&mut request);
        let found = first(request);
        assert!(matches!(&found, Reason::Setting { name, .. } if name == expected), "{found:?}");
    }
    build(&engine, &plain());
    let dated = plain().arg("SOURCE_DATE_EPOCH", "5");
    assert_eq!(first(dated), setting("SOURCE_DATE_EPOCH", "not set", "5"));
}

fn a_base_image_is_told_by_its_digests() {
    let place = Place::new();
    let engine = place.engine();
    let base = |content: &str| {
        build(&engine, &place.request(&format!("RUN echo {content} > /v\n")).tag("my/base:1"))
    };
    let elsewhere = place.path().join("elsewhere");
    fs_err::create_dir(&elsewhere).unwrap();
    let upon = BuildRequest::new(&elsewhere).dockerfile_text("FROM my/base:1\nRUN true\n");
    let old = base("one").image.unwrap().manifest_digest.to_string();
    build(&engine, &upon);
    let new = base("two").image.unwrap().manifest_digest.to_string();
    let reason = first(&build(&engine, &upon));
    assert_eq!(reason, Reason::Base { image: "my/base:1".to_owned(), old, new });
}

fn what_a_url_gives_is_told() {
    let changed = Arc::new(AtomicBool::new(false));
    let now = changed.clone();
    let web =
        Web::start(move |_| answer(200, if now.load(Ordering::Relaxed) { "two" } else { "one" }));
    let place = Place::new();
    let engine = build_http::engine(&place);
    let text = format!("ADD {} /f\n", web.url("/f"));
    place.build(&engine, &text);
    changed.store(true, Ordering::Relaxed);
    let name = web.url("/f");
    let (old, new) = (Digest::of("one").to_string(), Digest::of("two").to_string());
    assert_eq!(first(&place.build(&engine, &text)), Reason::Remote { name, old, new });
}

fn what_a_branch_means_is_told() {
    let server = Server::start(Protocol::Two);
    server.repository("r");
    server.write("r", "f", "one");
    let old = server.commit("r");
    let engine = build_http::engine(&server.place);
    let text = format!("ADD {} /r\n", server.url("r.git"));
    server.place.build(&engine, &text);
    server.write("r", "f", "two");
    let new = server.commit("r");
    let name = server.url("r.git");
    assert_eq!(first(&server.place.build(&engine, &text)), Reason::Remote { name, old, new });
}

fn a_changed_stage_is_named_by_who_binds_it() {
    let place = Place::new();
    let engine = place.engine();
    let text = |n: u8| {
        format!(
            "FROM base AS made\nRUN echo {n} > /n\n\
             FROM base\nRUN --mount=from=made,target=/made cat /made/n\n"
        )
    };
    place.build(&engine, &text(1));
    let reasons = why(&place.build(&engine, &text(2)));
    let step = "[made 1/1] RUN echo 2 > /n".to_owned();
    assert_eq!(reasons[1].1, Reason::Input { step });
}

fn a_step_is_explained_by_the_one_below() {
    let place = Place::new();
    place.write("f", "1");
    let engine = place.engine();
    let text = "COPY f /\nRUN echo a\nRUN echo b\n";
    place.build(&engine, text);
    place.write("f", "2");
    let below = |step: &str| Reason::Below { step: step.to_owned() };
    let expected = [
        ("COPY f /".to_owned(), file("/f", content("1", "2"))),
        ("RUN echo a".to_owned(), below("[base 3/5] COPY f /")),
        ("RUN echo b".to_owned(), below("[base 4/5] RUN echo a")),
    ];
    assert_eq!(why(&place.build(&engine, text)), expected);
}

fn what_was_pruned_is_said_to_be() {
    let place = Place::new();
    let engine = place.engine();
    let build = |text: &str| place.build(&engine, text);
    // No image keeps it.
    build("FROM base AS side\nRUN echo side > /x\nFROM base\nCOPY --from=side /x /x\n");
    build("RUN true\n");
    prune_nameless(&engine);
    let options = PruneOptions { all: true, ..PruneOptions::default() };
    engine.prune(&options, &Silent, &CancelToken::default()).unwrap();
    let reason = first(&build("RUN true\n"));
    assert!(matches!(reason, Reason::Evicted { at } if at > 0), "{reason:?}");
}

fn what_was_lost_is_said_to_be() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "RUN true\n");
    drop(engine);
    for snapshot in fs_err::read_dir(place.store().join("snapshots")).unwrap().flatten() {
        if snapshot.path().is_dir() {
            fs_err::remove_dir_all(snapshot.path()).unwrap();
        }
    }
    assert_eq!(first(&place.build(&place.engine(), "RUN true\n")), Reason::Lost);
}

fn the_cache_may_be_forbidden() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS a\nRUN cat /proc/uptime > /a\nFROM a\nRUN echo b\n";
    place.build(&engine, text);
    let mut request = place.request(text);
    request.options.no_cache = NoCache::Stages(vec!["a".to_owned()]);
    let step = "[a 1/1] RUN cat /proc/uptime > /a".to_owned();
    let expected = [
        ("RUN cat /proc/uptime > /a".to_owned(), Reason::NoCache),
        ("RUN echo b".to_owned(), Reason::Below { step }),
    ];
    assert_eq!(why(&build(&engine, &request)), expected);
}

fn a_step_that_failed_is_not_called_new() {
    let place = Place::new();
    let engine = place.engine();
    let text = "RUN --mount=type=cache,target=/c test -e /c/done || { touch /c/done; exit 1; }\n";
    build_error(&engine, &place.request(text));
    assert_eq!(first(&place.build(&engine, text)), Reason::Unfinished);
    // One that never had a result is told by what it says.
    let place = Place::new();
    let engine = place.engine();
    build_error(&engine, &place.request("RUN exit 1\n"));
    assert_eq!(
        first(&place.build(&engine, "RUN exit 0\n")),
        self::text("RUN exit 1", "RUN exit 0")
    );
}

fn another_checkout_is_compared_with_the_first() {
    let place = Place::new();
    place.write("f", "1");
    let engine = place.engine();
    place.build(&engine, "COPY f /\n");
    let elsewhere = place.path().join("elsewhere");
    fs_err::create_dir(&elsewhere).unwrap();
    fs_err::copy("/bin/busybox", elsewhere.join("busybox")).unwrap();
    fs_err::write(elsewhere.join("f"), "2").unwrap();
    let request = BuildRequest::new(&elsewhere).dockerfile_text(format!("{BASE}COPY f /\n"));
    assert_eq!(first(&build(&engine, &request)), file("/f", content("1", "2")));
}

fn values_of_secret_variables_are_not_told() {
    let reason = from_to("ENV API_TOKEN=old\nRUN true", "ENV API_TOKEN=new\nRUN true");
    assert_eq!(reason, variable(false, "API_TOKEN", Some("****"), Some("****")));
}

fn inserted_steps_are_new_and_others_keep_their_past() {
    let place = Place::new();
    let engine = place.engine();
    let built = place.build(&engine, "RUN echo a\n");
    assert!(why(&built).iter().all(|(_, reason)| *reason == Reason::New), "{:?}", why(&built));
    let reasons = why(&place.build(&engine, "WORKDIR /x\nRUN echo a\n"));
    assert_eq!(reasons[0], ("WORKDIR /x".to_owned(), Reason::New));
    // It stands upon another step, and in another directory.
    assert_eq!(reasons[1], ("RUN echo a".to_owned(), setting("WORKDIR", "/", "/x")));
}

fn the_last_build_is_remembered() {
    let place = Place::new();
    place.write("f", "1");
    let engine = place.engine();
    assert_eq!(engine.last_build().unwrap(), None);
    place.build(&engine, "COPY f /\nRUN echo b\n");
    place.write("f", "2");
    place.build(&engine, "COPY f /\nRUN echo b\n");
    let last = engine.last_build().unwrap().unwrap();
    let outcomes: Vec<_> = last.steps.iter().map(|step| step.outcome).collect();
    use Outcome::{Cached, Failed, Ran, Skipped};
    assert_eq!(outcomes, [Cached, Cached, Ran, Ran]);
    assert!(last.succeeded && last.ended > 0 && last.title.contains("Dockerfile"), "{last:?}");
    assert_eq!(last.steps[2].reasons, [file("/f", content("1", "2"))]);
    build_error(&engine, &place.request("COPY f /\nRUN exit 3\nRUN true\n"));
    let last = engine.last_build().unwrap().unwrap();
    let outcomes: Vec<_> = last.steps.iter().map(|step| step.outcome).collect();
    assert_eq!(outcomes, [Cached, Cached, Cached, Failed, Skipped]);
    assert!(!last.succeeded);
    // What was not reached keeps its past: the next build compares with the first one.
    place.build(&engine, "COPY f /\nRUN echo b\n");
    assert_eq!(engine.last_build().unwrap().unwrap().steps[3].outcome, Cached);
}
