//! Who gets to see which credentials.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rbuild_registry::{
    CredentialSource, Kept, Login, LoginStore, Mirror, Registry, RegistryError, RegistryOptions,
    Secret, Serves,
};
use rbuild_types::{CancelToken, Ctx, Reference, Silent};

use crate::support::{FaultyRegistry, Image, Reply, Request, quick};

/// base64 of `me:hunter2`.
pub const ME: &str = "bWU6aHVudGVyMg==";

/// A `config.json` in a directory that lives as long as the value.
pub struct Config(tempfile::TempDir);

impl Config {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("config.json"), text).unwrap();
        Self(directory)
    }

    /// `me:hunter2` for one host.
    pub fn with_login(host: &str) -> Self {
        Self::new(&format!(r#"{{"auths":{{"{host}":{{"auth":"{ME}"}}}}}}"#))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions {
            credentials: vec![CredentialSource::File(self.file())],
            helper_dir: Some(self.0.path().to_owned()),
            ..quick()
        }
    }

    pub fn registry(&self) -> Registry {
        Registry::new(self.options()).unwrap()
    }
}

fn fetch(registry: &Registry, reference: &Reference) -> Result<Vec<u8>, RegistryError> {
    let cancel = CancelToken::default();
    registry.manifest(reference, Ctx::new(&Silent, &cancel)).map(|manifest| manifest.bytes)
}

fn fetch_layer(
    registry: &Registry,
    reference: &Reference,
    image: &Image,
) -> Result<(), RegistryError> {
    let cancel = CancelToken::default();
    let ctx = Ctx::new(&Silent, &cancel);
    registry.blob(reference, image.layer_digest(), None, &mut Vec::new(), ctx)
}

pub fn unauthorized(challenge: &str) -> Reply {
    Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge)
}

/// Wants `Basic` of `me:hunter2`.
fn basic(image: &Image, request: &Request) -> Reply {
    match request.header("authorization") {
        Some(header) if header == format!("Basic {ME}") => image.reply(request),
        _ => unauthorized("Basic realm=\"test\""),
    }
}

/// Wants the token `tok-N` of `realm`.
fn bearer(image: &Image, request: &Request, realm: &str) -> Reply {
    match request.header("authorization") {
        Some(header) if header.starts_with("Bearer tok") => image.reply(request),
        _ => unauthorized(&format!("Bearer realm=\"{realm}\",service=\"test\"")),
    }
}

/// A token server that wants `authorization`.
fn token_server(authorization: Option<&'static str>) -> FaultyRegistry {
    FaultyRegistry::start(move |request| match request.header("authorization") == authorization {
        true => Reply::new(200, r#"{"token":"tok","expires_in":300}"#),
        false => Reply::error(401, "UNAUTHORIZED", "wrong password"),
    })
}

#[test]
fn basic_credentials_are_sent_when_asked_for_and_remembered() {
    let image = Image::oci(10);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| basic(&served, request));
    let registry = Config::with_login(&server.host()).registry();
    // The configuration is gone with its directory: there are no credentials any more.
    let error = fetch(&registry, &server.reference("team/app")).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("rbuild login {}", server.host())), "{error}");

    let config = Config::with_login(&server.host());
    let registry = config.registry();
    fetch(&registry, &server.reference("team/app")).unwrap();
    fetch_layer(&registry, &server.reference("team/app"), &image).unwrap();
    let sent: Vec<_> = server
        .requests()
        .iter()
        .skip(1)
        .map(|request| request.headers.contains_key("authorization"))
        .collect();
    assert_eq!(sent, [false, true, true]);
}

#[test]
fn each_path_has_its_own_password() {
    let image = Image::oci(10);
    // base64 of me:a and me:b.
    let (a, b) = ("bWU6YQ==", "bWU6Yg==");
    let server = FaultyRegistry::start(move |request| {
        let wanted = if request.path.starts_with("/v2/ta/") { a } else { b };
        let path = request.path.replace("ta/x", "team/app").replace("tb/y", "team/app");
        let known = Request { path, ..request.clone() };
        match request.header("authorization") {
            Some(header) if header == format!("Basic {wanted}") => image.reply(&known),
            Some(_) => Reply::error(403, "DENIED", "somebody else's password"),
            None => unauthorized("Basic realm=\"test\""),
        }
    });
    let host = server.host();
    let config = Config::new(&format!(
        r#"{{"auths":{{"{host}/ta":{{"auth":"{a}"}},"{host}/tb":{{"auth":"{b}"}}}}}}"#
    ));
    let registry = config.registry();
    for name in ["ta/x", "tb/y", "ta/x"] {
        fetch(&registry, &server.reference(name)).unwrap();
    }
}

#[test]
fn wrong_credentials_are_tried_once() {
    let server = FaultyRegistry::start(|_| unauthorized("Basic realm=\"test\""));
    let config = Config::with_login(&server.host());
    let error = fetch(&config.registry(), &server.reference("team/app")).unwrap_err().to_string();
    assert_eq!(server.requests().len(), 2);
    assert!(error.contains("stored credentials (me)") && error.contains("UNAUTHORIZED"), "{error}");
    assert!(!error.contains("hunter2") && !error.contains(ME), "{error}");
}

#[test]
fn an_anonymous_token_comes_first_when_there_are_no_credentials() {
    let tokens = token_server(None);
    let realm = format!("http://{}/token?x=1", tokens.host());
    let image = Image::oci(10);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| bearer(&served, request, &realm));
    let registry = Registry::new(quick()).unwrap();
    let reference = server.reference("team/app");
    fetch(&registry, &reference).unwrap();
    fetch_layer(&registry, &reference, &image).unwrap();
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1, "the token is used again");
    assert_eq!(asked[0].path, "/token?x=1&service=test&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn credentials_buy_a_token_and_stay_off_the_registry() {
    let tokens = token_server(Some("Basic bWU6aHVudGVyMg=="));
    let realm = format!("http://{}/token", tokens.host());
    let image = Image::oci(10);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| bearer(&served, request, &realm));
    let config = Config::with_login(&server.host());
    let registry = config.registry();
    let reference = server.reference("team/app");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fetch_layer(&registry, &reference, &image).unwrap());
        }
    });
    assert_eq!(tokens.requests().len(), 1, "parallel requests share the token");
    assert!(!server.saw(ME));
}

#[test]
fn an_identity_token_is_posted() {
    let tokens = FaultyRegistry::start(|request| {
        let good = request.method == "POST"
            && request.text().contains("refresh_token=idtoken")
            && request.text().contains("grant_type=refresh_token");
        if good { Reply::new(200, r#"{"access_token":"tok"}"#) } else { Reply::new(400, "") }
    });
    let realm = format!("http://{}/token", tokens.host());
    let image = Image::oci(10);
    let server = FaultyRegistry::start(move |request| bearer(&image, request, &realm));
    let config = Config::new(&format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"idtoken"}}}}}}"#,
        server.host()
    ));
    fetch(&config.registry(), &server.reference("team/app")).unwrap();
    assert!(!server.saw("idtoken"));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let issued = count.clone();
    let tokens = FaultyRegistry::start(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst);
        Reply::new(200, format!(r#"{{"token":"tok-{number}"}}"#))
    });
    let realm = format!("http://{}/token", tokens.host());
    let image = Image::oci(10);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        // The first token has been revoked by the time of the blob.
        if request.is_blob() && request.header("authorization") == Some("Bearer tok-0") {
            return unauthorized(&format!("Bearer realm=\"{realm}\""));
        }
        bearer(&served, request, &realm)
    });
    let registry = Registry::new(quick()).unwrap();
    fetch(&registry, &server.reference("team/app")).unwrap();
    fetch_layer(&registry, &server.reference("team/app"), &image).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// A registry under a public-looking name, so that loopback's exceptions do not apply.
struct Named {
    server: FaultyRegistry,
    name: &'static str,
}

impl Named {
    fn host(&self) -> String {
        format!("{}:{}", self.name, self.server.address.port())
    }

    fn options(&self, config: &Config, others: &[&Named]) -> RegistryOptions {
        let all = || others.iter().copied().chain([self]);
        RegistryOptions {
            resolve: all().map(|named| (named.name.to_owned(), named.server.address)).collect(),
            insecure: all().map(Named::host).collect(),
            ..config.options()
        }
    }
}

#[test]
fn a_token_server_on_another_site_does_not_get_the_password() {
    let tokens = token_server(None);
    for realm in [
        format!("http://token.other.test:{}/token", tokens.address.port()),
        format!("http://{}/token", tokens.host()),
        "http://169.254.169.254/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://[::1]/token".to_owned(),
    ] {
        let image = Image::oci(1);
        let server = FaultyRegistry::start(move |request| bearer(&image, request, &realm));
        let named = Named { server, name: "r.example.test" };
        let config = Config::with_login(&named.host());
        let mut options = named.options(&config, &[]);
        options.resolve.insert("token.other.test".to_owned(), tokens.address);
        let reference: Reference = format!("{}/team/app", named.host()).parse().unwrap();
        let error = fetch(&Registry::new(options).unwrap(), &reference).unwrap_err();
        assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
    }
    assert_eq!(tokens.requests().len(), 0);
}

#[test]
fn a_token_server_on_the_same_site_or_a_listed_one_does() {
    let tokens = token_server(Some("Basic bWU6aHVudGVyMg=="));
    let port = tokens.address.port();
    for (token_host, listed) in
        [("auth.example.test", None), ("login.other.test", Some("login.other.test".to_owned()))]
    {
        let realm = format!("http://{token_host}:{port}/token");
        let image = Image::oci(1);
        let server = FaultyRegistry::start(move |request| bearer(&image, request, &realm));
        let named = Named { server, name: "r.example.test" };
        let config = Config::with_login(&named.host());
        let mut options = named.options(&config, &[]);
        options.resolve.insert(token_host.to_owned(), tokens.address);
        options.token_hosts = [(named.host(), listed.into_iter().collect())].into();
        let reference: Reference = format!("{}/team/app", named.host()).parse().unwrap();
        fetch(&Registry::new(options).unwrap(), &reference).unwrap();
    }
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_token_server_that_redirects_is_refused() {
    let thief = FaultyRegistry::start(|_| Reply::new(200, r#"{"token":"tok"}"#));
    let to = format!("http://{}/", thief.host());
    let tokens = FaultyRegistry::start(move |_| Reply::new(307, "").with("Location", &to));
    let realm = format!("http://{}/token", tokens.host());
    let image = Image::oci(1);
    let server = FaultyRegistry::start(move |request| bearer(&image, request, &realm));
    let config = Config::with_login(&server.host());
    let error = fetch(&config.registry(), &server.reference("team/app")).unwrap_err();
    assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
    assert_eq!(thief.requests().len(), 0);
}

#[test]
fn a_redirect_to_another_origin_loses_the_authorization_for_good() {
    let image = Image::oci(100_000);
    let content = image.layer.clone();
    let path = format!("/v2/team/app/blobs/{}", image.layer_digest());
    // The content server bounces the first request back to the registry.
    let back = Arc::new(std::sync::OnceLock::<String>::new());
    let (target, bounce) = (back.clone(), format!("{path}-again"));
    let cdn = FaultyRegistry::start(move |request| match request.path.as_str() {
        "/bounce" => {
            Reply::new(302, "").with("Location", format!("{}{bounce}", target.get().unwrap()))
        }
        _ => Reply { body: content.clone(), ..Reply::new(200, "") },
    });
    let cdn_url = format!("http://{}", cdn.host());
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| {
        if request.path.ends_with("-again") {
            return Reply::new(307, "").with("Location", format!("{cdn_url}/blob?signature=x"));
        }
        match basic(&served, request) {
            reply if reply.status == 200 && request.is_blob() => {
                Reply::new(307, "").with("Location", format!("{cdn_url}/bounce"))
            }
            reply => reply,
        }
    });
    back.set(format!("http://{}", server.host())).unwrap();
    let config = Config::with_login(&server.host());
    fetch_layer(&config.registry(), &server.reference("team/app"), &image).unwrap();
    assert_eq!(cdn.requests().len(), 2);
    assert!(!cdn.saw("Basic") && !cdn.saw(ME));
    let again = server.requests().into_iter().find(|request| request.path.ends_with("-again"));
    assert_eq!(again.unwrap().header("authorization"), None);
}

#[test]
fn a_401_from_a_content_server_gets_no_credentials() {
    let image = Image::oci(10);
    let cdn = FaultyRegistry::start(|_| unauthorized("Basic realm=\"give\""));
    let cdn_url = format!("http://{}/blob", cdn.host());
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| match basic(&served, request) {
        reply if reply.status == 200 => Reply::new(307, "").with("Location", &cdn_url),
        reply => reply,
    });
    let config = Config::with_login(&server.host());
    fetch_layer(&config.registry(), &server.reference("team/app"), &image).unwrap_err();
    assert_eq!(cdn.requests().len(), 1);
    assert!(!cdn.saw("Basic"));
}

#[test]
fn a_mirror_does_not_get_the_registrys_credentials() {
    let mirror = FaultyRegistry::start(|_| unauthorized("Basic realm=\"give\""));
    let image = Image::oci(10);
    let server = FaultyRegistry::start(move |request| basic(&image, request));
    let config = Config::with_login(&server.host());
    let mirrors = vec![Mirror { location: mirror.host(), insecure: true, serves: Serves::All }];
    let options =
        RegistryOptions { mirrors: [(server.host(), mirrors)].into(), ..config.options() };
    fetch(&Registry::new(options).unwrap(), &server.reference("team/app")).unwrap();
    assert_eq!(mirror.requests().len(), 1);
    assert!(!mirror.saw("Basic"));
}

fn install_helper(config: &Config, name: &str, script: &str) {
    let path = config.0.path().join(format!("docker-credential-{name}"));
    let text = config.0.path().join("script");
    fs_err::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs_err::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Copied by a child: were the program ever open for writing in this process, another test's
    // fork could hold that descriptor, and the kernel would refuse to run it.
    let copied = std::process::Command::new("cp").arg("-p").args([&text, &path]).status().unwrap();
    assert!(copied.success());
}

#[test]
fn helpers_give_credentials_and_only_a_named_one_is_fatal() {
    let image = Image::oci(10);
    let served = image.clone();
    let server = FaultyRegistry::start(move |request| basic(&served, request));
    let reference = server.reference("team/app");
    let host = server.host();
    let good = r#"cat > /dev/null; echo '{"Username":"me","Secret":"hunter2"}'"#;
    for json in
        [format!(r#"{{"credHelpers":{{"{host}":"t"}}}}"#), r#"{"credsStore":"t"}"#.to_owned()]
    {
        let config = Config::new(&json);
        install_helper(&config, "t", good);
        fetch(&config.registry(), &reference).unwrap();
    }
    let config = Config::new(&format!(r#"{{"credHelpers":{{"{host}":"t"}}}}"#));
    install_helper(&config, "t", "cat > /dev/null; echo no keyring; exit 1");
    let error = fetch(&config.registry(), &reference).unwrap_err();
    assert!(matches!(error, RegistryError::Helper { .. }), "{error:?}");
    assert!(error.to_string().contains("no keyring"), "{error}");

    let config = Config::new(r#"{"credsStore":"missing-one"}"#);
    let error = fetch(&config.registry(), &reference).unwrap_err().to_string();
    assert!(error.contains("docker-credential-missing-one (credsStore) failed"), "{error}");
}

#[test]
fn a_hanging_helper_ends_with_the_call() {
    let server = FaultyRegistry::start(|_| unauthorized("Basic realm=\"x\""));
    let config = Config::new(&format!(r#"{{"credHelpers":{{"{}":"t"}}}}"#, server.host()));
    let mark = config.0.path().join("pid");
    install_helper(&config, "t", &format!("echo $$ > {}; sleep 100", mark.display()));
    let cancel = CancelToken::default();
    let other = cancel.clone();
    let seen = mark.clone();
    let canceller = std::thread::spawn(move || {
        while !seen.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        other.cancel();
    });
    let ctx = Ctx::new(&Silent, &cancel);
    let error = config.registry().manifest(&server.reference("team/app"), ctx).unwrap_err();
    assert!(matches!(error, RegistryError::Cancelled(_)), "{error:?}");
    canceller.join().unwrap();
    let pid = fs_err::read_to_string(&mark).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while process.exists() {
        assert!(std::time::Instant::now() < deadline, "the helper outlived the call");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_broken_configuration_is_an_error_without_its_text() {
    let server = FaultyRegistry::start(|_| unauthorized("Basic realm=\"x\""));
    let config = Config::new(r#"{"auths":{"x":{"auth":["hunter2"]}}}"#);
    let error = fetch(&config.registry(), &server.reference("team/app")).unwrap_err().to_string();
    assert!(error.contains("config.json") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_file_that_nobody_named_does_not_forbid_what_is_public() {
    let image = Image::oci(10);
    let served = image.clone();
    let open = FaultyRegistry::start(move |request| served.reply(request));
    let guarded = FaultyRegistry::start(move |request| basic(&image, request));
    let anonymous = FaultyRegistry::start(|_| unauthorized("Basic realm=\"test\""));
    let config = Config::with_login(&guarded.host());
    let directory = config.0.path().to_owned();
    let with = |first| {
        let credentials = vec![first, CredentialSource::File(config.file())];
        Registry::new(RegistryOptions { credentials, ..config.options() }).unwrap()
    };
    // A directory cannot be read as a file, not even by root.
    let usual = || with(CredentialSource::Usual(directory.clone()));
    fetch(&usual(), &open.reference("team/app")).unwrap();
    fetch(&usual(), &guarded.reference("team/app")).unwrap();
    let error = fetch(&usual(), &anonymous.reference("team/app")).unwrap_err();
    assert!(error.to_string().contains(&directory.display().to_string()), "{error}");
    let named = with(CredentialSource::File(directory.clone()));
    let error = fetch(&named, &guarded.reference("team/app")).unwrap_err();
    assert!(matches!(error, RegistryError::Config { .. }), "{error:?}");
}

#[test]
fn a_login_given_for_a_name_counts_where_its_registry_really_is() {
    let image = Image::oci(10);
    let server = FaultyRegistry::start(move |request| basic(&image, request));
    let text = format!("[[registry]]\nprefix = 'q.example'\nlocation = '{}'", server.host());
    let reference: Reference = "q.example/team/app".parse().unwrap();
    let stored = Config::with_login("q.example");
    let fetched = |mut options: RegistryOptions| {
        options.registries.add("/etc/x.conf".as_ref(), &text).unwrap();
        fetch(&Registry::new(options).unwrap(), &reference)
    };
    for host in ["q.example".to_owned(), server.host()] {
        let logins = [(host, login("me", "hunter2"))].into();
        fetched(RegistryOptions { logins, ..quick() }).unwrap();
    }
    let error = fetched(stored.options()).unwrap_err();
    assert!(error.to_string().contains(&format!("rbuild login {}", server.host())), "{error}");
}

fn login(user: &str, password: &str) -> Login {
    Login { user: user.to_owned(), password: Secret::new(password) }
}

impl Config {
    fn log_in(&self, server: &str, login: &Login) -> Result<Kept, RegistryError> {
        let cancel = CancelToken::default();
        let options = self.options();
        let store = LoginStore { file: &self.file(), options: &options };
        store.log_in(server, login, Ctx::new(&Silent, &cancel))
    }

    fn log_out(&self, server: &str) -> bool {
        let cancel = CancelToken::default();
        let options = self.options();
        let store = LoginStore { file: &self.file(), options: &options };
        let forgotten = store.log_out(server, Ctx::new(&Silent, &cancel)).unwrap();
        assert!(forgotten.kept_by_helper.is_none());
        forgotten.found
    }

    fn text(&self) -> String {
        fs_err::read_to_string(self.file()).unwrap()
    }
}

/// Wants `Basic` of `me:hunter2` also at the beginning of the API.
fn guarded(image: &Image) -> FaultyRegistry {
    let image = image.clone();
    FaultyRegistry::start_at_the_root(move |request| {
        match (basic(&image, request), request.path.as_str()) {
            (reply, "/v2/") if reply.status != 401 => Reply::new(200, "{}"),
            (reply, _) => reply,
        }
    })
}

#[test]
fn a_login_is_tried_and_kept_and_forgotten() {
    let image = Image::oci(10);
    let server = guarded(&image);
    let config = Config::new("{\"zeta\": [ 1 ]}");
    let error = config.log_in(&server.host(), &login("me", "wrong")).unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error:?}");
    assert!(error.to_string().contains(&server.host()), "{error}");
    assert_eq!(config.text(), "{\"zeta\": [ 1 ]}", "nothing changed");

    let kept = config.log_in(&server.host(), &login("me", "hunter2")).unwrap();
    assert_eq!(kept, Kept::InFile);
    assert!(config.text().contains(ME) && config.text().contains("[ 1 ]"), "{}", config.text());
    let registry = config.registry();
    fetch(&registry, &server.reference("team/app")).unwrap();

    assert!(config.log_out(&server.host()));
    assert!(!config.log_out(&server.host()));
    assert!(!config.text().contains(ME), "{}", config.text());
    fetch(&config.registry(), &server.reference("team/app")).unwrap_err();
}

#[test]
fn a_login_buys_a_token_unless_its_server_is_elsewhere() {
    let tokens = token_server(Some("Basic bWU6aHVudGVyMg=="));
    let realm = format!("http://{}/token", tokens.host());
    let server =
        FaultyRegistry::start_at_the_root(move |request| match request.header("authorization") {
            Some("Bearer tok") => Reply::new(200, "{}"),
            _ => unauthorized(&format!("Bearer realm=\"{realm}\",service=\"test\"")),
        });
    let config = Config::new("{}");
    config.log_in(&server.host(), &login("me", "hunter2")).unwrap();
    let error = config.log_in(&server.host(), &login("me", "wrong")).unwrap_err();
    assert!(matches!(error, RegistryError::LoginRefused { .. }), "{error:?}");
    assert!(!server.saw(ME));

    // Anonymous tokens let everybody in, which says nothing about the password.
    let tokens = token_server(None);
    let realm = format!("http://token.other.test:{}/token", tokens.address.port());
    let server =
        FaultyRegistry::start_at_the_root(move |request| match request.header("authorization") {
            Some("Bearer tok") => Reply::new(200, "{}"),
            _ => unauthorized(&format!("Bearer realm=\"{realm}\",service=\"test\"")),
        });
    let named = Named { server, name: "r.example.test" };
    let config = Config::new("{}");
    let mut options = named.options(&config, &[]);
    options.resolve.insert("token.other.test".to_owned(), tokens.address);
    let cancel = CancelToken::default();
    let store = LoginStore { file: &config.file(), options: &options };
    let error = store
        .log_in(&named.host(), &login("me", "hunter2"), Ctx::new(&Silent, &cancel))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Token { .. }), "{error:?}");
    assert_eq!(config.text(), "{}");
}

#[test]
fn a_helper_keeps_the_login_where_one_is_named() {
    let server = guarded(&Image::oci(10));
    for named in
        [format!(r#""credHelpers":{{"{}":"t"}}"#, server.host()), r#""credsStore":"t""#.into()]
    {
        let config = Config::new(&format!("{{{named}}}"));
        let (memory, me) = (config.0.path().join("memory"), login("me", "hunter2"));
        let memory = memory.display();
        let script = format!(
            "case $1 in store) cat > {memory};; erase) rm {memory};; \
             get) cat > /dev/null; test -f {memory} && cat {memory} && exit; \
             echo credentials not found in native keychain; exit 1;; esac"
        );
        install_helper(&config, "t", &script);
        let kept = config.log_in(&server.host(), &me).unwrap();
        assert_eq!(kept, Kept::ByHelper("t".to_owned()));
        assert!(!config.text().contains(ME) && config.text().contains(&server.host()));
        fetch(&config.registry(), &server.reference("team/app")).unwrap();
        assert!(config.log_out(&server.host()));
        assert!(!config.log_out(&server.host()));

        install_helper(&config, "t", "cat > /dev/null; echo the keyring is locked; exit 1");
        let error = config.log_in(&server.host(), &me).unwrap_err().to_string();
        assert!(error.contains("the keyring is locked") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_login_in_the_file_is_forgotten_although_the_helper_is_broken() {
    let config = Config::new(&format!(
        r#"{{"auths":{{"r.example":{{"auth":"{ME}"}}}},"credsStore":"no-such-helper"}}"#
    ));
    let (file, options) = (config.file(), config.options());
    let store = LoginStore { file: &file, options: &options };
    let cancel = CancelToken::default();
    let forgotten = store.log_out("r.example", Ctx::new(&Silent, &cancel)).unwrap();
    assert!(forgotten.found && !config.text().contains(ME), "{}", config.text());
    assert!(matches!(forgotten.kept_by_helper, Some(RegistryError::Helper { .. })));
    store.log_out("r.example", Ctx::new(&Silent, &cancel)).unwrap_err();
}

#[test]
fn a_helper_that_hangs_while_keeping_is_stopped() {
    let server = guarded(&Image::oci(10));
    let config = Config::new(r#"{"credsStore":"t"}"#);
    install_helper(&config, "t", "sleep 100");
    let options = RegistryOptions {
        helper_timeout: std::time::Duration::from_millis(300),
        ..config.options()
    };
    let cancel = CancelToken::default();
    let store = LoginStore { file: &config.file(), options: &options };
    let ctx = Ctx::new(&Silent, &cancel);
    let error = store.log_in(&server.host(), &login("me", "hunter2"), ctx).unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[test]
fn the_first_source_with_credentials_counts_and_a_path_before_its_host() {
    let image = Image::oci(10);
    let server = FaultyRegistry::start(move |request| basic(&image, request));
    let (host, reference) = (server.host(), server.reference("team/app"));
    let entry = |key: &str, auth: &str| format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#);
    let wrong = "bWU6d3Jvbmc=";
    let good = Config::new(&entry(&host, ME));
    let text = |text: String| CredentialSource::Text {
        name: "DOCKER_AUTH_CONFIG".to_owned(),
        text: Secret::new(text),
    };
    let with = |credentials| {
        let options = RegistryOptions { credentials, ..good.options() };
        fetch(&Registry::new(options).unwrap(), &reference)
    };
    let file = || CredentialSource::File(good.file());
    with(vec![CredentialSource::File("/nowhere/auth.json".into()), text("{}".into()), file()])
        .unwrap();
    with(vec![text(entry(&host, wrong)), file()]).unwrap_err();
    with(vec![text(entry(&format!("{host}/other"), wrong)), file()]).unwrap();
    let scoped =
        format!(r#"{{"auths":{{"{host}":{{"auth":"{wrong}"}},"{host}/team":{{"auth":"{ME}"}}}}}}"#);
    with(vec![text(scoped)]).unwrap();
    let error = with(vec![text("hunter2".into())]).unwrap_err().to_string();
    assert!(error.contains("DOCKER_AUTH_CONFIG") && !error.contains("hunter2"), "{error}");
    assert!(!format!("{:?}", text("hunter2".into())).contains("hunter2"));

    // What the caller gives is for its host only, and before all that is stored.
    for (given, ok) in [(&host, true), (&"other.example".to_owned(), false)] {
        let options = RegistryOptions {
            logins: [(given.clone(), login("me", "hunter2"))].into(),
            credentials: vec![text(entry(&host, wrong))],
            ..quick()
        };
        assert_eq!(fetch(&Registry::new(options).unwrap(), &reference).is_ok(), ok, "{given}");
    }
}
