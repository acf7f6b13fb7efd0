//! Repositories on SSH servers. The server runs git; rbuild runs nothing.

use std::path::PathBuf;

use rbuild::{
    BuildError, BuildRequest, ContextInput, Engine, EngineOptions, RegistryOptions, SshAgents,
};

use crate::git_server::{Protocol, Server, served};
use crate::ssh_server::{Manners, Ssh, keys};
use crate::support::{build, build_error, explain};
use crate::tests;

tests![
    a_repository_is_fetched_over_ssh,
    an_agent_s_keys_open_it,
    a_host_that_nobody_knows_is_not_trusted,
    who_may_not_log_in_is_told_so,
    what_the_server_says_is_told,
    a_path_is_an_argument_and_nothing_else,
];

/// A repository behind a server that is known, and a store.
struct Fixture {
    server: Server,
    ssh: Ssh,
    known_hosts: PathBuf,
}

impl Fixture {
    fn new(takes_variables: bool) -> Self {
        let (server, ..) = served(Protocol::Two);
        let ssh = Ssh::start(Manners { directory: server.path(""), takes_variables });
        let known_hosts = server.place.path().join("known_hosts");
        let fixture = Self { server, ssh, known_hosts };
        let name = format!("[127.0.0.1]:{}", fixture.ssh.address.port());
        let hosts = format!("{}{}", fixture.ssh.known_as(&name), fixture.ssh.known_as("h.test"));
        fs_err::write(&fixture.known_hosts, hosts).unwrap();
        fixture
    }

    fn engine(&self) -> Engine {
        let registry = RegistryOptions {
            known_hosts: vec!["/nowhere".into(), self.known_hosts.clone()],
            resolve: [("h.test".to_owned(), self.ssh.address)].into(),
            ..RegistryOptions::default()
        };
        let options = EngineOptions { registry, ..self.server.place.options() };
        Engine::with_options(options).unwrap()
    }

    fn url(&self, name: &str) -> String {
        self.ssh.url(&self.server.path(name))
    }

    fn request(&self, add: &str) -> BuildRequest {
        let mut request = self.server.place.request(&format!("ADD {add} /g\n"));
        request.ssh = agent(&keys()[..1]);
        request
    }

    fn added(&self, add: &str, script: &str) -> String {
        let engine = self.engine();
        build(&engine, &self.request(add).tag("app"));
        self.server.place.sh(&engine, "app", &format!("cd /g && {script}"))
    }

    fn error(&self, request: &BuildRequest) -> String {
        explain(&build_error(&self.engine(), request))
    }
}

fn agent(keys: &[String]) -> SshAgents {
    let mut agents = SshAgents::default();
    agents.insert_keys("default", keys).unwrap();
    agents
}

fn a_repository_is_fetched_over_ssh() {
    for takes_variables in [true, false] {
        let fixture = Fixture::new(takes_variables);
        let url = fixture.url("r.git");
        assert_eq!(fixture.added(&url, "cat f sub/g"), "two\nin\n");
        assert_eq!(fixture.added(&format!("{url}#v2"), "cat f"), "one\n");
        // As git writes it; the path is relative to a home.
        assert_eq!(fixture.added("git@h.test:r.git#v1:sub", "cat g"), "in\n");
        let asked = fixture.ssh.asked.lock().unwrap();
        assert!(asked.contains(&"git ssh-ed25519".to_owned()), "{asked:?}");
        assert!(asked.contains(&"git-upload-pack 'r.git'".to_owned()), "{asked:?}");
    }
    // As a context, and with a submodule beside it.
    let fixture = Fixture::new(true);
    let server = &fixture.server;
    server.repository("it's");
    let add = format!(
        "-c protocol.file.allow=always submodule add -q {} lib",
        server.path("r").display()
    );
    server.git("it's", &add);
    server.git("it's", "config -f .gitmodules submodule.lib.url ../r.git");
    server.write("it's", "Dockerfile", "FROM scratch\nCOPY lib/f /\n");
    server.commit("it's");
    let mut request = BuildRequest::new(".");
    request.context = ContextInput::of("git@h.test:it's.git");
    request.ssh = agent(&keys()[..1]);
    assert!(request.context.needs_ssh());
    build(&fixture.engine(), &request);
}

fn an_agent_s_keys_open_it() {
    let fixture = Fixture::new(true);
    for (number, name) in ["ssh-ed25519", "ecdsa-sha2-"].into_iter().enumerate() {
        let mut request = fixture.request(&fixture.url("r.git"));
        request.options.no_cache = rbuild::NoCache::All;
        request.ssh = agent(&keys()[number..=number]);
        fixture.ssh.asked.lock().unwrap().clear();
        build(&fixture.engine(), &request);
        let asked = fixture.ssh.asked.lock().unwrap();
        assert!(asked[0].starts_with(&format!("git {name}")), "{asked:?}");
    }
}

fn a_host_that_nobody_knows_is_not_trusted() {
    let fixture = Fixture::new(true);
    let request = fixture.request(&fixture.url("r.git"));
    let port = fixture.ssh.address.port();
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let name = format!("[127.0.0.1]:{port}");
    let right = fixture.ssh.known_as(&name);
    for (known, message) in [
        (String::new(), format!("ssh-keyscan -p {port} 127.0.0.1")),
        (fixture.ssh.known_as("127.0.0.1"), "nobody knows it here; its key is SHA256:".to_owned()),
        (format!("{name} {other}\n"), format!("ssh-keygen -R '{name}'")),
        (format!("@revoked * {}\n{right}", fixture.ssh.key), "is revoked".to_owned()),
    ] {
        fs_err::write(&fixture.known_hosts, &known).unwrap();
        let error = fixture.error(&request);
        assert!(error.contains(&message), "{known}: {error}");
    }
    // Nobody logged in, and nothing was run.
    assert_eq!(*fixture.ssh.asked.lock().unwrap(), Vec::<String>::new());
}

fn who_may_not_log_in_is_told_so() {
    let fixture = Fixture::new(true);
    let url = fixture.url("r.git");
    let mut request = fixture.request(&url);
    request.ssh = SshAgents::default();
    let error = fixture.error(&request);
    assert!(error.contains("no keys to log in with") && error.contains("--ssh"), "{error}");
    let error = fixture.error(&fixture.request(&url.replace("git@", "root@")));
    assert!(error.contains("as root") && error.contains("key does not open it"), "{error}");
    let mut request = fixture.request(&url);
    let mut agents = SshAgents::default();
    agents.insert("default", "/no/agent");
    request.ssh = agents;
    let error = fixture.error(&request);
    assert!(error.contains("the agent gives no keys"), "{error}");
    let error = build_error(&fixture.engine(), &fixture.request("ssh://127.0.0.1/r"));
    assert!(matches!(error, BuildError::Dockerfile { .. }), "{error:?}");
}

fn what_the_server_says_is_told() {
    let fixture = Fixture::new(true);
    let error = fixture.error(&fixture.request(&fixture.url("nope.git")));
    assert!(error.contains("nope.git") && error.contains("it says:"), "{error}");
    let error = fixture.error(&fixture.request(&format!("{}#nope", fixture.url("r.git"))));
    assert!(error.contains("does not contain ref \"nope\""), "{error}");
}

fn a_path_is_an_argument_and_nothing_else() {
    let fixture = Fixture::new(true);
    let mark = fixture.server.place.path().join("mark");
    let path = format!("/x'; touch {}; '", mark.display()).replace(' ', "%20");
    let error =
        fixture.error(&fixture.request(&format!("ssh://git@{}{path}", fixture.ssh.address)));
    assert!(error.contains("it says:"), "{error}");
    assert!(!mark.exists());
}
