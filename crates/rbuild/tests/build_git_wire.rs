//! Repositories on servers that speak git's protocol over a connection of its own: `git://`.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Duration;

use rbuild::{BuildRequest, ContextInput, EngineOptions, RegistryOptions};

use crate::build_http::engine;
use crate::git_server::{Daemon, Protocol, Server, served};
use crate::support::{build, build_error, explain, id};
use crate::tests;

tests![
    git_s_own_servers_are_asked,
    submodules_lie_beside_the_repository,
    what_a_server_refuses_is_told,
    a_server_that_says_nothing_ends_the_build,
    what_is_no_greeting_is_an_error,
];

fn daemon(speaks: Protocol) -> (Server, Daemon, String) {
    let (server, first, _) = served(Protocol::Two);
    let daemon = Daemon::start(&server.path(""), speaks);
    (server, daemon, first)
}

fn git_s_own_servers_are_asked() {
    for speaks in [Protocol::Two, Protocol::Zero] {
        let (server, daemon, first) = daemon(speaks);
        assert_eq!(server.added(&daemon.url("r.git"), "cat f sub/g"), "two\nin\n", "{speaks:?}");
        for reference in ["v1", "v2"] {
            let url = daemon.url(&format!("r.git#{reference}:sub"));
            assert_eq!(server.added(&url, "cat g"), "in\n", "{speaks:?}");
        }
        let commit = daemon.url(&format!("r.git#{first}"));
        if speaks == Protocol::Two {
            assert_eq!(server.added(&commit, "cat f"), "one\n");
        }
        let asked = daemon.asked.lock().unwrap().join(" ");
        let host = format!("host={}", daemon.address);
        assert!(asked.contains(&host) && asked.contains("version=2"), "{asked:?}");
        assert!(server.web.asked().is_empty());
    }
    // Also as a context, which is then in the store for any other way to the same commit.
    let (server, daemon, _) = daemon(Protocol::Two);
    server.write("r", "Dockerfile", "FROM scratch\nCOPY f /\n");
    server.commit("r");
    let engine = engine(&server.place);
    let mut request = BuildRequest::new(".");
    request.context = ContextInput::of(&daemon.url("r.git"));
    let built = build(&engine, &request);
    assert_eq!(daemon.asked.lock().unwrap().len(), 2, "references, and the pack");
    request.context = ContextInput::of(&server.url("r.git"));
    assert_eq!(id(&build(&engine, &request)), id(&built));
    assert_eq!(server.asked().0, 0);
}

fn submodules_lie_beside_the_repository() {
    let (server, daemon, _) = daemon(Protocol::Two);
    server.repository("app");
    let add = format!(
        "-c protocol.file.allow=always submodule add -q {} lib",
        server.path("r").display()
    );
    server.git("app", &add);
    server.git("app", "config -f .gitmodules submodule.lib.url ../r.git");
    server.commit("app");
    assert_eq!(server.added(&daemon.url("app.git"), "cat lib/f"), "two\n");
    assert!(server.web.asked().is_empty());
}

fn what_a_server_refuses_is_told() {
    let (server, daemon, _) = daemon(Protocol::Two);
    let error = server.error(&daemon.url("nope.git"));
    assert!(error.contains("refuses") && error.contains("access denied"), "{error}");
    let error = server.error(&daemon.url("r.git#nope"));
    assert!(error.contains("does not contain ref \"nope\""), "{error}");
    let error = server.error("git://127.0.0.1:1/r.git");
    assert!(error.contains("127.0.0.1:1") && error.contains("refused"), "{error}");
}

/// A server that takes connections and says `words`; it never hangs up.
fn mute(words: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(words).unwrap();
            open.push(stream);
        }
    });
    format!("git://{address}/r.git")
}

fn a_server_that_says_nothing_ends_the_build() {
    let (server, ..) = served(Protocol::Two);
    let registry = RegistryOptions {
        answer_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..RegistryOptions::default()
    };
    let options = EngineOptions { registry, ..server.place.options() };
    let engine = rbuild::Engine::with_options(options).unwrap();
    for words in [&b""[..], b"000eversion 2\n"] {
        let request = server.place.request(&format!("ADD {} /g\n", mute(words)));
        let error = explain(&build_error(&engine, &request));
        assert!(error.contains("no progress"), "{error}");
    }
}

fn what_is_no_greeting_is_an_error() {
    let (server, ..) = served(Protocol::Two);
    for words in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"0000", b"fff1"] {
        let error = server.error(&mute(words));
        assert!(error.contains("is no git repository that can be read"), "{error}");
    }
}
