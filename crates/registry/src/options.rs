//! Everything that the client may be told. The caller reads flags, files and the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::network::Network;
use crate::place::split_location;
use crate::{Login, RegistriesConf, RegistryError, Secret};

/// How to reach registries.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Why no registry may be asked, if so: what the machine says of them cannot be understood, and
    /// who guessed might ask the wrong one.
    pub problem: Option<String>,
    /// Who we are, by registry host; what is here is not looked for in `credentials`.
    pub logins: BTreeMap<String, Login>,
    /// Where credentials are looked for; the first that has any for a place counts. Files are read
    /// again whenever a registry asks for credentials, so that a login takes effect at once.
    pub credentials: Vec<CredentialSource>,
    /// Directory in which credential helpers are looked for before `PATH`.
    pub helper_dir: Option<PathBuf>,
    /// Registry host (such as `docker.io`) to the mirrors that are tried, in this order, before
    /// those of `registries` and the registry itself.
    pub mirrors: BTreeMap<String, Vec<Mirror>>,
    /// What the machine's files say about registries.
    pub registries: RegistriesConf,
    /// `host[:port]` of registries that need not prove who they are, and may be spoken to in plain
    /// HTTP where they do not speak TLS; also networks such as `10.0.0.0/8`. Loopback always may, but has to prove it in TLS.
    pub insecure: Vec<String>,
    /// Whether registries have to prove who they are; else all are as if they were in `insecure`.
    pub tls_verify: bool,
    /// Registry host to further hosts whose token servers may see that registry's password.
    /// Needed only when the token server is on another site than the registry.
    pub token_hosts: BTreeMap<String, Vec<String>>,
    /// Directories like `/etc/docker/certs.d`: `HOST[:PORT]/*.crt` there are trusted, besides the
    /// system's roots, when speaking to that host, and `NAME.cert` with `NAME.key` shown to it.
    pub certs_dirs: Vec<PathBuf>,
    /// A directory with such files for every host; then `certs_dirs` is not looked at.
    pub cert_dir: Option<PathBuf>,
    /// Files in OpenSSH's format with the keys of SSH servers. Any of them may be missing; no other
    /// server is spoken to.
    pub known_hosts: Vec<PathBuf>,
    /// Proxies. None by default: the environment is the caller's to read.
    pub proxies: Proxies,
    /// Host name (without port) to the address that is used instead of asking DNS.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// Blobs fetched at once from one registry host. Default 4, as BuildKit does.
    pub connections: usize,
    /// Tries per request, the first included; progress on a blob starts the count again.
    /// Default 5.
    pub retries: u32,
    /// Wait before the second try; doubles with each further one. Default 1 s.
    pub backoff: Duration,
    /// Longest wait between tries. Default 8 s.
    pub backoff_max: Duration,
    /// Longest `Retry-After` that is obeyed; when a registry asks for more, the call fails at
    /// once and says so. Default 60 s.
    pub retry_after_max: Duration,
    /// Limit for opening a connection, TLS included. Default 30 s.
    pub connect_timeout: Duration,
    /// Limit for the first byte of an answer. Default 60 s.
    pub answer_timeout: Duration,
    /// A body that brings less than [`RegistryOptions::idle_rate`] over this time has stalled.
    /// Stalls are tried again once. Default 30 s.
    pub idle_timeout: Duration,
    /// Slowest acceptable body, bytes per second. Default 1 KiB/s.
    pub idle_rate: u64,
    /// Limit for a credential helper. Default 60 s.
    pub helper_timeout: Duration,
    /// Sent as `User-Agent`.
    pub user_agent: String,
}

/// Another place that serves a registry's repositories under the same paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `host[:port][/prefix]`; the repository's path is appended.
    pub location: String,
    /// Whether it is as if its host were in [`RegistryOptions::insecure`].
    pub insecure: bool,
    /// What it is asked for.
    pub serves: Serves,
}

/// Which manifests a mirror is asked for. Blobs, which have digests, every mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serves {
    /// Tags and digests.
    #[default]
    All,
    /// Digests: whoever wrote the name trusts the mirror with nothing.
    Digests,
    /// Tags.
    Tags,
}

/// A text in the form of Docker's `config.json` and podman's `auth.json`.
#[derive(Clone)]
pub enum CredentialSource {
    /// A file, which may be missing.
    File(PathBuf),
    /// A file that nobody has named, where tools keep it. If it cannot be used, what is public can
    /// be fetched all the same; an error about anything else says why.
    Usual(PathBuf),
    /// The text itself.
    Text {
        /// What errors call it.
        name: String,
        /// It holds passwords.
        text: Secret,
    },
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Usual(path) => f.debug_tuple("Usual").field(path).finish(),
            Self::Text { name, .. } => f.debug_tuple("Text").field(name).finish(),
        }
    }
}

/// HTTP proxies, in the meaning of curl's variables of the same names.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// URL of the proxy for `http://` registries.
    pub http: Option<String>,
    /// URL of the proxy for `https://` registries.
    pub https: Option<String>,
    /// Comma list of hosts that are reached directly. Loopback always is.
    pub none: Option<String>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            problem: None,
            logins: BTreeMap::new(),
            credentials: Vec::new(),
            helper_dir: None,
            mirrors: BTreeMap::new(),
            registries: RegistriesConf::default(),
            insecure: Vec::new(),
            token_hosts: BTreeMap::new(),
            tls_verify: true,
            certs_dirs: Vec::new(),
            cert_dir: None,
            known_hosts: Vec::new(),
            proxies: Proxies::default(),
            resolve: BTreeMap::new(),
            connections: 4,
            retries: 5,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(8),
            retry_after_max: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(30),
            idle_rate: 1024,
            helper_timeout: Duration::from_secs(60),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl RegistryOptions {
    /// Refuses what could only fail later, in the middle of a pull.
    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        if let Some(problem) = &self.problem {
            return Err(RegistryError::Unusable { problem: problem.clone() });
        }
        let refuse = |option, value: &str, reason| {
            Err(RegistryError::Options { option, value: value.to_owned(), reason })
        };
        if self.connections == 0 {
            return refuse("connections", "0", "at least one connection is needed");
        }
        if self.retries == 0 {
            return refuse("retries", "0", "the first try counts, so at least one is needed");
        }
        for mirror in self.mirrors.values().flatten() {
            if split_location(&mirror.location).is_none() {
                return refuse("mirrors", &mirror.location, "expected host[:port][/prefix]");
            }
        }
        for listed in &self.insecure {
            if listed.contains('/') && listed.parse::<Network>().is_err() {
                let reason = "expected host[:port], or a network such as 10.0.0.0/8";
                return refuse("insecure", listed, reason);
            }
        }
        for proxy in [&self.proxies.http, &self.proxies.https].into_iter().flatten() {
            // The URL may hold a password: the error must not repeat it.
            if reqwest::Proxy::all(proxy.as_str()).is_err() {
                return refuse("proxies", "(not shown)", "not a proxy URL");
            }
        }
        if reqwest::header::HeaderValue::from_str(&self.user_agent).is_err() {
            return refuse("user_agent", &self.user_agent, "not a header value");
        }
        Ok(())
    }
}
