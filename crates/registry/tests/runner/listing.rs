//! Lists page by page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_registry::{Referrer, Registry, RegistryError};
use rbuild_types::{CancelToken, Ctx, Digest, Silent};
use serde_json::{Value, json};

use crate::shelf::{Manner, Shelf};
use crate::support::{FaultyRegistry, OCI_INDEX, OCI_MANIFEST, Reply, Request, quick};

fn tags(server: &FaultyRegistry) -> Result<Vec<String>, RegistryError> {
    let cancel = CancelToken::default();
    let ctx = Ctx::new(&Silent, &cancel);
    let found = Registry::new(quick()).unwrap().tags(&server.reference("team/app"), ctx)?;
    Ok(found.iter().map(|one| one.tag().unwrap().to_owned()).collect())
}

fn page(tags: &str) -> Reply {
    Reply::new(200, format!(r#"{{"name":"team/app","tags":{tags}}}"#))
}

#[test]
fn tags_come_page_by_page() {
    let server =
        FaultyRegistry::start(|request: &Request| match (request.before, request.path.as_str()) {
            (0, "/v2/team/app/tags/list?n=1000") => Reply::error(503, "BUSY", "later"),
            (_, "/v2/team/app/tags/list?n=1000") => page(r#"["b","latest"]"#)
                .with("Link", "</v2/team/app/tags/list?last=latest&n=1000>; rel=\"next\""),
            (_, "/v2/team/app/tags/list?last=latest&n=1000") => {
                page(r#"["a","b"]"#).with("Link", "<list?last=b>; rel=\"next\"")
            }
            (_, "/v2/team/app/tags/list?last=b") => page("null"),
            _ => Reply::error(404, "NAME_UNKNOWN", "no"),
        });
    assert_eq!(tags(&server).unwrap(), ["a", "b", "latest"]);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn lists_that_are_none_or_do_not_end_are_refused() {
    for body in ["[]", r#"{"tags":[1]}"#, r#"{"tags":["a b"]}"#, r#"{"tags":["a@x"]}"#] {
        let server = FaultyRegistry::start(move |_| Reply::new(200, body));
        let error = tags(&server).unwrap_err();
        assert!(matches!(error, RegistryError::Listing { .. }), "{body}: {error:?}");
    }
    let circle = FaultyRegistry::start(|request: &Request| {
        page("[]").with("Link", format!("<{}>; rel=\"next\"", request.path))
    });
    let error = tags(&circle).unwrap_err().to_string();
    assert!(error.contains("more than 1000 pages"), "{error}");
    let elsewhere =
        FaultyRegistry::start(|_| page("[]").with("Link", "<file:///etc/passwd>; rel=\"next\""));
    let error = tags(&elsewhere).unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
}

/// A manifest of this artifact type that belongs to `subject`.
fn artifact(kind: &str, subject: Digest) -> Vec<u8> {
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json",
        "digest": Digest::of(b"{}"), "size": 2});
    let document = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
        "config": empty, "layers": [], "annotations": {"made": "today"},
        "subject": {"mediaType": OCI_INDEX, "digest": subject, "size": 1}});
    document.to_string().into_bytes()
}

fn push(registry: &Registry, server: &FaultyRegistry, bytes: &[u8]) {
    let reference = server.reference("team/app").with_digest(Digest::of(bytes));
    let cancel = CancelToken::default();
    registry.push_manifest(&reference, OCI_MANIFEST, bytes, Ctx::new(&Silent, &cancel)).unwrap();
}

fn referrers(
    registry: &Registry,
    server: &FaultyRegistry,
    subject: Digest,
    kind: Option<&str>,
) -> Result<Vec<Referrer>, RegistryError> {
    let cancel = CancelToken::default();
    let reference = server.reference("team/app");
    registry.referrers(&reference, subject, kind, Ctx::new(&Silent, &cancel))
}

#[test]
fn a_registry_without_referrers_has_them_under_a_tag() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let server = FaultyRegistry::start(move |request| match request.path.contains("/referrers/") {
        true => Reply::error(404, "UNSUPPORTED", "no such route"),
        false => kept.reply(request),
    });
    let registry = Registry::new(quick()).unwrap();
    let subject = Digest::of(b"an image");
    assert_eq!(referrers(&registry, &server, subject, None).unwrap(), []);
    let (sbom, signature) = (artifact("a/sbom", subject), artifact("a/sig", subject));
    // The second time it is there already.
    for bytes in [&sbom, &sbom, &signature] {
        push(&registry, &server, bytes);
    }
    let found = referrers(&registry, &server, subject, None).unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    let found = referrers(&registry, &server, subject, Some("a/sig")).unwrap();
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!((one.digest, one.size), (Digest::of(&signature), signature.len() as u64));
    assert_eq!(
        (one.media_type.as_str(), one.annotations["made"].as_str()),
        (OCI_MANIFEST, "today")
    );

    let tag = format!("team/app/manifests/{}", subject.to_string().replace(':', "-"));
    let index: Value = serde_json::from_slice(&shelf.manifest(&tag).unwrap()).unwrap();
    assert_eq!(index["mediaType"], OCI_INDEX);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn pushes_at_once_lose_no_referrer() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let server = FaultyRegistry::start(move |request| kept.reply(request));
    let registry = Registry::new(quick()).unwrap();
    let subject = Digest::of(b"an image");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let bytes = artifact(&format!("a/{number}"), subject);
            let (registry, server) = (&registry, &server);
            scope.spawn(move || push(registry, server, &bytes));
        }
    });
    assert_eq!(referrers(&registry, &server, subject, None).unwrap().len(), 8);
}

/// A registry where another process writes the list of an image too, each of the first `others` times
/// that this one does: just before where states are heeded, else just after.
fn contended(others: usize, heeds_state: bool) -> (FaultyRegistry, Digest) {
    let kept = Shelf::new(Manner::Resumes);
    let subject = Digest::of(b"an image");
    let turn = AtomicUsize::new(0);
    let server = FaultyRegistry::start(move |request| {
        let is_list = request.path.contains("/manifests/sha256-");
        let path = request.path.trim_start_matches("/v2/");
        let state = |list: &[u8]| format!("\"{}\"", Digest::of(list));
        if !is_list || request.method != "PUT" {
            let reply = kept.reply(request);
            return match kept.manifest(path) {
                Some(list) if is_list && heeds_state => reply.with("ETag", state(&list)),
                _ => reply,
            };
        }
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        let other = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(turn.to_string()),
            "size": 1});
        let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other]});
        let theirs = Request { body: list.to_string().into_bytes(), ..request.clone() };
        if !heeds_state {
            kept.reply(request);
            return kept.reply(if turn < others { &theirs } else { request });
        }
        if turn < others {
            kept.reply(&theirs);
        }
        let now = kept.manifest(path).map(|list| state(&list));
        match (request.header("if-match"), now) {
            (Some(wanted), Some(now)) if *wanted != now => Reply::error(412, "DENIED", "changed"),
            _ => kept.reply(request),
        }
    });
    (server, subject)
}

#[test]
fn what_another_process_wrote_over_is_written_again() {
    let (server, subject) = contended(3, false);
    let registry = Registry::new(quick()).unwrap();
    let bytes = artifact("a/sbom", subject);
    push(&registry, &server, &bytes);
    let found = referrers(&registry, &server, subject, Some("a/sbom")).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    // It ends all the same where nothing helps.
    let (server, subject) = contended(usize::MAX, false);
    let bytes = artifact("a/sbom", subject);
    let reference = server.reference("team/app").with_digest(Digest::of(&bytes));
    let cancel = CancelToken::default();
    let ctx = Ctx::new(&Silent, &cancel);
    let error = registry.push_manifest(&reference, OCI_MANIFEST, &bytes, ctx).unwrap_err();
    assert!(error.to_string().contains("others write over it"), "{error}");
}

#[test]
fn a_registry_that_knows_states_lets_nothing_be_written_over() {
    let (server, subject) = contended(2, true);
    let registry = Registry::new(quick()).unwrap();
    push(&registry, &server, &artifact("a/first", subject));
    push(&registry, &server, &artifact("a/second", subject));
    let found = referrers(&registry, &server, subject, None).unwrap();
    assert!(found.iter().any(|one| one.artifact_type.as_deref() == Some("a/second")), "{found:?}");
    // That of the other, which came between reading and writing.
    let other = Digest::of("1");
    assert!(found.iter().any(|one| one.digest == other), "{found:?}");
}

#[test]
fn a_registry_with_referrers_is_asked_page_by_page_and_keeps_them_itself() {
    let subject = Digest::of(b"an image");
    let server = FaultyRegistry::start(move |request: &Request| {
        let entry = |kind: &str| {
            json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(kind.as_bytes()), "size": 1,
                "artifactType": kind})
        };
        let page = |kind: &str| {
            Reply::new(200, json!({"schemaVersion": 2, "manifests": [entry(kind)]}).to_string())
                .with("Content-Type", OCI_INDEX)
        };
        match request.method.as_str() {
            "PUT" => Reply::new(201, "").with("OCI-Subject", subject),
            // The filter is the registry's choice: this one does not know it.
            _ if request.path.ends_with("?next") => page("b"),
            _ => page("a").with("Link", format!("<{}?next>; rel=\"next\"", request.path)),
        }
    });
    let registry = Registry::new(quick()).unwrap();
    assert_eq!(referrers(&registry, &server, subject, None).unwrap().len(), 2);
    assert_eq!(referrers(&registry, &server, subject, Some("b")).unwrap().len(), 1);
    let asked = server.requests().len();
    push(&registry, &server, &artifact("c", subject));
    assert_eq!(server.requests().len(), asked + 1, "no list is written");
}

#[test]
fn a_list_that_is_no_index_is_not_overwritten() {
    let server = FaultyRegistry::start(|request: &Request| match request.method.as_str() {
        "PUT" => Reply::new(201, ""),
        _ if request.path.contains("/referrers/") => Reply::error(404, "UNSUPPORTED", "no"),
        _ => Reply::new(200, r#"{"config":{},"layers":[]}"#),
    });
    let registry = Registry::new(quick()).unwrap();
    let subject = Digest::of(b"an image");
    let error = referrers(&registry, &server, subject, None).unwrap_err();
    assert!(matches!(error, RegistryError::Listing { .. }), "{error:?}");
    let bytes = artifact("a", subject);
    let reference = server.reference("team/app").with_digest(Digest::of(&bytes));
    let cancel = CancelToken::default();
    let ctx = Ctx::new(&Silent, &cancel);
    let error = registry.push_manifest(&reference, OCI_MANIFEST, &bytes, ctx).unwrap_err();
    assert!(error.to_string().contains("is no index"), "{error}");
    let puts = server.requests().iter().filter(|request| request.method == "PUT").count();
    assert_eq!(puts, 1, "the manifest only");
}
