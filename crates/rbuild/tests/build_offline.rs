//! Builds that ask no server: everything is what it was when it was asked last.

use rbuild::{
    CancelToken, Engine, EngineOptions, NamedContextInput, Output, PruneOptions, Pull, Silent,
};

use crate::build_registry::{Client, Registry, image};
use crate::git_server::{Protocol, Server, served};
use crate::support::{Place, build, build_error, explain, id, ran};
use crate::tests;
use crate::web::{Web, answer};

tests![
    an_unchanged_build_asks_nothing,
    references_are_what_they_were,
    what_is_missing_is_named,
    what_was_pruned_is_named,
    nothing_is_sent,
];

fn offline(place: &Place) -> Engine {
    Engine::with_options(EngineOptions { offline: true, ..place.options() }).unwrap()
}

/// Servers of every kind, and a Dockerfile that takes from all of them.
struct Servers {
    registry: Registry,
    web: Web,
    git: Server,
    client: Client,
    text: String,
}

impl Servers {
    fn start() -> Self {
        let (registry, client) = (Registry::start(), Client::new());
        registry.push(&image("one"), "1");
        let web = Web::start(|_| answer(200, "first"));
        let (git, ..) = served(Protocol::Two);
        let text = format!(
            "FROM {}\nADD {} /u\nADD {} /g\nADD {} /tagged\nRUN cat /content /u /g/f /tagged/f > /all\n",
            registry.name("team/app:1"),
            web.url("/u"),
            git.url("r.git#main"),
            git.url("r.git?keep-git-dir=1#v2"),
        );
        Self { registry, web, git, client, text }
    }

    fn move_on(&self) {
        self.registry.push(&image("two"), "1");
        self.web.change(|_| answer(200, "second"));
        self.git.write("r", "f", "three\n");
        self.git.commit("r");
        let _ = (self.registry.asked(), self.web.asked(), self.git.asked());
    }

    fn requests(&self) -> usize {
        let (packs, others) = self.git.asked();
        self.registry.asked().len() + self.web.asked().len() + packs + others
    }
}

fn an_unchanged_build_asks_nothing() {
    let servers = Servers::start();
    let request = servers.client.request(&servers.text);
    let first = build(&servers.client.engine(), &request);
    servers.move_on();
    let second = build(&offline(&servers.client.0), &request);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
    assert_eq!(servers.requests(), 0);
    // With the network the sources are what they are now.
    assert_ne!(build(&servers.client.engine(), &request).executed, 0);
}

fn references_are_what_they_were() {
    let servers = Servers::start();
    build(&servers.client.engine(), &servers.client.request(&servers.text));
    servers.move_on();
    let text = format!("{}RUN cat /all > /again\n", servers.text);
    let engine = offline(&servers.client.0);
    let built = build(&engine, &servers.client.request(&text).tag("again"));
    assert_eq!(built.executed, 1, "{:?}", ran(&built));
    let said = servers.client.0.sh(&engine, "again", "cat /again; ls /tagged/.git/HEAD");
    assert_eq!(said, "one\nfirsttwo\none\n/tagged/.git/HEAD\n");
    assert_eq!(servers.requests(), 0);
}

fn what_is_missing_is_named() {
    let servers = Servers::start();
    let (place, client) = (&servers.client.0, &servers.client);
    let engine = offline(place);
    let told = |text: &str| explain(&build_error(&engine, &client.request(text)));
    let way = "and offline no server is asked: do it once without --offline";
    let of_image = told(&servers.text);
    let platform = rbuild::Platform::host();
    let name = servers.registry.name("team/app:1");
    let expected = format!("{name} for {platform} is not in the store, {way}");
    assert!(of_image.contains(&expected), "{of_image}");
    let url = servers.web.url("/u");
    let of_url = told(&format!("FROM scratch\nADD {url} /\n"));
    assert!(
        of_url.contains(&format!("the content of {url} is not in the store, {way}")),
        "{of_url}"
    );
    let url = servers.git.url("r.git");
    let of_git = told(&format!("FROM scratch\nADD {url}#main /\n"));
    let expected = format!("what is asked of the repository {url} is not in the store, {way}");
    assert!(of_git.contains(&expected), "{of_git}");
    let mut request = client.request(&servers.text);
    request.pull = Pull::Always;
    let always = explain(&build_error(&engine, &request));
    assert!(always.contains(&format!("{name} is to be asked of its registry, {way}")), "{always}");
    assert_eq!(servers.requests(), 0);
}

fn what_was_pruned_is_named() {
    let servers = Servers::start();
    let url = servers.web.url("/u");
    let commit = servers.git.git("r", "rev-parse v1").trim().to_owned();
    let text =
        format!("FROM scratch\nADD {url} /\nADD {}#{commit} /g/\n", servers.git.url("r.git"));
    let request = servers.client.request(&text);
    build(&servers.client.engine(), &request);
    let engine = offline(&servers.client.0);
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    engine.prune(&all, &Silent, &CancelToken::default()).unwrap();
    let told = explain(&build_error(&engine, &request));
    assert!(told.contains("is not in the store, and offline"), "{told}");
    // Whatever needs no server goes on.
    let local = NamedContextInput::Directory(servers.client.0.context());
    let request = servers.client.request("FROM scratch\nCOPY --from=near busybox /\n");
    build(&engine, &request.build_context("near", local));
}

fn nothing_is_sent() {
    let place = Place::new();
    let engine = offline(&place);
    let request = place.request("").tag("registry.invalid/team/app");
    for insecure in [false, true] {
        let request = request.clone().output(Output::Registry { insecure, by_digest: false });
        let told = explain(&build_error(&engine, &request));
        assert!(told.contains("registry.invalid cannot be asked, and offline"), "{told}");
    }
}
