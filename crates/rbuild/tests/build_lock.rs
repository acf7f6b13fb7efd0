//! Lock files: what references stood for, and builds that hold on to it.

use std::path::PathBuf;

use rbuild::{
    BuildError, BuildRequest, CancelToken, Digest, Engine, EngineOptions, LockChange, LockError,
    Locked, Platform, Silent,
};

use crate::build_registry::{Client, Registry, image, image_for};
use crate::git_server::{Protocol, Server, served};
use crate::support::{build, build_error, explain, id, ran};
use crate::tests;
use crate::web::{Web, answer};

tests![
    a_lock_names_every_reference_that_may_move,
    a_lock_is_written_anew,
    a_locked_build_is_what_it_was,
    the_lock_is_in_no_key,
    what_is_not_in_the_lock_is_named_with_its_line,
    what_does_not_fit_the_lock_is_named,
    each_platform_has_an_image_of_its_own,
    a_lock_offline_is_what_was_known,
];

/// Servers of every kind, and a context with a Dockerfile that takes from all of them.
struct Servers {
    registry: Registry,
    web: Web,
    git: Server,
    client: Client,
    first: Digest,
}

impl Servers {
    fn start() -> Self {
        let (registry, client) = (Registry::start(), Client::new());
        let first = registry.push(&image("one"), "1");
        let web = Web::start(|_| answer(200, "first"));
        let (git, ..) = served(Protocol::Two);
        let servers = Self { registry, web, git, client, first };
        servers.client.0.write("Dockerfile", servers.text());
        servers
    }

    fn name(&self) -> String {
        self.registry.name("team/app:1")
    }

    fn text(&self) -> String {
        let (name, web, git) = (self.name(), self.web.url("/u"), self.git.url("r.git"));
        format!(
            "FROM {name} AS base\n\
             ADD {web} /u\n\
             ADD {git}#main /g\n\
             ADD {git}?keep-git-dir=1#v2 /tagged\n\
             RUN cat /content /u /g/f /tagged/f > /all\n"
        )
    }

    fn move_on(&self) {
        self.registry.push(&image("two"), "1");
        self.web.change(|_| answer(200, "second"));
        self.git.write("r", "f", "three\n");
        self.git.commit("r");
    }

    fn request(&self) -> BuildRequest {
        BuildRequest::new(self.client.0.context())
    }

    fn locked(&self) -> BuildRequest {
        BuildRequest { locked: true, ..self.request() }
    }

    fn lock_path(&self) -> PathBuf {
        self.client.0.context().join("rbuild.lock")
    }

    fn lock_text(&self) -> String {
        fs_err::read_to_string(self.lock_path()).unwrap()
    }

    /// An engine with an empty store.
    fn elsewhere(&self, name: &str) -> Engine {
        let root = self.client.0.path().join(name);
        Engine::with_options(EngineOptions { root, ..self.client.0.options() }).unwrap()
    }
}

fn lock(engine: &Engine, request: &BuildRequest) -> Locked {
    engine.lock(request, &Silent, &CancelToken::default()).unwrap()
}

fn lock_error(engine: &Engine, request: &BuildRequest) -> BuildError {
    engine.lock(request, &Silent, &CancelToken::default()).unwrap_err()
}

fn a_lock_names_every_reference_that_may_move() {
    let servers = Servers::start();
    let base = image("other");
    let [other, third] = ["other", "third"].map(|tag| servers.registry.push(&base, tag));
    let commit = servers.git.git("r", "rev-parse main").trim().to_owned();
    let (v2, tag) = (servers.git.git("r", "rev-parse v1"), servers.git.git("r", "rev-parse v2"));
    let (v2, tag) = (v2.trim(), tag.trim());
    let app = servers.registry.name("team/app");
    let (web, git) = (servers.web.address, servers.git.url("r.git"));
    let fixed = Digest::of("first");
    // Neither what names its content itself nor a stage is in it.
    let text = format!(
        "{}FROM scratch\nADD http://token@{web}/secret /\nADD --checksum={fixed} http://{web}/f /\n\
         ADD {git}#{commit} /\n\
         FROM {app}@{other}\nCOPY --from={app}:third /content /c\nCOPY --from=base /all /\n\
         RUN --mount=from={app}:other,target=/m true\n",
        servers.text()
    );
    servers.client.0.write("Dockerfile", text);
    let engine = servers.client.engine();
    let made = lock(&engine, &servers.request());
    assert_eq!((made.path, made.references), (servers.lock_path(), 7));
    let (first, host) = (servers.first, Platform::host());
    let images = [("1", first), ("other", other), ("third", third)].map(|(tag, digest)| {
        format!(
            "\n[[image]]\nreference = \"{app}:{tag}\"\nplatform = \"{host}\"\n\
             digest = \"{digest}\"\n"
        )
    });
    let urls = ["secret", "u"]
        .map(|path| format!("\n[[url]]\nurl = \"http://{web}/{path}\"\ndigest = \"{fixed}\"\n"));
    let git = [
        ("main", "refs/heads/main", commit.as_str(), String::new()),
        ("v2", "refs/tags/v2", v2, format!("tag = \"{tag}\"\n")),
    ]
    .map(|(reference, name, commit, tag)| {
        format!(
            "\n[[git]]\nremote = \"{git}\"\nref = \"{reference}\"\nname = \"{name}\"\n\
             commit = \"{commit}\"\n{tag}"
        )
    });
    let expected = format!("version = 1\n{}{}{}", images.concat(), urls.concat(), git.concat());
    let text = servers.lock_text();
    let (_, body) = text.split_once("takes nothing else.\n").unwrap();
    assert_eq!(body, expected);
    // Nothing was run for it, and a target's stages may be all.
    let made = lock(&engine, &servers.request().target("base"));
    assert_eq!(made.references, 4);
    assert_eq!(servers.client.0.leftovers(), [""; 0]);
}

fn a_lock_is_written_anew() {
    let servers = Servers::start();
    let engine = servers.client.engine();
    assert_eq!(lock(&engine, &servers.request()).changes.len(), 4);
    let before = fs_err::metadata(servers.lock_path()).unwrap().modified().unwrap();
    let again = lock(&engine, &servers.request());
    assert_eq!((again.changes, again.references), (Vec::new(), 4));
    assert_eq!(fs_err::metadata(servers.lock_path()).unwrap().modified().unwrap(), before);
    let second = servers.registry.push(&image("two"), "1");
    servers.client.0.write("Dockerfile", format!("FROM {}\n", servers.name()));
    let moved = lock(&engine, &servers.request()).changes;
    let reference = format!("{} {}", servers.name(), Platform::host());
    let change = LockChange {
        reference,
        before: Some(servers.first.to_string()),
        after: Some(second.to_string()),
    };
    assert!(moved.contains(&change), "{moved:?}");
    assert_eq!(moved.iter().filter(|change| change.after.is_none()).count(), 3);
    // Somebody else's half is of no use, and no obstacle.
    fs_err::write(servers.lock_path(), "<<<<<<< HEAD\n").unwrap();
    let told = explain(&build_error(&engine, &servers.locked()));
    let context = servers.client.0.context();
    let way = format!("`rbuild lock {}` writes it anew", context.display());
    assert!(told.contains("rbuild.lock cannot be used: ") && told.contains(&way), "{told}");
    assert_eq!(lock(&engine, &servers.request()).references, 1);
    let text = servers.request().dockerfile_text("FROM scratch\n");
    let error = lock_error(&engine, &text);
    assert!(matches!(error, BuildError::Lock(LockError::NoPlace)), "{error:?}");
}

fn a_locked_build_is_what_it_was() {
    let servers = Servers::start();
    lock(&servers.client.engine(), &servers.request());
    let reads =
        |engine: &Engine| servers.client.0.sh(engine, "app", "cat /all; ls /tagged/.git/HEAD");
    let expected = "one\nfirsttwo\none\n/tagged/.git/HEAD\n";
    let fresh = servers.elsewhere("fresh");
    build(&fresh, &servers.locked().tag("app"));
    assert_eq!(reads(&fresh), expected);
    // What moved is still had by its digest, and nobody asks what names are now.
    let second = servers.registry.push(&image("two"), "1");
    assert_ne!(second, servers.first);
    servers.git.write("r", "f", "three\n");
    servers.git.commit("r");
    let _ = (servers.registry.asked(), servers.git.asked());
    servers.git.git("r", "config uploadpack.allowAnySHA1InWant true");
    let later = servers.elsewhere("later");
    build(&later, &servers.locked().tag("app"));
    assert_eq!(reads(&later), expected);
    let asked = servers.registry.asked();
    assert!(!asked.iter().any(|path| path.ends_with("/manifests/1")), "{asked:?}");
    // Without the option the lock does not count.
    build(&later, &servers.request().tag("app"));
    assert_eq!(reads(&later), "two\nfirstthree\none\n/tagged/.git/HEAD\n");
}

fn the_lock_is_in_no_key() {
    let servers = Servers::start();
    let engine = servers.client.engine();
    let first = build(&engine, &servers.request());
    lock(&engine, &servers.request());
    let second = build(&engine, &servers.locked());
    assert_eq!((ran(&second), id(&second)), (Vec::new(), id(&first)));
    servers.move_on();
    let _ = (servers.registry.asked(), servers.web.asked(), servers.git.asked());
    let third = build(&engine, &servers.locked());
    assert_eq!((third.executed, id(&third)), (0, id(&first)));
    assert!(servers.registry.asked().is_empty() && servers.web.asked().is_empty());
    assert_eq!(servers.git.asked(), (0, 0));
}

fn what_is_not_in_the_lock_is_named_with_its_line() {
    let servers = Servers::start();
    let engine = servers.client.engine();
    let context = servers.client.0.context();
    let told = |request: &BuildRequest| build_error(&engine, request);
    let none = told(&servers.locked()).to_string();
    let path = servers.lock_path();
    let way = format!("`rbuild lock {}` writes it", context.display());
    assert_eq!(none, format!("there is no {}: {way}", path.display()));
    lock(&engine, &servers.request());
    let host = Platform::host();
    let (app, url, git) =
        (servers.registry.name("team/app:2"), servers.web.url("/v"), servers.git.url("r.git"));
    for (line, subject) in [
        (format!("COPY --from={app} / /"), format!("{app} for {host}")),
        (format!("ADD {url} /"), url),
        (format!("ADD {git}#v1 /"), format!("{git}#v1")),
        (format!("ADD {git} /"), git),
    ] {
        servers.client.0.write("Dockerfile", format!("{}{line}\n", servers.text()));
        let error = told(&servers.locked());
        let expected = format!("{subject} is not in {}: {way} anew", path.display());
        assert!(error.to_string().contains(&expected), "{error}");
        let span = match &error {
            BuildError::Dockerfile { diagnostics, .. } => diagnostics[0].span(),
            BuildError::Step { failure, .. } => failure.span,
            other => panic!("{other:?}"),
        };
        let start = span.unwrap().start;
        assert!(start >= servers.text().len(), "{start}: {error}");
    }
}

fn what_does_not_fit_the_lock_is_named() {
    let servers = Servers::start();
    lock(&servers.client.engine(), &servers.request());
    let path = servers.lock_path();
    servers.web.change(|_| answer(200, "second"));
    let told = explain(&build_error(&servers.elsewhere("url"), &servers.locked()));
    let (first, second) = (Digest::of("first"), Digest::of("second"));
    let expected = format!(
        "{} is {second} and no longer {first}, which {} names",
        servers.web.url("/u"),
        path.display()
    );
    assert!(told.contains(&expected) && told.contains("`rbuild lock "), "{told}");
    let gone = Digest::of("gone").to_string();
    let text = servers.lock_text().replace(&servers.first.to_string(), &gone);
    fs_err::write(&path, text).unwrap();
    let told = explain(&build_error(&servers.elsewhere("image"), &servers.locked()));
    let expected =
        format!("its registry does not have {}@{gone}, which {}", servers.name(), path.display());
    assert!(told.contains(&expected), "{told}");
}

fn each_platform_has_an_image_of_its_own() {
    let servers = Servers::start();
    let name = servers.name();
    // Without indexes a name stands for one image, whatever platform is asked for.
    servers.registry.push(&image_for("arm", "arm64"), "1");
    servers.client.0.write("Dockerfile", format!("FROM {name}\nCOPY Dockerfile /\n"));
    let both = [Platform::new("linux", "amd64"), Platform::new("linux", "arm64")];
    let of = |request: BuildRequest, platforms: &[Platform]| {
        platforms.iter().fold(request, |request, platform| request.platform(platform.clone()))
    };
    let engine = servers.client.engine();
    assert_eq!(lock(&engine, &of(servers.request(), &both[1..])).references, 1);
    build(&engine, &of(servers.locked(), &both[1..]));
    let told = explain(&build_error(&engine, &of(servers.locked(), &both)));
    let context = servers.client.0.context();
    let way = format!("`rbuild lock --platform linux/amd64,linux/arm64 {}`", context.display());
    assert!(told.contains(&format!("{name} for linux/amd64 is not in")), "{told}");
    assert!(told.contains(&way), "{told}");
    assert_eq!(lock(&engine, &of(servers.request(), &both)).references, 2);
    build(&engine, &of(servers.locked(), &both));
}

fn a_lock_offline_is_what_was_known() {
    let servers = Servers::start();
    let options = EngineOptions { offline: true, ..servers.client.0.options() };
    let offline = Engine::with_options(options).unwrap();
    let error = lock_error(&offline, &servers.request()).to_string();
    assert!(error.contains("is not in the store, and offline no server is asked"), "{error}");
    build(&servers.client.engine(), &servers.request());
    servers.move_on();
    lock(&offline, &servers.request());
    assert!(servers.lock_text().contains(&servers.first.to_string()));
    // A locked build needs no server either.
    assert_eq!(build(&offline, &servers.locked()).executed, 0);
}
