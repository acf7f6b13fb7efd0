//! Base images from a registry: a small one on the loopback device that counts what it is asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild::{
    BuildError, BuildRequest, Built, CancelToken, ContainerOptions, Ctx, Digest, Engine,
    EngineOptions, Event, Output, Process, Pull, RegistryOptions, Silent,
};

use crate::exported::{Exported, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::support::{Place, build, build_error, explain, id, ran};
use crate::tests;

tests![
    a_base_is_pulled_by_its_tag,
    a_second_build_asks_nothing,
    a_cached_build_needs_no_registry,
    an_image_of_config_alone_has_its_base_at_hand,
    two_stages_fetch_a_layer_once,
    a_moved_tag_is_noticed_when_asked_for,
    never_pulling_asks_nothing,
    an_index_gives_the_image_of_the_platform,
    a_name_in_the_store_is_asked_for_again_for_another_platform,
    a_container_is_of_the_platform_that_was_asked_for,
    a_digest_names_one_image,
    an_unknown_tag_is_named,
    a_wrong_manifest_is_refused,
    a_wrong_config_is_refused,
    a_wrong_layer_is_refused,
    a_layer_that_stalls_leaves_nothing,
    a_layer_that_is_not_what_the_config_says_is_refused,
    an_endless_chain_of_indexes_is_refused,
    urls_of_layers_are_not_asked,
    a_container_is_made_of_a_pulled_image,
    a_pulled_base_is_exported_as_it_came,
];

/// The media type of what never ends: one byte is said to be missing, and never comes.
const STALLING: &str = "stalling";

/// A reply: status, media type, body.
type Reply = (u16, &'static str, Vec<u8>);

/// What the registry has, by the path below `/v2/`.
type Content = BTreeMap<String, (&'static str, Vec<u8>)>;

pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    requests: Mutex<Vec<String>>,
    /// Connections that wait for the next request.
    open: Mutex<Vec<TcpStream>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl Registry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let (stream, server) = (stream.unwrap(), server.clone());
                server.open.lock().unwrap().push(stream.try_clone().unwrap());
                // Clients hang up as they like.
                std::thread::spawn(move || server.serve(stream).ok());
            }
        });
        Self { address, shared }
    }

    /// `name` in this registry.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    fn put(&self, path: &str, kind: &'static str, body: impl Into<Vec<u8>>) {
        self.shared.content.lock().unwrap().insert(path.to_owned(), (kind, body.into()));
    }

    /// Serves an image as `team/app` with a tag.
    pub fn push(&self, image: &Exported, tag: &str) -> Digest {
        for (name, bytes) in &image.0 {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                self.put(
                    &format!("team/app/blobs/sha256:{hex}"),
                    "application/octet-stream",
                    &bytes[..],
                );
            }
        }
        let digest = image.manifest_digest();
        let manifest = image.blob(&digest);
        for name in [tag, &digest] {
            self.put(&format!("team/app/manifests/{name}"), OCI_MANIFEST, manifest);
        }
        digest.parse().unwrap()
    }

    /// What was asked for since the last call, without the method.
    pub fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.shared.requests.lock().unwrap());
        asked.retain(|path| !path.ends_with("/v2/"));
        asked
    }

    fn stop(&self) {
        self.shared.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let method = words.next().unwrap_or_default().to_owned();
            let path = words.next().unwrap_or_default().to_owned();
            while reader.read_line(&mut line)? > 0 && !line.ends_with("\n\r\n") {}
            self.requests.lock().unwrap().push(path.clone());
            let (status, kind, body) = self.reply(&path);
            let digest = Digest::of(&body);
            let length = body.len() + usize::from(kind == STALLING);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
                 Docker-Content-Digest: {digest}\r\n\r\n"
            );
            writer.write_all(head.as_bytes())?;
            if method != "HEAD" {
                writer.write_all(&body)?;
            }
        }
    }

    fn reply(&self, path: &str) -> Reply {
        let name = path.strip_prefix("/v2/").unwrap_or_default();
        if name.is_empty() {
            return (200, "application/json", b"{}".to_vec());
        }
        match self.content.lock().unwrap().get(name) {
            Some((kind, body)) => (200, kind, body.clone()),
            None => {
                let body =
                    br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                (404, "application/json", body.to_vec())
            }
        }
    }
}

/// A place whose engines do not wait long.
pub struct Client(pub Place);

impl Client {
    pub fn new() -> Self {
        Self(Place::new())
    }

    pub fn engine(&self) -> Engine {
        self.patient_for(RegistryOptions::default().idle_timeout)
    }

    /// One that calls a body stalled which brings nothing for so long.
    fn patient_for(&self, idle_timeout: Duration) -> Engine {
        let registry = RegistryOptions {
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_millis(20),
            idle_timeout,
            ..RegistryOptions::default()
        };
        Engine::with_options(EngineOptions { registry, ..self.0.options() }).unwrap()
    }

    pub fn request(&self, text: &str) -> BuildRequest {
        BuildRequest::new(self.0.context()).dockerfile_text(text)
    }
}

/// An image with a shell, made in a store of its own; `content` is in `/content`.
pub fn image(content: &str) -> Exported {
    image_for(content, &rbuild::Platform::host().architecture)
}

/// One that says that it is for this processor.
pub fn image_for(content: &str, architecture: &str) -> Exported {
    let place = Place::new();
    let path = place.path().join("image.tar");
    let text = format!(
        "FROM base\nRUN echo {content} > /content\nENV MADE={content}\nCMD [\"cat\", \"/content\"]\n"
    );
    let request = place.request(&text).output(Output::OciArchive(path.clone().into()));
    build(&place.engine(), &request.platform(rbuild::Platform::new("linux", architecture)));
    Exported::from_tar(&path)
}

fn kinds(asked: &[String]) -> (usize, usize) {
    let count = |part: &str| asked.iter().filter(|path| path.contains(part)).count();
    (count("/manifests/"), count("/blobs/"))
}

/// The tests below share this much: a registry with one image, and a build of it that went well.
fn pulled(text: &str) -> (Registry, Client, Exported, Engine, Built) {
    let (registry, client, image) = (Registry::start(), Client::new(), image("one"));
    registry.push(&image, "1");
    let engine = client.engine();
    let text = text.replace("APP", &registry.name("team/app"));
    let built = build(&engine, &client.request(&text).tag("built"));
    (registry, client, image, engine, built)
}

const TEXT: &str = "FROM APP:1\nRUN test \"$MADE$(cat /content)\" = oneone && echo own > /own\n";

fn a_base_is_pulled_by_its_tag() {
    let (registry, client, image, engine, _) = pulled(TEXT);
    let asked = registry.asked();
    // One manifest, the config, and each of the three layers once.
    assert_eq!(kinds(&asked), (1, 4), "{asked:?}");
    assert_eq!(client.0.sh(&engine, "built", "cat /content /own; echo $MADE"), "one\nown\none\n");
    let config = engine.image_config("built").unwrap().config;
    let base: Vec<Digest> =
        serde_json::from_value(image.config()["rootfs"]["diff_ids"].clone()).unwrap();
    assert_eq!(config.rootfs.diff_ids[..3], base);
    assert_eq!(config.rootfs.diff_ids.len(), 4);
    assert_eq!(client.0.leftovers(), Vec::<String>::new());
}

fn a_second_build_asks_nothing() {
    let (registry, client, _, engine, built) = pulled(TEXT);
    registry.asked();
    let text = TEXT.replace("APP", &registry.name("team/app"));
    let second = build(&engine, &client.request(&text));
    assert_eq!((second.executed, id(&second)), (0, id(&built)), "{:?}", ran(&second));
    drop(engine);
    let engine = client.engine();
    let third = build(&engine, &client.request(&text));
    assert_eq!((third.executed, id(&third)), (0, id(&built)), "{:?}", ran(&third));
    // Nor do further steps on the same base.
    let fourth = build(&engine, &client.request(&format!("{text}RUN cat /own > /copy\n")));
    assert_eq!(fourth.executed, 1, "{:?}", ran(&fourth));
    assert_eq!(registry.asked(), Vec::<String>::new());
}

fn a_cached_build_needs_no_registry() {
    let (registry, client, _, engine, built) = pulled(TEXT);
    let text = TEXT.replace("APP", &registry.name("team/app"));
    drop(engine);
    registry.stop();
    let engine = client.engine();
    let second = build(&engine, &client.request(&text));
    assert_eq!((second.executed, id(&second)), (0, id(&built)));
    assert_eq!(build(&engine, &client.request(&format!("{text}RUN true\n"))).executed, 1);
    // What is not there cannot be had, and the error names it.
    let text = text.replace(":1", ":2");
    let error = explain(&build_error(&engine, &client.request(&text)));
    assert!(error.contains(&registry.address.to_string()), "{error}");
}

fn an_image_of_config_alone_has_its_base_at_hand() {
    let (registry, client, _, engine, _) = pulled("FROM APP:1\nENV A=1\nLABEL b=c\n");
    let asked = registry.asked();
    assert_eq!(kinds(&asked), (1, 4), "{asked:?}");
    registry.stop();
    assert_eq!(client.0.sh(&engine, "built", "cat /content; echo $MADE$A"), "one\none1\n");
    let path = client.0.path().join("image.tar");
    let text = format!("FROM {}:1\nENV A=1\nLABEL b=c\n", registry.name("team/app"));
    build(&engine, &client.request(&text).output(Output::OciArchive(path.clone().into())));
    Exported::from_tar(&path).check();
}

fn two_stages_fetch_a_layer_once() {
    let text = "FROM APP:1 AS a\nRUN touch /a\nFROM APP:1 AS b\nRUN touch /b\n\
                FROM APP:1\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN test -e /a -a -e /b\n";
    let (registry, _client, ..) = pulled(text);
    let mut asked = registry.asked();
    assert_eq!(kinds(&asked).1, 4, "{asked:?}");
    asked.sort();
    asked.dedup();
    assert_eq!(kinds(&asked), (1, 4), "{asked:?}");
}

fn a_moved_tag_is_noticed_when_asked_for() {
    let text = "FROM APP:1\nRUN cp /content /copy\n";
    let (registry, client, _, engine, built) = pulled(text);
    let text = text.replace("APP", &registry.name("team/app"));
    registry.push(&image("two"), "1");
    registry.asked();
    let mut request = client.request(&text).tag("built");
    assert_eq!(id(&build(&engine, &request)), id(&built));
    assert_eq!(registry.asked(), Vec::<String>::new());
    request.pull = Pull::Always;
    let moved = build(&engine, &request);
    assert_ne!(id(&moved), id(&built));
    assert_eq!(client.0.sh(&engine, "built", "cat /copy; echo $MADE"), "two\ntwo\n");
    assert!(kinds(&registry.asked()).0 > 0);
    // The same again: the tag is asked for, the layers are not.
    assert_eq!(build(&engine, &request).executed, 0);
    let asked = registry.asked();
    assert_eq!(kinds(&asked).0, 1, "{asked:?}");
    assert!(kinds(&asked).1 <= 1, "{asked:?}");
    // What was learnt holds for builds that do not ask.
    request.pull = Pull::Missing;
    assert_eq!(id(&build(&engine, &request)), id(&moved));
}

fn never_pulling_asks_nothing() {
    let (registry, client, _, engine, _) = pulled(TEXT);
    registry.asked();
    let mut request = client.request(&TEXT.replace("APP", &registry.name("team/app")));
    request.pull = Pull::Never;
    assert_eq!(build(&engine, &request).executed, 0);
    let mut request = client.request(&format!("FROM {}\n", registry.name("team/app:2")));
    request.pull = Pull::Never;
    let error = build_error(&engine, &request);
    assert!(error.to_string().contains("team/app:2"), "{error}");
    assert_eq!(registry.asked(), Vec::<String>::new());
}

/// An index of images for Linux.
fn index(images: &[(&Digest, &Exported, &str)]) -> String {
    let entry = |(digest, image, architecture): &(&Digest, &Exported, &str)| {
        serde_json::json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest.to_string(),
            "size": image.blob(&digest.to_string()).len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let manifests: Vec<_> = images.iter().map(entry).collect();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": manifests,
    });
    index.to_string()
}

fn an_index_gives_the_image_of_the_platform() {
    let (registry, client) = (Registry::start(), Client::new());
    let (mine, other) = (image("mine"), image("other"));
    let (mine_digest, other_digest) = (registry.push(&mine, "x"), registry.push(&other, "y"));
    let host = rbuild::Platform::host();
    let foreign = (&other_digest, &other, "s390x");
    let own = (&mine_digest, &mine, host.architecture.as_str());
    registry.put("team/app/manifests/all", OCI_INDEX, index(&[foreign, own]));
    let engine = client.engine();
    let name = registry.name("team/app:all");
    build(&engine, &client.request(&format!("FROM {name}\nRUN test $MADE = mine\n")));
    let asked = registry.asked();
    assert_eq!(kinds(&asked).0, 2, "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains(&other_digest.to_string())), "{asked:?}");
    registry.put("team/app/manifests/foreign", OCI_INDEX, index(&[foreign]));
    let name = registry.name("team/app:foreign");
    let error = build_error(&engine, &client.request(&format!("FROM {name}\nRUN true\n")));
    let told = format!("{error} {error:?}");
    assert!(told.contains("linux/s390x"), "{told}");
}

fn a_name_in_the_store_is_asked_for_again_for_another_platform() {
    let (registry, client) = (Registry::start(), Client::new());
    let (mine, other) = (image("mine"), image_for("other", "s390x"));
    let (mine_digest, other_digest) = (registry.push(&mine, "x"), registry.push(&other, "y"));
    let host = rbuild::Platform::host();
    let own = (&mine_digest, &mine, host.architecture.as_str());
    let all = index(&[own, (&other_digest, &other, "s390x")]);
    registry.put("team/app/manifests/all", OCI_INDEX, all);
    let engine = client.engine();
    let name = registry.name("team/app:all");
    // To run it gives it a name in the store.
    drop(engine.create("test", &name, Process::default()).unwrap());
    registry.asked();
    let text = format!("FROM {name}\nCOPY busybox /new\n");
    let mut request = client.request(&text).platform("linux/s390x".parse().unwrap()).tag("built");
    request.pull = Pull::Missing;
    build(&engine, &request);
    let asked = registry.asked();
    assert!(asked.iter().any(|path| path.contains(&other_digest.to_string())), "{asked:?}");
    assert_eq!(
        engine.image_config("built").unwrap().config.config.env.last().unwrap(),
        "MADE=other"
    );
    build(&engine, &request);
    assert_eq!(registry.asked(), Vec::<String>::new());
    // What was built here is all there is of it: nobody is asked.
    let own = client.request("FROM built\n").platform(host.clone());
    assert!(!build(&engine, &own).image.unwrap().platforms.is_empty());
    assert_eq!(registry.asked(), Vec::<String>::new());
}

fn a_container_is_of_the_platform_that_was_asked_for() {
    let (registry, client) = (Registry::start(), Client::new());
    let (mine, other) = (image("mine"), image_for("other", "s390x"));
    let (mine_digest, other_digest) = (registry.push(&mine, "x"), registry.push(&other, "y"));
    let host = rbuild::Platform::host();
    let own = (&mine_digest, &mine, host.architecture.as_str());
    registry.put(
        "team/app/manifests/all",
        OCI_INDEX,
        index(&[own, (&other_digest, &other, "s390x")]),
    );
    let engine = client.engine();
    let never = CancelToken::default();
    let create = |name: &str, pull, platform: &str| {
        let platform = Some(platform.parse().unwrap());
        let options =
            ContainerOptions { pull, platform, tied: true, ..ContainerOptions::new(name) };
        engine.create_container(options, Ctx::new(&Silent, &never))
    };
    let name = registry.name("team/app:all");
    let architecture = || engine.image_config(&name).unwrap().config.architecture;
    drop(create(&name, Pull::Missing, &host.to_string()).unwrap());
    registry.asked();
    let error = create(&name, Pull::Never, "linux/s390x").unwrap_err().to_string();
    assert!(error.contains(&format!("there are: {host}")), "{error}");
    assert_eq!((architecture(), registry.asked()), (host.architecture.clone(), vec![]));
    // Another is here: it is pulled for this one, once, and the name moves as with `docker run`.
    drop(create(&name, Pull::Missing, "linux/s390x").unwrap());
    assert_eq!(architecture(), "s390x");
    assert!(!registry.asked().is_empty());
    drop(create(&name, Pull::Missing, "linux/s390x").unwrap());
    assert_eq!(registry.asked(), Vec::<String>::new());
    let error = create(&name, Pull::Missing, "linux/riscv64").unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains(&host.to_string()), "{error}");
    // What was built here is all there is of it, and an id is one image.
    engine.tag_image(&name, "built").unwrap();
    let id = engine.find_image("built").unwrap().image_id.to_string();
    registry.asked();
    for name in ["built", &id] {
        let error = create(name, Pull::Missing, &host.to_string()).unwrap_err().to_string();
        assert!(error.contains("there are: linux/s390x"), "{name}: {error}");
    }
    assert_eq!(registry.asked(), Vec::<String>::new());
}

fn a_digest_names_one_image() {
    let (registry, client) = (Registry::start(), Client::new());
    let one = registry.push(&image("one"), "moving");
    registry.push(&image("two"), "moving");
    let engine = client.engine();
    for name in [format!("team/app@{one}"), format!("team/app:moving@{one}")] {
        let text = format!("FROM {}\nRUN test $(cat /content) = one\n", registry.name(&name));
        build(&engine, &client.request(&text));
        let asked = registry.asked();
        assert!(!asked.iter().any(|path| path.ends_with("/moving")), "{asked:?}");
        // And it never has to be asked for again.
        let mut again = client.request(&text);
        again.pull = Pull::Missing;
        assert_eq!(build(&engine, &again).executed, 0);
        assert_eq!(registry.asked(), Vec::<String>::new());
    }
    let missing = Digest::of("nothing");
    let name = registry.name(&format!("team/app@{missing}"));
    let error = explain(&build_error(&engine, &client.request(&format!("FROM {name}\n"))));
    assert!(error.contains(&missing.to_string()), "{error}");
}

fn an_unknown_tag_is_named() {
    let (registry, client, _, engine, _) = pulled(TEXT);
    for name in ["team/app:2", "team/none:1"] {
        let name = registry.name(name);
        let text = format!("FROM scratch\nFROM {name}\nRUN true\n");
        let error = build_error(&engine, &client.request(&text));
        let BuildError::Dockerfile { diagnostics, source_text, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(error.to_string().contains(&name), "{error}");
        assert!(error.to_string().contains("not found"), "{error}");
        let span = diagnostics.iter().find(|one| one.is_error()).unwrap().span().unwrap();
        assert!(source_text[span.start..span.end].contains(&name), "{span:?}");
    }
    // It is asked again each time: tags come.
    registry.push(&image("late"), "2");
    let text = format!("FROM {}\nRUN test $MADE = late\n", registry.name("team/app:2"));
    build(&engine, &client.request(&text));
}

/// Builds on an image that the registry has under a digest that is not its own; the error. Then
/// puts the registry right, and the same build works: nothing wrong was kept.
fn refused(spoil: impl Fn(&Registry, &Exported) -> String) -> String {
    let (registry, client, image) = (Registry::start(), Client::new(), image("one"));
    let digest = registry.push(&image, "1");
    let text =
        format!("FROM {}@{digest}\nRUN test $(cat /content) = one\n", registry.name("team/app"));
    let subject = spoil(&registry, &image);
    let engine = client.engine();
    let events = crate::support::Events::default();
    let request = client.request(&text);
    let error = engine.build(&request, &events, &rbuild::CancelToken::default()).unwrap_err();
    let mut told = explain(&error);
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        told.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    assert!(told.contains(&subject), "{subject} is not in {told}");
    let started = |event: &Event| matches!(event, Event::Image { .. });
    assert!(!events.take().iter().any(started));
    assert_eq!(client.0.leftovers(), Vec::<String>::new());
    registry.push(&image, "1");
    build(&engine, &request);
    told
}

/// Other bytes of the same length.
fn spoilt(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn a_wrong_manifest_is_refused() {
    let told = refused(|registry, image| {
        let digest = image.manifest_digest();
        // Well-formed, and another image's.
        let manifest = String::from_utf8(image.blob(&digest).to_vec()).unwrap() + "\n";
        registry.put(&format!("team/app/manifests/{digest}"), OCI_MANIFEST, manifest);
        digest
    });
    assert!(told.contains("wrong bytes"), "{told}");
}

fn a_wrong_config_is_refused() {
    let told = refused(|registry, image| {
        let digest = image.config_digest();
        let config = String::from_utf8(image.blob(&digest).to_vec()).unwrap();
        let config = config.replace("MADE=one", "MADE=two");
        registry.put(&format!("team/app/blobs/{digest}"), OCI_CONFIG, config);
        digest
    });
    assert!(told.contains("wrong bytes"), "{told}");
}

fn a_wrong_layer_is_refused() {
    for number in 0..3 {
        refused(|registry, image| {
            let manifest = image.manifest();
            let digest = manifest["layers"][number]["digest"].as_str().unwrap().to_owned();
            let bytes = spoilt(image.blob(&digest));
            registry.put(&format!("team/app/blobs/{digest}"), "application/octet-stream", bytes);
            digest
        });
    }
}

fn a_layer_that_stalls_leaves_nothing() {
    let (registry, client, image) = (Registry::start(), Client::new(), image("one"));
    registry.push(&image, "1");
    let digest = image.manifest()["layers"][0]["digest"].as_str().unwrap().to_owned();
    registry.put(&format!("team/app/blobs/{digest}"), STALLING, image.blob(&digest));
    let engine = client.patient_for(Duration::from_millis(200));
    let text = format!("FROM {}\nRUN true\n", registry.name("team/app:1"));
    let told = explain(&build_error(&engine, &client.request(&text)));
    assert!(told.contains(&digest), "{told}");
    assert_eq!(client.0.leftovers(), Vec::<String>::new());
    registry.push(&image, "1");
    build(&engine, &client.request(&text));
}

/// The blob is what the manifest says, but its content is not what the config says.
fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let (registry, client) = (Registry::start(), Client::new());
    let (mut one, two) = (image("one"), image("two"));
    let mut manifest = one.manifest();
    manifest["layers"][2] = two.manifest()["layers"][2].clone();
    let bytes = manifest.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    one.0.extend(two.0.clone().into_iter().filter(|(name, _)| name.starts_with("blobs/")));
    registry.push(&one, "1");
    registry.put("team/app/manifests/mixed", OCI_MANIFEST, bytes);
    let engine = client.engine();
    let text = format!("FROM {}:mixed\nRUN true\n", registry.name("team/app"));
    let error = explain(&build_error(&engine, &client.request(&text)));
    let diff_id = one.config()["rootfs"]["diff_ids"][2].as_str().unwrap().to_owned();
    assert!(error.contains(&diff_id), "{error} ({digest})");
}

fn an_endless_chain_of_indexes_is_refused() {
    let (registry, client) = (Registry::start(), Client::new());
    let image = image("one");
    let mut digest = registry.push(&image, "1");
    let mut size = image.blob(&digest.to_string()).len();
    let mut kind = OCI_MANIFEST;
    for _ in 0..40 {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [{"mediaType": kind, "digest": digest, "size": size}],
        });
        let bytes = index.to_string().into_bytes();
        (digest, size, kind) = (Digest::of(&bytes), bytes.len(), OCI_INDEX);
        for name in ["chain".to_owned(), digest.to_string()] {
            registry.put(&format!("team/app/manifests/{name}"), OCI_INDEX, &bytes[..]);
        }
    }
    let text = format!("FROM {}:chain\nRUN true\n", registry.name("team/app"));
    let error = explain(&build_error(&client.engine(), &client.request(&text)));
    assert!(error.contains("index"), "{error}");
    let asked = registry.asked();
    assert!(asked.len() <= 20, "{asked:?}");
}

/// A manifest may say that its layers lie elsewhere: nobody goes there.
fn urls_of_layers_are_not_asked() {
    let (registry, elsewhere, client) = (Registry::start(), Registry::start(), Client::new());
    let image = image("one");
    registry.push(&image, "1");
    let mut manifest = image.manifest();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["urls"] = serde_json::json!([format!("http://{}", elsewhere.name("x"))]);
    }
    let bytes = manifest.to_string().into_bytes();
    registry.put("team/app/manifests/urls", OCI_MANIFEST, bytes);
    let text = format!("FROM {}:urls\nRUN true\n", registry.name("team/app"));
    build(&client.engine(), &client.request(&text));
    assert_eq!(elsewhere.asked(), [""; 0]);

    // Neither when the registry does not have them.
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    registry.shared.content.lock().unwrap().remove(&format!("team/app/blobs/{layer}"));
    let other = Client::new();
    let error = explain(&build_error(&other.engine(), &other.request(&text)));
    assert!(error.contains(layer), "{error}");
    assert_eq!(elsewhere.asked(), [""; 0]);
}

fn a_container_is_made_of_a_pulled_image() {
    let (registry, client, image) = (Registry::start(), Client::new(), image("one"));
    let digest = registry.push(&image, "1");
    let engine = client.engine();
    let name = registry.name("team/app:1");
    let run = || client.0.run(&engine, &name, Process::default());
    assert_eq!(run(), (0, "one\n".to_owned()));
    assert_eq!(kinds(&registry.asked()), (1, 4));
    let found = engine.find_image(&name).unwrap();
    assert_eq!(
        (found.manifest_digest, found.image_id.to_string()),
        (digest, image.config_digest())
    );
    registry.stop();
    assert_eq!(run(), (0, "one\n".to_owned()));
}

fn a_pulled_base_is_exported_as_it_came() {
    let (registry, client, image, engine, _) = pulled(TEXT);
    let path = client.0.path().join("image.tar");
    let text = TEXT.replace("APP", &registry.name("team/app"));
    build(&engine, &client.request(&text).output(Output::OciArchive(path.clone().into())));
    let exported = Exported::from_tar(&path);
    exported.check();
    // The very blobs, not other encodings of the same layers.
    let layers = |image: &Exported| image.manifest()["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&exported)[..3], layers(&image));
}
