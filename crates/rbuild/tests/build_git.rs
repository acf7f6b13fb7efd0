//! `ADD` of git repositories, from a server on the loopback device. Git itself makes the
//! repositories and the packs; rbuild does not know that it is there.

use rbuild::Output;

use crate::build_http::engine;
use crate::git_server::{Protocol, Server, git, serve, served};
use crate::support::{build, id};
use crate::tests;
use crate::web::{Answer, Web, answer};

tests![
    a_branch_a_tag_and_a_directory,
    every_protocol_gives_the_same_files,
    differences_in_packs_are_undone,
    a_known_commit_is_not_fetched_again,
    a_commit_asks_nothing_once_it_is_there,
    a_branch_that_moved_is_noticed,
    checksums_are_compared,
    a_git_dir_is_kept_when_asked_for,
    submodules_are_checked_out,
    times_are_the_commit_s_when_asked_for,
    tokens_are_sent_to_their_host_only,
    what_is_not_there_is_named,
    forged_objects_are_refused,
    a_push_during_the_build_does_no_harm,
];

const LIST: &str = "find . | sort | xargs stat -c '%n %a %u:%g' && cat f l sub/g";
const LISTED: &str = ". 755 0:0\n./f 644 0:0\n./l 777 0:0\n./private 644 0:0\n./sub 755 0:0\n\
                      ./sub/deep 755 0:0\n./sub/deep/h 644 0:0\n./sub/g 644 0:0\n./x.sh 755 0:0\n";

fn a_branch_a_tag_and_a_directory() {
    let (server, first, _) = served(Protocol::Two);
    assert_eq!(server.added(&server.url("r.git"), LIST), format!("{LISTED}two\ntwo\nin\n"));
    for reference in ["v1", "v2", "refs/tags/v1", "tags/v2", &first] {
        let url = server.url(&format!("r.git#{reference}"));
        assert_eq!(server.added(&url, "cat f"), "one\n", "{reference}");
    }
    for rest in ["r.git#v1:sub", "r.git?tag=v1&subdir=/sub/", "r.git?branch=main&subdir=x/../sub"] {
        assert_eq!(server.added(&server.url(rest), "find . | sort"), ".\n./deep\n./deep/h\n./g\n");
    }
    assert_eq!(
        server.added(&format!("--exclude=sub {}", server.url("r.git")), "ls"),
        "f\nl\nprivate\nx.sh\n"
    );
    assert_eq!(server.place.leftovers(), [""; 0]);
}

fn every_protocol_gives_the_same_files() {
    for protocol in [Protocol::Zero, Protocol::Dumb] {
        let (server, ..) = served(protocol);
        let expected = format!("{LISTED}two\ntwo\nin\n");
        assert_eq!(server.added(&server.url("r.git#main"), LIST), expected, "{protocol:?}");
        assert_eq!(server.added(&server.url("r.git"), "cat f"), "two\n");
        assert_eq!(server.added(&server.url("r.git#v2"), "cat f"), "one\n");
    }
    let (server, ..) = served(Protocol::Dumb);
    server.git("r", "gc -q --aggressive");
    server.git("r", "pack-refs --all");
    server.git("r", "update-server-info");
    assert_eq!(server.added(&server.url("r.git#v2"), LIST), format!("{LISTED}one\none\nin\n"));
}

fn differences_in_packs_are_undone() {
    let server = Server::start(Protocol::Two);
    server.repository("r");
    let mut sums = String::new();
    for number in 0..40 {
        let lines = (0..2000).map(|line| match line % 40 == number {
            true => format!("changed in {number}\n"),
            false => format!("{line} {}\n", line * 7919 % 1009),
        });
        let content: String = lines.collect();
        let name = format!("f{number:02}");
        sums.push_str(&format!("{}  {name}\n", rbuild::Digest::of(&content).hex()));
        server.write("r", &name, content);
    }
    server.commit("r");
    server.git("r", "gc -q --aggressive");
    assert_eq!(server.added(&server.url("r.git"), "sha256sum f*"), sums);
}

fn a_known_commit_is_not_fetched_again() {
    let (server, ..) = served(Protocol::Two);
    let text = |rest: &str, to: &str| format!("ADD {} {to}\nRUN cat {to}/f\n", server.url(rest));
    let first = build(&engine(&server.place), &server.place.request(&text("r.git", "/g")));
    assert_eq!(server.asked().0, 1);
    let second = build(&engine(&server.place), &server.place.request(&text("r.git", "/g")));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    // Another name of the same commit, and another step that needs its files.
    build(&engine(&server.place), &server.place.request(&text("r.git#main", "/h")));
    let (packs, others) = server.asked();
    assert_eq!((packs, others), (0, 4), "each build lists references and fetches nothing");
}

fn a_commit_asks_nothing_once_it_is_there() {
    let (server, first, _) = served(Protocol::Two);
    let text = format!("ADD {} /g\n", server.url(&format!("r.git#{first}")));
    build(&engine(&server.place), &server.place.request(&text));
    server.web.stop();
    let again = build(&engine(&server.place), &server.place.request(&text));
    assert_eq!(again.executed, 0);
    let moved = server.error(&server.url("r.git#main"));
    assert!(moved.contains("r.git"), "{moved}");
}

fn a_branch_that_moved_is_noticed() {
    let (server, ..) = served(Protocol::Two);
    assert_eq!(server.added(&server.url("r.git"), "cat f"), "two\n");
    server.write("r", "f", "three\n");
    server.commit("r");
    assert_eq!(server.added(&server.url("r.git"), "cat f"), "three\n");
}

fn checksums_are_compared() {
    let (server, first, second) = served(Protocol::Two);
    let tag = server.git("r", "rev-parse v2").trim().to_owned();
    let url = server.url("r.git");
    for add in [
        format!("--checksum={second} {url}"),
        format!("--checksum={} {url}#main", &second[..7]),
        format!("{url}?commit={second}&ref=main"),
        format!("--checksum={first} {url}#v2"),
        format!("--checksum={tag} {url}#v2"),
        format!("{url}?fetch-by-commit&checksum={first}"),
    ] {
        server.added(&add, "test -e f");
    }
    let error = server.error(&format!("--checksum={first} {url}#main"));
    let message = format!("expected checksum to match {first}, got {second}");
    assert!(error.contains(&message), "{error}");
}

fn a_git_dir_is_kept_when_asked_for() {
    let (server, first, _) = served(Protocol::Two);
    let engine = engine(&server.place);
    let out = server.place.path().join("out");
    for (rest, head) in [("r.git#v2", first.as_str()), ("r.git", "")] {
        let text = format!("FROM scratch\nADD --keep-git-dir {} /\n", server.url(rest));
        let request = server.place.request(&text).output(Output::Directory(out.clone()));
        build(&engine, &request);
        let say = |line: &str| {
            git(
                &out,
                &[&["-c", "safe.directory=*"], &line.split(' ').collect::<Vec<_>>()[..]].concat(),
            )
        };
        assert_eq!(say("status --porcelain"), "");
        assert!(say("rev-parse HEAD").starts_with(head));
        say("fsck --no-dangling");
        assert_eq!(say("remote get-url origin").trim(), server.url("r.git"));
        assert_eq!(say("log --format=%s").trim(), "message");
        fs_err::remove_dir_all(&out).unwrap();
    }
}

fn submodules_are_checked_out() {
    let (server, first, _) = served(Protocol::Two);
    server.repository("leaf");
    server.write("leaf", "leaf", "green\n");
    server.commit("leaf");
    for (name, submodule, url) in
        [("lib", "leaf", "../leaf.git"), ("app", "third/lib", "./../lib.git")]
    {
        server.repository(name);
        server.write(name, "own", name);
        server.commit(name);
        let from = server.path(&url.rsplit('/').next().unwrap().replace(".git", ""));
        let add = format!(
            "-c protocol.file.allow=always submodule add -q {} {submodule}",
            from.display()
        );
        server.git(name, &add);
        server.git(name, &format!("config -f .gitmodules submodule.{submodule}.url {url}"));
        server.commit(name);
    }
    let files = "find . -type f | sort";
    assert_eq!(
        server.added(&server.url("app.git"), files),
        "./.gitmodules\n./own\n./third/lib/.gitmodules\n./third/lib/leaf/leaf\n./third/lib/own\n"
    );
    let without = server.url("app.git?submodules=false");
    assert_eq!(server.added(&without, &format!("{files}; ls third/lib")), "./.gitmodules\n./own\n");
    let inner = server.url("app.git#main:third");
    assert_eq!(server.added(&inner, "cat lib/own"), "lib");
    drop(first);
    server.git("app", "config -f .gitmodules submodule.third/lib.url file:///etc");
    server.commit("app");
    let error = server.error(&server.url("app.git"));
    assert!(error.contains("third/lib") && error.contains("not one of another server"), "{error}");
}

fn times_are_the_commit_s_when_asked_for() {
    let (server, ..) = served(Protocol::Two);
    let times = "stat -c %Y f l sub sub/g | sort -u";
    assert_eq!(server.added(&server.url("r.git?mtime=commit"), times), "1500000000\n");
}

fn tokens_are_sent_to_their_host_only() {
    let (server, ..) = served(Protocol::Two);
    let target = server.url("");
    let front = Web::start(move |asked| {
        answer(302, "").with("Location", format!("{}{}", target.trim_end_matches('/'), asked.path))
    });
    let mut request = server.place.request(&format!("ADD {} /g\n", front.url("/r.git")));
    request.secrets.insert("GIT_AUTH_TOKEN", b"s3cret\n".to_vec());
    build(&engine(&server.place), &request);
    assert_eq!(front.asked()[0].header("authorization"), "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0");
    let sent = server.web.asked();
    assert!(sent.iter().all(|asked| asked.header("authorization").is_empty()), "{sent:?}");
    let closed = Web::start(|_| answer(401, ""));
    let error = server.error(&closed.url("/r.git"));
    assert!(error.contains("GIT_AUTH_TOKEN"), "{error}");
}

fn what_is_not_there_is_named() {
    let (server, ..) = served(Protocol::Two);
    let absent = "0123456789012345678901234567890123456789";
    for (rest, message) in [
        ("r.git#nope", "does not contain ref \"nope\""),
        ("other.git", "404"),
        ("r.git#v1:nope", "invalid subdir nope: there is no such directory"),
        ("r.git#v1:f", "invalid subdir f: it is not a directory"),
        (&format!("r.git#{absent}"), "refuses"),
    ] {
        let error = server.error(&server.url(rest));
        assert!(error.contains(message), "{rest}: {error}");
    }
    let web = Web::start(|_| answer(200, "<html>hello</html>"));
    let error = server.error(&web.url("/r.git"));
    assert!(error.contains("is no git repository"), "{error}");
}

fn forged_objects_are_refused() {
    let (server, ..) = served(Protocol::Dumb);
    let tree = server.git("r", "rev-parse HEAD^{tree}").trim().to_owned();
    let other = server.git("r", "rev-parse v1^{tree}").trim().to_owned();
    let path = |hex: &str| server.path("r").join(".git/objects").join(&hex[..2]).join(&hex[2..]);
    let bytes = fs_err::read(path(&other)).unwrap();
    fs_err::remove_file(path(&tree)).unwrap();
    fs_err::write(path(&tree), bytes).unwrap();
    let error = server.error(&server.url("r.git"));
    assert!(error.contains(&tree) && error.contains("another"), "{error}");
    // A server that says another commit is behind a tag would put files under that one's name.
    let (server, first, second) = served(Protocol::Two);
    let root = server.path("");
    server.web.change(move |asked| {
        let reply = serve(&root, Protocol::Two, asked);
        let text =
            String::from_utf8(reply.body.clone()).ok().filter(|text| text.contains("peeled"));
        match text {
            Some(text) => {
                let peeled = |id: &str| format!("peeled:{id}");
                Answer { body: text.replace(&peeled(&first), &peeled(&second)).into(), ..reply }
            }
            None => reply,
        }
    });
    let error = server.error(&server.url("r.git#v2"));
    assert!(error.contains("another tag"), "{error}");
}

fn a_push_during_the_build_does_no_harm() {
    let (server, _, second) = served(Protocol::Two);
    let root = server.path("");
    let work = server.path("r");
    server.web.change(move |asked| {
        let reply = serve(&root, Protocol::Two, asked);
        // Right after the references were listed the branch moves on.
        if asked.method == "POST" && String::from_utf8_lossy(&asked.body).contains("ls-refs") {
            git(&work, &["commit", "-q", "--allow-empty", "-m", "late"]);
        }
        reply
    });
    let url = server.url("r.git#main");
    let engine = engine(&server.place);
    let text = format!("FROM scratch\nADD --keep-git-dir {url} /\n");
    let out = server.place.path().join("out");
    build(&engine, &server.place.request(&text).output(Output::Directory(out.clone())));
    assert_eq!(fs_err::read_to_string(out.join(".git/HEAD")).unwrap().trim(), second);
}
