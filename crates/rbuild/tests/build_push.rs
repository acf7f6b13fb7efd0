//! Pushes to a registry on the loopback device that keeps what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rbuild::{BuildError, BuildRequest, Digest, Encoding, Export, LayerForm, Output};
use rbuild_testkit::schemas::Schemas;

use crate::exported::check_document;
use crate::support::{Place, build, build_error};
use crate::tests;
use crate::web::{Answer, Asked, Web, answer};

tests![
    an_image_is_pushed_under_each_name_and_pulled_again,
    what_is_there_is_not_sent_again,
    a_base_that_was_never_fetched_is_mounted,
    a_base_of_another_registry_is_fetched_and_sent,
    an_index_comes_after_what_it_names,
    a_layer_is_sent_while_the_next_step_runs,
    a_step_that_fails_ends_what_is_sent_meanwhile,
    a_refusal_moves_no_name,
    a_push_needs_a_name,
];

const TEXT: &str = "FROM base\nRUN echo two > /two\n";

/// What a registry has: blobs and manifests by repository.
#[derive(Default)]
struct Shelf {
    blobs: BTreeSet<(String, String)>,
    bytes: BTreeMap<String, Vec<u8>>,
    /// By repository and tag or digest.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// Digests of blobs that it does not give, though it has them.
    refused: BTreeSet<String>,
}

pub struct Registry {
    web: Web,
    shelf: Arc<Mutex<Shelf>>,
}

impl Registry {
    pub fn start() -> Self {
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let kept = shelf.clone();
        Self { web: Web::start(move |asked| kept.lock().unwrap().answer(asked)), shelf }
    }

    /// `name` in this registry.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.web.address)
    }

    /// Loses a blob of a repository.
    pub fn lose(&self, repository: &str, digest: &str) {
        let blob = (repository.to_owned(), digest.to_owned());
        assert!(self.shelf.lock().unwrap().blobs.remove(&blob));
    }

    /// Gives this blob to nobody, or to all again.
    pub fn refuse(&self, digest: &str, is_refused: bool) {
        let refused = &mut self.shelf.lock().unwrap().refused;
        match is_refused {
            true => refused.insert(digest.to_owned()),
            false => refused.remove(digest),
        };
    }

    pub fn manifest(&self, repository: &str, name: &str) -> serde_json::Value {
        let shelf = self.shelf.lock().unwrap();
        let (_, bytes) = &shelf.manifests[&(repository.to_owned(), name.to_owned())];
        serde_json::from_slice(bytes).unwrap()
    }

    /// Methods and paths since the last call, without the probes.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.web.asked().into_iter().filter(|asked| asked.path != "/v2/");
        asked.map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

impl Shelf {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let path = path.trim_start_matches("/v2/");
        let query: BTreeMap<_, _> =
            query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let digest = |name: &str| query.get(name).map(|text| text.replace("%3A", ":"));
        if let Some((repository, name)) = path.split_once("/manifests/") {
            let key = (repository.to_owned(), name.to_owned());
            if asked.method != "PUT" {
                let Some((kind, bytes)) = self.manifests.get(&key) else { return answer(404, "") };
                return answer(200, bytes.clone())
                    .with("Content-Type", kind)
                    .with("Docker-Content-Digest", Digest::of(bytes));
            }
            let digest = Digest::of(&asked.body);
            if let Some(schemas) = Schemas::at_hand() {
                check_document(&schemas, &asked.body);
            }
            if !self.has_all(repository, &asked.body) {
                return answer(400, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#);
            }
            let value = (asked.header("content-type").to_owned(), asked.body.clone());
            self.manifests.insert((repository.to_owned(), digest.to_string()), value.clone());
            self.manifests.insert(key, value);
            return answer(201, "").with("Docker-Content-Digest", digest);
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let keys =
                self.manifests.keys().filter(|(of, tag)| of == repository && !tag.contains(':'));
            let tags: Vec<_> = keys.map(|(_, tag)| tag).collect();
            let list = serde_json::json!({ "name": repository, "tags": tags });
            return answer(200, list.to_string());
        }
        let Some((repository, name)) = path.split_once("/blobs/") else {
            return answer(if path.is_empty() { 200 } else { 404 }, "{}");
        };
        let key = |digest: &str| (repository.to_owned(), digest.to_owned());
        match asked.method.as_str() {
            "GET" if self.refused.contains(name) => answer(403, ""),
            "HEAD" | "GET" if self.blobs.contains(&key(name)) => {
                answer(200, self.bytes[name].clone())
            }
            "POST" => match (digest("mount"), query.get("from")) {
                (Some(digest), Some(from))
                    if self.blobs.contains(&((*from).to_owned(), digest.clone())) =>
                {
                    self.blobs.insert(key(&digest));
                    answer(201, "")
                }
                _ => answer(202, "").with("Location", format!("/v2/{repository}/blobs/uploads/1")),
            },
            "PUT" => {
                let named = Digest::of(&asked.body).to_string();
                if digest("digest").as_deref() != Some(&named) {
                    return answer(400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.insert(key(&named));
                self.bytes.insert(named.clone(), asked.body.clone());
                answer(201, "").with("Docker-Content-Digest", named)
            }
            "DELETE" => answer(204, ""),
            _ => answer(404, ""),
        }
    }

    /// Whether the repository has what a manifest or an index names.
    fn has_all(&self, repository: &str, manifest: &[u8]) -> bool {
        let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        let named = |value: &serde_json::Value| {
            (repository.to_owned(), value["digest"].as_str().unwrap().to_owned())
        };
        let all = |field: &str| manifest[field].as_array().cloned().unwrap_or_default();
        let blobs = all("layers").into_iter().chain(manifest.get("config").cloned());
        blobs.into_iter().all(|it| self.blobs.contains(&named(&it)))
            && all("manifests").iter().all(|it| self.manifests.contains_key(&named(it)))
    }
}

pub fn pushed(request: BuildRequest) -> BuildRequest {
    request.output(Output::Registry { insecure: false, by_digest: false })
}

fn count(asked: &[String], method: &str, part: &str) -> usize {
    asked.iter().filter(|line| line.starts_with(method) && line.contains(part)).count()
}

fn an_image_is_pushed_under_each_name_and_pulled_again() {
    let (registry, place) = (Registry::start(), Place::new());
    let names = [registry.name("team/app:1"), registry.name("team/app:latest")];
    let other = registry.name("other/app:1");
    let request = place.request(TEXT).tag(&names[0]).tag(&names[1]).tag(&other);
    let built = build(&place.engine(), &pushed(request));
    let asked = registry.asked();
    assert_eq!(count(&asked, "PUT", "/team/app/blobs/"), 4, "three layers and the config");
    assert_eq!(count(&asked, "PUT", "/other/app/blobs/"), 0, "mounted");
    assert_eq!(registry.manifest("team/app", "1"), registry.manifest("other/app", "1"));
    let exported = built.image.unwrap().exported.unwrap();
    assert_eq!(registry.manifest("team/app", "latest"), {
        registry.manifest("team/app", &exported.digest.to_string())
    });

    let elsewhere = Place::new();
    let text = format!("FROM {}\nRUN test $(cat /two) = two\n", names[0]);
    build(&elsewhere.engine(), &BuildRequest::new(elsewhere.context()).dockerfile_text(text));
}

fn what_is_there_is_not_sent_again() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.name("team/app");
    build(&place.engine(), &pushed(place.request(TEXT).tag(&name)));
    registry.asked();
    build(&place.engine(), &pushed(place.request(TEXT).tag(&name)));
    let asked = registry.asked();
    assert_eq!(count(&asked, "POST", ""), 0, "{asked:?}");
    assert_eq!(count(&asked, "PUT", "/blobs/"), 0, "{asked:?}");
    // A new step is a new layer and a new config.
    let text = format!("{TEXT}RUN echo three > /three\n");
    build(&place.engine(), &pushed(place.request(&text).tag(&name)));
    assert_eq!(count(&registry.asked(), "PUT", "/blobs/"), 2);
    // Another codec is another blob of each layer.
    let layers = LayerForm { encoding: Encoding::ZSTD, ..LayerForm::default() };
    let output =
        Export { layers, ..Export::from(Output::Registry { insecure: false, by_digest: false }) };
    build(&place.engine(), &place.request(&text).tag(&name).output(output));
    assert_eq!(count(&registry.asked(), "PUT", "/blobs/"), 4);
    let manifest = registry.manifest("team/app", "latest");
    let kind = manifest["layers"][0]["mediaType"].as_str().unwrap();
    assert!(kind.ends_with("tar+zstd"), "{kind}");
}

/// A registry with a base, and a place that does not know it yet.
fn based() -> (Registry, Place, String) {
    let (registry, place) = (Registry::start(), Place::new());
    let base = registry.name("team/base:1");
    let first = Place::new();
    build(&first.engine(), &pushed(first.request(TEXT).tag(&base)));
    registry.asked();
    (registry, place, base)
}

fn a_base_that_was_never_fetched_is_mounted() {
    let (registry, place, base) = based();
    let request = BuildRequest::new(place.context())
        .dockerfile_text(format!("FROM {base}\nENV A=1\n"))
        .tag(registry.name("team/app:1"));
    build(&place.engine(), &pushed(request.clone()));
    let asked = registry.asked();
    assert_eq!(count(&asked, "POST", "from=team/base"), 3, "{asked:?}");
    assert_eq!(count(&asked, "PUT", "/team/app/blobs/"), 1, "the config: {asked:?}");
    assert_eq!(count(&asked, "GET", "/blobs/"), 1, "the config: {asked:?}");
    // Its layers come when somebody needs their files.
    let text = format!("FROM {}\nRUN test $(cat /two)$A = two1\n", registry.name("team/app:1"));
    build(&place.engine(), &BuildRequest::new(place.context()).dockerfile_text(text));
    assert_eq!(count(&registry.asked(), "GET", "/team/app/blobs/"), 3);
    let whole = Place::new();
    build(&whole.engine(), &BuildRequest { load: true, ..pushed(request) });
    assert_eq!(count(&registry.asked(), "GET", "/team/base/blobs/"), 4);
}

fn a_base_of_another_registry_is_fetched_and_sent() {
    let (source, place, base) = based();
    let target = Registry::start();
    let request = BuildRequest::new(place.context())
        .dockerfile_text(format!("FROM {base}\nENV A=1\n"))
        .tag(target.name("team/app:1"));
    build(&place.engine(), &pushed(request));
    assert_eq!(count(&target.asked(), "PUT", "/team/app/blobs/"), 4);
    let layers = |registry: &Registry, repository: &str| {
        registry.manifest(repository, "1")["layers"].clone()
    };
    assert_eq!(layers(&target, "team/app"), layers(&source, "team/base"));
}

fn an_index_comes_after_what_it_names() {
    let (registry, place) = (Registry::start(), Place::new());
    let request = BuildRequest::new(place.context())
        .dockerfile_text("FROM scratch\nARG TARGETARCH\nCOPY busybox /$TARGETARCH\n")
        .platform("linux/arm64".parse().unwrap())
        .platform("linux/s390x".parse().unwrap())
        .tag(registry.name("team/app:1"));
    let built = build(&place.engine(), &pushed(request));
    let index = registry.manifest("team/app", "1");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let asked = registry.asked();
    assert_eq!(count(&asked, "PUT", "/manifests/"), 3);
    assert!(asked.last().unwrap().ends_with("/manifests/1"), "{asked:?}");
    assert_eq!(built.image.unwrap().exported.unwrap().media_type, index["mediaType"]);
}

fn a_refusal_moves_no_name() {
    let place = Place::new();
    let web = Web::start(|asked| match asked.method.as_str() {
        "GET" => answer(200, "{}"),
        _ => answer(403, r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#),
    });
    let name = format!("{}/team/app:1", web.address);
    let error = build_error(&place.engine(), &pushed(place.request(TEXT).tag(&name)));
    assert!(matches!(error, BuildError::Push { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("cannot push") && message.contains("team/app"), "{message}");
    assert!(message.contains("rbuild login"), "{message}");
    assert!(place.engine().find_image(&name).is_err());
}

fn a_push_needs_a_name() {
    let place = Place::new();
    let error = build_error(&place.engine(), &pushed(place.request(TEXT)));
    assert!(error.to_string().contains("a tag is needed"), "{error}");
}

/// Says to steps whether a layer has come.
fn with_flag(registry: &Registry) {
    let shelf = registry.shelf.clone();
    registry.web.change(move |asked| {
        let mut shelf = shelf.lock().unwrap();
        match asked.path.as_str() {
            "/flag" => answer(if shelf.bytes.is_empty() { 404 } else { 200 }, "here\n"),
            _ => shelf.answer(asked),
        }
    });
}

fn a_layer_is_sent_while_the_next_step_runs() {
    for encoding in [Encoding::GZIP, Encoding::Uncompressed] {
        let (registry, place) = (Registry::start(), Place::new());
        with_flag(&registry);
        // The step waits for the registry to have a layer of a step before it.
        let text = format!(
            "{TEXT}RUN for i in $(seq 200); do wget -q -O- {} && exit 0; sleep 0.1; done; exit 1\n",
            registry.web.url("/flag")
        );
        let layers = LayerForm { encoding, ..LayerForm::default() };
        let output = Export {
            layers,
            ..Export::from(Output::Registry { insecure: false, by_digest: false })
        };
        let request = place.request(&text).tag(registry.name("team/app:1")).output(output);
        build(&place.engine(), &request);
        let pushed = registry.manifest("team/app", "1");
        // The same bytes as without the hurry.
        let again = Registry::start();
        let request = request.tag(again.name("team/app:1"));
        build(&place.engine(), &request);
        assert_eq!(again.manifest("team/app", "1"), pushed);
    }
}

fn a_step_that_fails_ends_what_is_sent_meanwhile() {
    let (registry, place) = (Registry::start(), Place::new());
    let shelf = registry.shelf.clone();
    registry.web.change(move |asked| {
        let mut answer = shelf.lock().unwrap().answer(asked);
        answer.stall = asked.method == "PUT";
        answer
    });
    let text = format!("{TEXT}RUN sleep 1; false\n");
    let request = place.request(&text).tag(registry.name("team/app:1"));
    let error = build_error(&place.engine(), &pushed(request));
    assert!(matches!(error, BuildError::Step { .. }), "{error:?}");
    assert!(registry.asked().iter().any(|line| line.starts_with("PUT")));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}
