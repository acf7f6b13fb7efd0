//! Pushes to a registry that misbehaves: retries, resume, mounts, credentials, cancellation.

use std::io::{Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rbuild_registry::{Pushed, Registry, RegistryError, RegistryOptions, Serves, Upload};
use rbuild_types::{CancelToken, Ctx, Digest, Event, Reference, Silent};

use crate::auth::{Config, ME, unauthorized};
use crate::shelf::{Manner, Shelf};
use crate::support::{FaultyRegistry, Image, Intake, OCI_MANIFEST, Reply, Request, quick};

const MIB: usize = 1 << 20;

fn registry() -> Registry {
    Registry::new(quick()).unwrap()
}

/// Bytes that are not periodic in any power of two.
fn bytes(size: usize) -> Vec<u8> {
    Image::oci(size).layer.to_vec()
}

fn with_ctx<T>(call: impl FnOnce(Ctx<'_>) -> T) -> T {
    call(Ctx::new(&Silent, &CancelToken::default()))
}

fn push(registry: &Registry, to: &Reference, bytes: &[u8]) -> Result<Pushed, RegistryError> {
    push_from(registry, to, bytes, None)
}

fn push_from(
    registry: &Registry,
    to: &Reference,
    bytes: &[u8],
    mount_from: Option<&Reference>,
) -> Result<Pushed, RegistryError> {
    let open = |from: u64| -> std::io::Result<Box<dyn Read + '_>> {
        let mut cursor = Cursor::new(bytes);
        cursor.set_position(from);
        Ok(Box::new(cursor))
    };
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    let upload = Upload { digest, size, mount_from, open: &open };
    with_ctx(|ctx| registry.push_blob(to, &upload, ctx))
}

/// A registry that keeps what it gets.
fn keeping(manner: Manner) -> (Arc<Shelf>, FaultyRegistry) {
    let shelf = Arc::new(Shelf::new(manner));
    let kept = shelf.clone();
    (shelf, FaultyRegistry::start(move |request| kept.reply(request)))
}

/// The same, where `taking` decides on each body.
fn keeping_part(
    manner: Manner,
    taking: impl Fn(&Request) -> Intake + Send + Sync + 'static,
) -> (Arc<Shelf>, FaultyRegistry) {
    let shelf = Arc::new(Shelf::new(manner));
    let kept = shelf.clone();
    (shelf, FaultyRegistry::start_taking(move |request| kept.reply(request), taking))
}

fn methods(server: &FaultyRegistry) -> Vec<String> {
    server.requests().into_iter().map(|request| request.method).collect()
}

/// Bytes of bodies that the server took.
fn taken(server: &FaultyRegistry) -> usize {
    server.requests().iter().map(|request| request.body.len()).sum()
}

#[test]
fn blobs_are_sent_once_and_then_the_manifest() {
    let (shelf, server) = keeping(Manner::Resumes);
    let (registry, to) = (registry(), server.reference("team/app:1.0"));
    for size in [0, 1, 3 * MIB + 17] {
        let blob = bytes(size);
        let digest = Digest::of(&blob);
        assert!(!with_ctx(|ctx| registry.blob_exists(&to, digest, ctx)).unwrap());
        assert_eq!(push(&registry, &to, &blob).unwrap(), Pushed::Uploaded);
        assert_eq!(shelf.blob("team/app", digest).unwrap(), blob);
        assert!(with_ctx(|ctx| registry.blob_exists(&to, digest, ctx)).unwrap());
        assert_eq!(push(&registry, &to, &blob).unwrap(), Pushed::Present);
    }
    assert_eq!(methods(&server).iter().filter(|method| *method == "PUT").count(), 3);

    let manifest = Image::oci(1).manifest;
    let pushed = with_ctx(|ctx| registry.push_manifest(&to, OCI_MANIFEST, &manifest, ctx));
    assert_eq!(pushed.unwrap(), Digest::of(manifest.as_slice()));
    assert_eq!(shelf.manifest("team/app/manifests/1.0").unwrap(), *manifest);
    let sent = server.requests().pop().unwrap();
    assert_eq!(sent.header("content-type"), Some(OCI_MANIFEST));
    let pinned = to.with_digest(Digest::of(manifest.as_slice()));
    with_ctx(|ctx| registry.push_manifest(&pinned, OCI_MANIFEST, &manifest, ctx)).unwrap();
    assert!(shelf.manifest(&format!("team/app/manifests/{}", pinned.digest().unwrap())).is_some());
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let (shelf, server) = keeping(Manner::Resumes);
    let (registry, to) = (registry(), server.reference("team/app"));
    let (there, elsewhere) = (bytes(1000), bytes(2000));
    shelf.put("library/base", &there);
    let base = server.reference("library/base");
    assert_eq!(push_from(&registry, &to, &there, Some(&base)).unwrap(), Pushed::Mounted);
    assert_eq!(taken(&server), 0);
    let mount = |bytes: &[u8], from: &Reference| {
        with_ctx(|ctx| registry.mount_blob(&to, Digest::of(bytes), from, ctx)).unwrap()
    };
    assert!(mount(&there, &base));
    assert!(!mount(&elsewhere, &base));
    assert_eq!(shelf.sessions(), 0, "the session that was not wanted was taken back");
    let asked = server.requests().len();
    assert!(!mount(&there, &"other.example/library/base".parse().unwrap()));
    assert_eq!(server.requests().len(), asked, "no registry mounts from another");
    // What cannot be mounted is sent, in the session that the question began.
    assert_eq!(push_from(&registry, &to, &elsewhere, Some(&base)).unwrap(), Pushed::Uploaded);
    assert_eq!(shelf.blob("team/app", Digest::of(&elsewhere)).unwrap(), elsewhere);
}

#[test]
fn server_errors_twice_then_success() {
    for method in ["HEAD", "POST", "PUT"] {
        let shelf = Shelf::new(Manner::Resumes);
        let count = AtomicUsize::new(0);
        let server = FaultyRegistry::start(move |request| {
            let failing = request.method == method || request.path.contains("/manifests/");
            match failing && count.fetch_add(1, Ordering::SeqCst) < 2 {
                true => Reply::error(500, "UNKNOWN", "oops"),
                false => shelf.reply(request),
            }
        });
        let to = server.reference("team/app:latest");
        assert_eq!(push(&registry(), &to, &bytes(MIB)).unwrap(), Pushed::Uploaded, "{method}");
        let manifest = Image::oci(1).manifest;
        with_ctx(|ctx| registry().push_manifest(&to, OCI_MANIFEST, &manifest, ctx)).unwrap();
    }
}

#[test]
fn retry_after_is_obeyed() {
    let shelf = Shelf::new(Manner::Resumes);
    let count = AtomicUsize::new(0);
    let server = FaultyRegistry::start(move |request| {
        match request.method == "PUT" && count.fetch_add(1, Ordering::SeqCst) == 0 {
            true => Reply::error(429, "TOOMANYREQUESTS", "slow").with("Retry-After", 1),
            false => shelf.reply(request),
        }
    });
    let start = Instant::now();
    push(&registry(), &server.reference("team/app"), &bytes(1000)).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn an_upload_goes_on_where_the_server_says_after_each_of_four_resets() {
    let cuts = AtomicUsize::new(0);
    let (shelf, server) = keeping_part(Manner::Resumes, move |request| {
        match request.method == "PUT" && cuts.fetch_add(1, Ordering::SeqCst) < 4 {
            true => Intake::CutAfter(4 * MIB + 12345),
            false => Intake::All,
        }
    });
    let blob = bytes(24 * MIB);
    push(&registry(), &server.reference("team/app"), &blob).unwrap();
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
    assert_eq!(taken(&server), blob.len(), "nothing twice");
}

#[test]
fn an_upload_begins_anew_where_the_server_forgot_it() {
    let cuts = AtomicUsize::new(0);
    let (shelf, server) = keeping_part(Manner::Forgets, move |request| {
        match request.method == "PUT" && cuts.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Intake::CutAfter(MIB + 1),
            false => Intake::All,
        }
    });
    let blob = bytes(4 * MIB);
    push(&registry(), &server.reference("team/app"), &blob).unwrap();
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
    assert_eq!(methods(&server).iter().filter(|method| *method == "POST").count(), 3);
}

#[test]
fn an_answer_that_got_lost_does_not_cost_a_second_upload() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let server = FaultyRegistry::start(move |request| {
        let reply = kept.reply(request);
        match request.method == "PUT" {
            true => Reply::error(502, "GATEWAY", "lost"),
            false => reply,
        }
    });
    let blob = bytes(MIB);
    assert_eq!(push(&registry(), &server.reference("team/app"), &blob).unwrap(), Pushed::Present);
    assert_eq!(taken(&server), blob.len());
}

#[test]
fn an_endless_series_of_resets_ends() {
    let (_, server) = keeping_part(Manner::Forgets, |request| match request.method.as_str() {
        "PUT" => Intake::CutAfter(MIB),
        _ => Intake::All,
    });
    let error = push(&registry(), &server.reference("team/app"), &bytes(4 * MIB)).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error:?}");
    assert_eq!(methods(&server).iter().filter(|method| *method == "PUT").count(), 5);
}

#[test]
fn a_body_that_is_too_large_is_sent_in_parts() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let server = FaultyRegistry::start(move |request| match request.body.len() > 20 * MIB {
        true => Reply::new(413, "too large"),
        false => kept.reply(request),
    });
    let blob = bytes(40 * MIB);
    push(&registry(), &server.reference("team/app"), &blob).unwrap();
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
    let parts: Vec<_> = server
        .requests()
        .into_iter()
        .filter_map(|request| {
            Some((request.method.clone(), request.header("content-range")?.to_owned()))
        })
        .collect();
    let part =
        |method: &str, from: usize, to: usize| (method.to_owned(), format!("{from}-{}", to - 1));
    assert_eq!(
        parts,
        [
            part("PATCH", 0, 16 * MIB),
            part("PATCH", 16 * MIB, 32 * MIB),
            part("PUT", 32 * MIB, 40 * MIB)
        ]
    );
}

#[test]
fn another_digest_in_the_answer_is_an_error() {
    let shelf = Shelf::new(Manner::Resumes);
    let server = FaultyRegistry::start(move |request| {
        let mut reply = shelf.reply(request);
        reply.headers.retain(|(name, _)| name != "Docker-Content-Digest");
        reply.with("Docker-Content-Digest", Digest::of("other"))
    });
    let (registry, to) = (registry(), server.reference("team/app:latest"));
    let error = push(&registry, &to, &bytes(10)).unwrap_err();
    assert!(matches!(error, RegistryError::Stored { .. }), "{error:?}");
    let error = with_ctx(|ctx| registry.push_manifest(&to, OCI_MANIFEST, b"{}", ctx)).unwrap_err();
    assert!(matches!(error, RegistryError::Stored { .. }), "{error:?}");
    let asked = server.requests().len();
    let pinned = to.pinned(Digest::of("other"));
    let error = with_ctx(|ctx| registry.push_manifest(&pinned, OCI_MANIFEST, b"{}", ctx));
    assert!(matches!(error, Err(RegistryError::Stored { .. })), "{error:?}");
    assert_eq!(server.requests().len(), asked, "nothing is sent that has another name");
}

#[test]
fn a_registry_that_refuses_the_bytes_is_quoted() {
    let shelf = Shelf::new(Manner::Resumes);
    let server = FaultyRegistry::start(move |request| match request.method.as_str() {
        "PUT" => Reply::error(400, "DIGEST_INVALID", "provided digest did not match"),
        _ => shelf.reply(request),
    });
    let error = push(&registry(), &server.reference("team/app"), &bytes(10)).unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert_eq!(methods(&server), ["HEAD", "POST", "PUT"], "it is not asked again");
}

#[test]
fn an_upload_elsewhere_loses_the_authorization() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let store = FaultyRegistry::start(move |request| kept.reply(request));
    let (elsewhere, kept) = (format!("http://{}", store.host()), shelf.clone());
    let server = FaultyRegistry::start(move |request| {
        if request.header("authorization") != Some(&format!("Basic {ME}")) {
            return unauthorized("Basic realm=\"test\"");
        }
        let mut reply = kept.reply(request);
        for (name, value) in &mut reply.headers {
            if name == "Location" {
                *value = format!("{elsewhere}{value}");
            }
        }
        reply
    });
    let config = Config::with_login(&server.host());
    let blob = bytes(MIB);
    push(&config.registry(), &server.reference("team/app"), &blob).unwrap();
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
    assert_eq!(methods(&store), ["PUT"]);
    assert!(!store.saw(ME) && server.saw(ME));
}

#[test]
fn a_redirected_upload_is_sent_again_there_without_the_authorization() {
    let shelf = Arc::new(Shelf::new(Manner::Resumes));
    let kept = shelf.clone();
    let store = FaultyRegistry::start(move |request| kept.reply(request));
    let (elsewhere, kept) = (format!("http://{}", store.host()), shelf.clone());
    let server = FaultyRegistry::start(move |request| {
        if request.header("authorization") != Some(&format!("Basic {ME}")) {
            return unauthorized("Basic realm=\"test\"");
        }
        match request.method == "PUT" {
            true => Reply::new(307, "").with("Location", format!("{elsewhere}{}", request.path)),
            false => kept.reply(request),
        }
    });
    let config = Config::with_login(&server.host());
    let blob = bytes(MIB);
    push(&config.registry(), &server.reference("team/app"), &blob).unwrap();
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
    assert!(!store.saw(ME));
}

#[test]
fn tokens_are_asked_for_what_a_push_needs() {
    let tokens = FaultyRegistry::start(|_| Reply::new(200, r#"{"token":"tok","expires_in":300}"#));
    let realm = format!("http://{}/token", tokens.host());
    let shelf = Shelf::new(Manner::Resumes);
    let server = FaultyRegistry::start(move |request| match request.header("authorization") {
        Some("Bearer tok") => shelf.reply(request),
        // Docker's registry names what this one request needs.
        _ => unauthorized(&format!(
            "Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:team/app:pull\""
        )),
    });
    let (registry, to) = (registry(), server.reference("team/app:latest"));
    push(&registry, &to, &bytes(10)).unwrap();
    with_ctx(|ctx| registry.push_manifest(&to, OCI_MANIFEST, b"{}", ctx)).unwrap();
    let base = server.reference("library/base");
    push_from(&registry, &to, &bytes(20), Some(&base)).unwrap();
    let scopes: Vec<_> = tokens
        .requests()
        .iter()
        .map(|request| request.path.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
        .collect();
    let scope = "/token?service=test&scope=repository:team/app:pull,push";
    assert_eq!(scopes, [scope.to_owned(), format!("{scope}&scope=repository:library/base:pull")]);
}

#[test]
fn pushes_do_not_go_to_mirrors() {
    let (shelf, server) = keeping(Manner::Resumes);
    let mirror = FaultyRegistry::start(|_| Reply::new(200, ""));
    let location =
        rbuild_registry::Mirror { location: mirror.host(), insecure: false, serves: Serves::All };
    let options = RegistryOptions { mirrors: [(server.host(), vec![location])].into(), ..quick() };
    let blob = bytes(10);
    push(&Registry::new(options).unwrap(), &server.reference("team/app"), &blob).unwrap();
    assert!(shelf.blob("team/app", Digest::of(&blob)).is_some());
    assert_eq!(mirror.requests().len(), 0);
}

#[test]
fn a_server_that_stops_reading_is_a_stall_and_cancel_ends_it() {
    let stall = |request: &Request| match request.method.as_str() {
        "PUT" => Intake::StallAfter(1000),
        _ => Intake::All,
    };
    let (_, server) = keeping_part(Manner::Forgets, stall);
    let options = RegistryOptions { idle_timeout: Duration::from_millis(300), ..quick() };
    let (registry, to) = (Registry::new(options).unwrap(), server.reference("team/app"));
    // More than the buffers of a socket hold.
    let blob = bytes(32 * MIB);
    let error = push(&registry, &to, &blob).unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error:?}");
    assert_eq!(methods(&server).iter().filter(|method| *method == "PUT").count(), 2);

    let cancel = CancelToken::default();
    let other = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        other.cancel();
        Instant::now()
    });
    let open = |_| -> std::io::Result<Box<dyn Read + '_>> { Ok(Box::new(blob.as_slice())) };
    let upload = Upload {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        mount_from: None,
        open: &open,
    };
    let patient = Registry::new(quick()).unwrap();
    let result = patient.push_blob(&to, &upload, Ctx::new(&Silent, &cancel));
    let ended = Instant::now();
    assert!(matches!(result, Err(RegistryError::Cancelled(_))), "{result:?}");
    assert!(ended.duration_since(canceller.join().unwrap()) < Duration::from_secs(1));
}

#[test]
fn a_slow_source_is_no_stall_and_one_that_ends_early_is_an_error() {
    struct Slow(Cursor<Vec<u8>>);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() == 0 {
                std::thread::sleep(Duration::from_millis(700));
            }
            self.0.read(buffer)
        }
    }
    let (shelf, server) = keeping(Manner::Resumes);
    let options = RegistryOptions { idle_timeout: Duration::from_millis(200), ..quick() };
    let (registry, to) = (Registry::new(options).unwrap(), server.reference("team/app"));
    let blob = bytes(MIB);
    let open =
        |_| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(Slow(Cursor::new(blob.clone())))) };
    let mut upload =
        Upload { digest: Digest::of(&blob), size: MIB as u64, mount_from: None, open: &open };
    with_ctx(|ctx| registry.push_blob(&to, &upload, ctx)).unwrap();
    assert_eq!(shelf.blob("team/app", upload.digest).unwrap(), blob);
    upload.digest = Digest::of("longer");
    upload.size += 1;
    let error = with_ctx(|ctx| registry.push_blob(&to, &upload, ctx)).unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error:?}");
}

#[test]
fn uploads_at_once_are_limited_and_reported() {
    let running = Arc::new(AtomicUsize::new(0));
    let highest = Arc::new(AtomicUsize::new(0));
    let (now, most, shelf) = (running.clone(), highest.clone(), Shelf::new(Manner::Resumes));
    let server = FaultyRegistry::start(move |request| {
        let putting = usize::from(request.method == "PUT");
        most.fetch_max(now.fetch_add(putting, Ordering::SeqCst) + putting, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        now.fetch_sub(putting, Ordering::SeqCst);
        shelf.reply(request)
    });
    let registry = Registry::new(RegistryOptions { connections: 2, ..quick() }).unwrap();
    let to = server.reference("team/app:latest");
    let blobs: Vec<_> = (1..=6).map(|size| bytes(size * 1000)).collect();
    std::thread::scope(|scope| {
        for blob in &blobs {
            let (registry, to) = (registry.clone(), &to);
            scope.spawn(move || push(&registry, to, blob).unwrap());
        }
    });
    assert!(highest.load(Ordering::SeqCst) <= 2);

    let events = Mutex::new(Vec::new());
    let progress = |event: &Event| {
        if let Event::Transferred { name, bytes, total, done } = event {
            events.lock().unwrap().push((name.clone(), *bytes, *total, *done));
        }
    };
    let blob = bytes(MIB);
    let open = |_| -> std::io::Result<Box<dyn Read + '_>> { Ok(Box::new(blob.as_slice())) };
    let upload =
        Upload { digest: Digest::of(&blob), size: MIB as u64, mount_from: None, open: &open };
    let cancel = CancelToken::default();
    registry.push_blob(&to, &upload, Ctx::new(&progress, &cancel)).unwrap();
    let name = format!("push {}/team/app:latest sha256:{}", server.host(), upload.digest.short());
    let size = MIB as u64;
    assert_eq!(events.lock().unwrap().last(), Some(&(name, size, Some(size), true)));
}

#[test]
fn works_inside_an_async_host() {
    let (shelf, server) = keeping(Manner::Resumes);
    let host = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let blob = bytes(6 * MIB);
    host.block_on(async {
        push(&registry(), &server.reference("team/app"), &blob).unwrap();
    });
    assert_eq!(shelf.blob("team/app", Digest::of(&blob)).unwrap(), blob);
}
