//! Pulls against a registry that misbehaves: retries, resume, verification, mirrors, cancellation.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rbuild_registry::{BlobSink, Mirror, Registry, RegistryError, RegistryOptions, Serves};
use rbuild_types::{CancelToken, Ctx, Digest, Event, Reference, Silent};

use crate::support::{
    DOCKER_LIST, DOCKER_MANIFEST, Fault, FaultyRegistry, Image, OCI_INDEX, OCI_MANIFEST, Reply,
    quick,
};

const MIB: usize = 1 << 20;

fn registry() -> Registry {
    Registry::new(quick()).unwrap()
}

/// Fetches the image's layer.
fn layer(
    registry: &Registry,
    reference: &Reference,
    image: &Image,
) -> Result<Vec<u8>, RegistryError> {
    let mut sink = Vec::new();
    let cancel = CancelToken::default();
    let (digest, size) = (image.layer_digest(), image.layer.len() as u64);
    registry.blob(reference, digest, Some(size), &mut sink, Ctx::new(&Silent, &cancel))?;
    Ok(sink)
}

/// Runs `call` with a context that nothing cancels.
fn with_ctx<T>(call: impl FnOnce(Ctx<'_>) -> T) -> T {
    call(Ctx::new(&Silent, &CancelToken::default()))
}

#[test]
fn index_then_manifest_then_blobs() {
    for (image, index_type, manifest_type) in [
        (Image::oci(3 * MIB), OCI_INDEX, OCI_MANIFEST),
        (Image::docker(3 * MIB), DOCKER_LIST, DOCKER_MANIFEST),
    ] {
        let served = image.clone();
        let server = FaultyRegistry::start(move |request| served.reply(request));
        let registry = registry();
        let reference = server.reference("team/app:latest");
        let digest = with_ctx(|ctx| registry.resolve(&reference, ctx)).unwrap();
        assert_eq!(digest, Digest::of(image.index.as_slice()));
        assert_eq!(server.requests()[0].method, "HEAD");
        assert_eq!(server.body_bytes(), 2, "the probe only");

        let pinned = reference.with_digest(digest);
        let index = with_ctx(|ctx| registry.manifest(&pinned, ctx)).unwrap();
        assert!(index.is_index() && index.media_type == index_type && index.digest == digest);
        let pinned = reference.with_digest(Digest::of(image.manifest.as_slice()));
        let manifest = with_ctx(|ctx| registry.manifest(&pinned, ctx)).unwrap();
        assert!(!manifest.is_index() && manifest.media_type == manifest_type);
        assert_eq!(manifest.bytes, *image.manifest);

        let config = Digest::of(image.config.as_slice());
        let bytes = with_ctx(|ctx| registry.document(&pinned, config, None, ctx)).unwrap();
        assert_eq!(bytes, *image.config);
        assert_eq!(layer(&registry, &pinned, &image).unwrap(), *image.layer);
    }
}

#[test]
fn transfers_are_reported_and_the_last_report_is_complete() {
    let image = Image::oci(MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| served.reply(request));
    let events = Mutex::new(Vec::new());
    let progress = |event: &Event| {
        if let Event::Transferred { name, bytes, total, done } = event {
            events.lock().unwrap().push((name.clone(), *bytes, *total, *done));
        }
    };
    let cancel = CancelToken::default();
    let (digest, size) = (image.layer_digest(), image.layer.len() as u64);
    let reference = server.reference("team/app:latest");
    registry()
        .blob(&reference, digest, Some(size), &mut Vec::new(), Ctx::new(&progress, &cancel))
        .unwrap();
    let events = events.into_inner().unwrap();
    let name = format!("{}/team/app:latest sha256:{}", server.host(), digest.short());
    assert_eq!(events.last(), Some(&(name, size, Some(size), true)));
}

#[test]
fn works_inside_an_async_host() {
    let image = Image::oci(6 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| served.reply(request));
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    host.block_on(async {
        let registry = registry();
        let reference = server.reference("team/app");
        with_ctx(|ctx| registry.resolve(&reference, ctx)).unwrap();
        assert_eq!(layer(&registry, &reference, &image).unwrap(), *image.layer);
        drop(registry);
    });
}

#[test]
fn several_threads_share_one_handle_within_the_limit() {
    let image = Image::oci(MIB);
    let served = image.clone();
    let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let most = running.clone();
    let highest = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = highest.clone();
    let server = FaultyRegistry::start(move |request| {
        use std::sync::atomic::Ordering::SeqCst;
        let now = most.fetch_add(1, SeqCst) + 1;
        seen.fetch_max(now, SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        most.fetch_sub(1, SeqCst);
        served.reply(request)
    });
    let registry = Registry::new(RegistryOptions { connections: 2, ..quick() }).unwrap();
    let reference = server.reference("team/app");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let (registry, reference, image) = (registry.clone(), &reference, &image);
            scope.spawn(move || {
                assert_eq!(layer(&registry, reference, image).unwrap(), *image.layer);
            });
        }
    });
    assert!(highest.load(std::sync::atomic::Ordering::SeqCst) <= 2);
}

#[test]
fn server_errors_twice_then_success() {
    let image = Image::oci(MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| match request.before {
        0 => Reply::error(503, "UNAVAILABLE", "later"),
        1 => Reply::new(500, "oops"),
        _ => served.reply(request),
    });
    let registry = registry();
    let reference = server.reference("team/app");
    with_ctx(|ctx| registry.resolve(&reference, ctx)).unwrap();
    with_ctx(|ctx| registry.manifest(&reference, ctx)).unwrap();
    assert_eq!(layer(&registry, &reference, &image).unwrap(), *image.layer);
}

#[test]
fn server_errors_without_end_are_an_error_that_names_everything() {
    let server = FaultyRegistry::start(|_| Reply::error(502, "BAD", "a\\u001b[31mb"));
    let reference = server.reference("team/app:latest");
    let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err().to_string();
    assert_eq!(server.requests().len(), 5);
    for part in [&reference.to_string(), &server.host(), "502 Bad Gateway", "BAD: a\\u{1b}[31mb"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_missing_tag_is_asked_for_once_and_says_so() {
    let image = Image::oci(1);
    let server = FaultyRegistry::start(move |request| image.reply(request));
    let reference = server.reference("team/app:nope");
    let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"), "{error}");
    assert!(error.to_string().contains("check the name and the tag"), "{error}");
    assert_eq!(server.requests().len(), 1);
    // HEAD has no text: the error comes from the GET after it.
    let error = with_ctx(|ctx| registry().resolve(&reference, ctx)).unwrap_err();
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
}

#[test]
fn retry_after_is_obeyed_up_to_the_limit() {
    let image = Image::oci(1);
    let server = FaultyRegistry::start(move |request| match request.before {
        0 => Reply::error(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", 1),
        _ => image.reply(request),
    });
    let start = Instant::now();
    with_ctx(|ctx| registry().manifest(&server.reference("team/app"), ctx)).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server = FaultyRegistry::start(|_| {
        Reply::error(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", 3600)
    });
    let reference = server.reference("team/app");
    let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
    assert!(matches!(error, RegistryError::RateLimited { .. }), "{error:?}");
    assert!(error.to_string().contains("asks to wait 3600 s"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_blob_is_resumed_after_each_of_four_resets() {
    let image = Image::oci(24 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        let reply = served.reply(request);
        match request.is_blob() && request.before < 4 {
            true => reply.fault(Fault::CutAfter(4 * MIB + 12345)),
            false => reply,
        }
    });
    assert_eq!(layer(&registry(), &server.reference("team/app"), &image).unwrap(), *image.layer);
    let sent = server.body_bytes();
    assert!(sent <= 24 * MIB as u64 * 3 / 2, "{sent}");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_server_that_ignores_range_makes_the_sink_start_again() {
    let image = Image::oci(2 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        let reply = served.reply(&plain);
        if request.before < 2 { reply.fault(Fault::CutAfter(MIB)) } else { reply }
    });
    assert_eq!(layer(&registry(), &server.reference("team/app"), &image).unwrap(), *image.layer);
}

#[test]
fn an_endless_series_of_resets_ends() {
    let image = Image::oci(2 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        served.reply(&plain).fault(Fault::CutAfter(MIB + MIB / 2))
    });
    let error = layer(&registry(), &server.reference("team/app"), &image).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error:?}");
    assert!(server.requests().len() <= 6, "{}", server.requests().len());
}

#[test]
fn a_body_without_length_that_is_cut_is_resumed_too() {
    let image = Image::oci(2 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        let mut reply = served.reply(request).fault(Fault::NoLength);
        if request.before == 0 {
            reply.body = reply.body[..MIB].to_vec().into();
        }
        reply
    });
    assert_eq!(layer(&registry(), &server.reference("team/app"), &image).unwrap(), *image.layer);
    assert_eq!(server.body_bytes(), 2 * MIB as u64 + 2);
}

#[test]
fn wrong_bytes_are_refused_and_a_later_pull_works() {
    let image = Image::oci(MIB);
    let change: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[1000] ^= 1,
        |bytes| bytes.push(0),
        |bytes| bytes.truncate(1000),
        |bytes| *bytes = vec![7; bytes.len()],
    ];
    for change in change {
        let served = image.clone();
        let server = FaultyRegistry::start(move |request| {
            let mut reply = served.reply(request);
            if request.before == 0 {
                let mut bytes = reply.body.to_vec();
                change(&mut bytes);
                reply.body = bytes.into();
            }
            reply
        });
        let (registry, reference) = (registry(), server.reference("team/app"));
        let error = layer(&registry, &reference, &image).unwrap_err();
        assert!(
            matches!(
                error,
                RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. }
            ),
            "{error:?}"
        );
        assert_eq!(layer(&registry, &reference, &image).unwrap(), *image.layer);
    }
}

#[test]
fn a_longer_body_without_length_is_cut_off_at_the_size() {
    let image = Image::oci(MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        let mut reply = served.reply(request).fault(Fault::NoLength);
        reply.body = vec![0; 64 * MIB].into();
        reply
    });
    let error = layer(&registry(), &server.reference("team/app"), &image).unwrap_err();
    assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error:?}");
}

#[test]
fn another_manifest_than_the_pinned_one_is_refused() {
    let (image, other) = (Image::oci(1), Image::oci(2));
    let server = FaultyRegistry::start(move |request| {
        let mut reply = image.reply(request);
        reply.body = other.index.clone();
        reply
    });
    let pinned =
        server.reference("team/app").with_digest(Digest::of(Image::oci(1).index.as_slice()));
    for reference in [pinned, server.reference("team/app:latest")] {
        let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    }
}

#[test]
fn documents_end_at_the_limit() {
    for fault in [Fault::None, Fault::NoLength] {
        let server = FaultyRegistry::start(move |_| {
            Reply::new(200, vec![b' '; 60 * MIB]).with("Content-Type", OCI_INDEX).fault(fault)
        });
        let reference = server.reference("team/app");
        let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
        let digest = Digest::of("x");
        let error = with_ctx(|ctx| registry().document(&reference, digest, None, ctx)).unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
    }
}

#[test]
fn two_documents_in_one_are_refused() {
    for (kind, body) in [
        (OCI_INDEX, r#"{"manifests":[],"layers":[],"config":{}}"#),
        (OCI_MANIFEST, r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#),
        ("text/html", "<html>"),
    ] {
        let server =
            FaultyRegistry::start(move |_| Reply::new(200, body).with("Content-Type", kind));
        let reference = server.reference("team/app");
        let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
        assert!(matches!(error, RegistryError::Manifest { .. }), "{error:?}");
    }
}

#[test]
fn redirects_end() {
    let server =
        FaultyRegistry::start(|request| Reply::new(307, "").with("Location", request.path.clone()));
    let reference = server.reference("team/app");
    let error = with_ctx(|ctx| registry().manifest(&reference, ctx)).unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
    assert_eq!(server.requests().len(), 11);
}

#[test]
fn mirrors_are_tried_in_order_then_the_registry() {
    let image = Image::oci(MIB);
    let served = image.clone();
    let upstream = FaultyRegistry::start(move |request| served.reply(request));
    let dead = FaultyRegistry::start(|_| Reply::error(500, "DOWN", "down"));
    let empty = FaultyRegistry::start(|_| Reply::error(404, "NAME_UNKNOWN", "no"));
    let served = image.clone();
    let wrong = FaultyRegistry::start(move |request| {
        let mut reply = served.reply(request);
        if request.is_blob() {
            reply.body = vec![0; reply.body.len()].into();
        }
        reply
    });
    let mirror = |server: &FaultyRegistry, prefix: &str| Mirror {
        location: format!("{}{prefix}", server.host()),
        insecure: false,
        serves: Serves::All,
    };
    let mirrors = vec![mirror(&dead, ""), mirror(&empty, "/hub"), mirror(&wrong, "")];
    let options = RegistryOptions { mirrors: [(upstream.host(), mirrors)].into(), ..quick() };
    let registry = Registry::new(options).unwrap();
    let reference = upstream.reference("team/app");
    with_ctx(|ctx| registry.manifest(&reference, ctx)).unwrap();
    assert_eq!(upstream.requests().len(), 0, "the third mirror had the manifest");
    assert_eq!(layer(&registry, &reference, &image).unwrap(), *image.layer);
    assert_eq!(upstream.requests().len(), 1, "the third mirror had wrong bytes");
    assert!(empty.requests()[0].path.starts_with("/v2/hub/team/app/"));

    let error = with_ctx(|ctx| registry.manifest(&upstream.reference("team/none"), ctx));
    let error = error.unwrap_err().to_string();
    for part in [dead.host(), empty.host(), wrong.host(), upstream.host()] {
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn cancel_ends_a_stalled_body_within_a_second() {
    let image = Image::oci(4 * MIB);
    let served = image.clone();
    let server =
        FaultyRegistry::start(move |request| served.reply(request).fault(Fault::StallAfter(MIB)));
    let (registry, reference) = (registry(), server.reference("team/app"));
    let cancel = CancelToken::default();
    let other = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        other.cancel();
        Instant::now()
    });
    let ctx = Ctx::new(&Silent, &cancel);
    let result = registry.blob(&reference, image.layer_digest(), None, &mut Vec::new(), ctx);
    let ended = Instant::now();
    assert!(matches!(result, Err(RegistryError::Cancelled(_))), "{result:?}");
    assert!(ended.duration_since(canceller.join().unwrap()) < Duration::from_secs(1));
    let result = registry.resolve(&server.reference("team/app"), ctx);
    assert!(matches!(result, Err(RegistryError::Cancelled(_))), "{result:?}");
}

#[test]
fn stalls_and_trickles_end() {
    let image = Image::oci(MIB);
    for fault in [Fault::StallAfter(100), Fault::Trickle] {
        let served = image.clone();
        let server = FaultyRegistry::start(move |request| served.reply(request).fault(fault));
        let options = RegistryOptions { idle_timeout: Duration::from_millis(300), ..quick() };
        let registry = Registry::new(options).unwrap();
        let start = Instant::now();
        let error = layer(&registry, &server.reference("team/app"), &image).unwrap_err();
        assert!(matches!(error, RegistryError::Stalled { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(server.requests().len(), 2, "one more try");
    }
}

#[test]
fn a_slow_sink_is_no_stall_and_the_window_bounds_what_is_read_ahead() {
    struct Slow(usize);
    impl BlobSink for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            if self.0 == 0 {
                std::thread::sleep(Duration::from_millis(600));
            }
            self.0 += bytes.len();
            Ok(())
        }
        fn restart(&mut self) -> std::io::Result<()> {
            panic!("nothing failed")
        }
    }
    let image = Image::oci(16 * MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| served.reply(request));
    let options = RegistryOptions { idle_timeout: Duration::from_millis(300), ..quick() };
    let registry = Registry::new(options).unwrap();
    let (reference, digest) = (server.reference("team/app"), image.layer_digest());
    let mut sink = Slow(0);
    with_ctx(|ctx| registry.blob(&reference, digest, None, &mut sink, ctx)).unwrap();
    assert_eq!(sink.0, 16 * MIB);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_sink_that_refuses_ends_the_call() {
    struct Full;
    impl BlobSink for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn restart(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let image = Image::oci(MIB);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| served.reply(request));
    let (reference, digest) = (server.reference("team/app"), image.layer_digest());
    let error =
        with_ctx(|ctx| registry().blob(&reference, digest, None, &mut Full, ctx)).unwrap_err();
    assert!(matches!(error, RegistryError::Sink { .. }), "{error:?}");
}

#[test]
fn a_host_that_speaks_plain_http_where_tls_is_due_gets_a_hint() {
    let image = Image::oci(1);
    let server = FaultyRegistry::start(move |request| image.reply(request));
    let named = |insecure: Vec<String>| {
        let resolve = [("r.example.test".to_owned(), server.address)].into();
        Registry::new(RegistryOptions { resolve, insecure, ..quick() }).unwrap()
    };
    let host = format!("r.example.test:{}", server.address.port());
    let reference: Reference = format!("{host}/team/app").parse().unwrap();
    let error = with_ctx(|ctx| named(Vec::new()).manifest(&reference, ctx)).unwrap_err();
    assert!(error.to_string().contains(&format!("list {host} as insecure")), "{error}");
    assert_eq!(server.requests().iter().filter(|request| request.method == "GET").count(), 0);
    with_ctx(|ctx| named(vec![host]).manifest(&reference, ctx)).unwrap();
}

#[test]
fn options_that_cannot_work_are_refused() {
    let mirror =
        Mirror { location: "https://m.example".into(), insecure: false, serves: Serves::All };
    for options in [
        RegistryOptions { connections: 0, ..quick() },
        RegistryOptions { retries: 0, ..quick() },
        RegistryOptions { mirrors: [("docker.io".into(), vec![mirror])].into(), ..quick() },
    ] {
        let error = Registry::new(options).unwrap_err();
        assert!(matches!(error, RegistryError::Options { .. }), "{error:?}");
    }
}
