//! Reads Docker's `config.json`: which credentials, or which helper, belong to a registry.
//! podman's `auth.json` has the same form.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer};

use super::credential::{Credential, Login, Secret};
use crate::RegistryError;
use crate::options::CredentialSource;

/// Docker Hub's key in `auths` and towards helpers, from the time of its first API.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Largest file, bytes.
const MAX_CONFIG: u64 = 4 << 20;
/// Docker writes padding, other tools may not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The part of `config.json` that is about credentials. Other fields are passed over.
#[derive(Deserialize, Default)]
pub(super) struct ConfigJson {
    #[serde(default, deserialize_with = "null_is_default")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers", deserialize_with = "null_is_default")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore", deserialize_with = "null_is_default")]
    store: String,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Entry {
    #[serde(deserialize_with = "null_is_default")]
    auth: String,
    #[serde(deserialize_with = "null_is_default")]
    username: String,
    #[serde(deserialize_with = "null_is_default")]
    password: String,
    #[serde(deserialize_with = "null_is_default")]
    identitytoken: String,
    #[serde(deserialize_with = "null_is_default")]
    registrytoken: String,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads and parses what is there.
pub(super) fn read(source: &CredentialSource) -> Result<ConfigJson, RegistryError> {
    match source {
        CredentialSource::File(path) | CredentialSource::Usual(path) => match read_file(path)? {
            Some(bytes) => parse(&bytes).map_err(failed(path)),
            None => Ok(ConfigJson::default()),
        },
        CredentialSource::Text { name, text } => {
            parse(text.expose().as_bytes()).map_err(failed(Path::new(name)))
        }
    }
}

/// The bytes of a configuration, if there is one.
pub(super) fn read_file(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    let failed = failed(path);
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed(format!("cannot open it ({})", error.kind()))),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(format!("cannot read it ({})", error.kind())))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(failed(format!("it is larger than {MAX_CONFIG} bytes")));
    }
    Ok(Some(bytes))
}

/// An error about the configuration at `path`.
pub(super) fn failed(path: &Path) -> impl Fn(String) -> RegistryError + '_ {
    |reason| RegistryError::Config { path: path.to_owned(), reason }
}

/// Parses the file's text. The error never repeats any of it, since it holds passwords.
pub(super) fn parse(bytes: &[u8]) -> Result<ConfigJson, String> {
    serde_json::from_slice(bytes).map_err(|error| without_text(&error))
}

/// Where a parser failed, without what stands there.
pub(super) fn without_text(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_data() { "a field has the wrong type" } else { "it is not JSON" };
    format!("{what} (line {line}, column {column})")
}

impl ConfigJson {
    /// The helper named for this very host, and what to ask it.
    pub(super) fn helper<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let name = keys(host).into_iter().find_map(|key| self.helpers.get(key))?;
        (!name.is_empty()).then_some((name.as_str(), server(host)))
    }

    /// The helper for all hosts, and what to ask it about `host`.
    pub(super) fn store<'a>(&'a self, host: &'a str) -> Option<(&'a str, &'a str)> {
        (!self.store.is_empty()).then_some((self.store.as_str(), server(host)))
    }

    /// The credentials for a part of the repository's path, such as `quay.io/team`: the longest.
    pub(super) fn of_path(&self, host: &str, repository: &str) -> Option<Credential> {
        let mut path = Some(repository);
        while let Some(current) = path {
            let wanted = format!("{host}/{current}");
            if let Some(found) = self.entry(|key| normalized(key) == wanted) {
                return Some(found);
            }
            path = current.rsplit_once('/').map(|(parent, _)| parent);
        }
        None
    }

    /// The credentials for all of `host`.
    pub(super) fn of_host(&self, host: &str) -> Option<Credential> {
        self.entry(|key| is_key_of(key, host))
    }

    fn entry(&self, fits: impl Fn(&str) -> bool) -> Option<Credential> {
        let mut fitting = self.auths.iter().filter(|(key, _)| fits(key));
        fitting.find_map(|(_, entry)| entry.credential())
    }
}

/// Names under which people and tools store the credentials of `host`.
fn keys(host: &str) -> Vec<&str> {
    match host {
        "docker.io" => vec![DOCKER_HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"],
        host => vec![host],
    }
}

/// Whether the credentials of `host` are stored under `key`.
pub(super) fn is_key_of(key: &str, host: &str) -> bool {
    keys(host).into_iter().any(|known| normalized(known) == normalized(key))
}

/// What `host` is called in `auths` and towards helpers.
pub(super) fn server(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB_KEY } else { host }
}

/// `host[:port][/path]` of a key; API versions after the host are no path.
fn normalized(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare)
}

impl Entry {
    /// `None` for the empty entries that Docker leaves behind when a helper keeps the secret.
    fn credential(&self) -> Option<Credential> {
        if !self.registrytoken.is_empty() {
            return Some(Credential::RegistryToken(Secret::new(&self.registrytoken)));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credential::IdentityToken(Secret::new(&self.identitytoken)));
        }
        if !self.username.is_empty() {
            let password = Secret::new(&self.password);
            return Some(Credential::of(Login { user: self.username.clone(), password }));
        }
        let decoded = BASE64.decode(self.auth.trim()).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (user, password) = text.split_once(':')?;
        // Old Docker versions padded with zero bytes.
        let password = Secret::new(password.trim_matches('\0'));
        (!user.is_empty()).then(|| Credential::of(Login { user: user.to_owned(), password }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn user(json: &str, host: &str, repository: &str) -> Option<String> {
        let config = parse(json.as_bytes()).unwrap();
        let found = config.of_path(host, repository).or_else(|| config.of_host(host));
        found.map(|found| found.shown())
    }

    #[test]
    fn keys_of_the_field_are_found() {
        // "bWU6cGFzczp3b3Jk" is me:pass:word.
        let auth = r#"{"auth":"bWU6cGFzczp3b3Jk"}"#;
        for key in ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v2/"] {
            let json = format!(r#"{{"auths":{{"{key}":{auth}}}}}"#);
            assert_eq!(
                user(&json, "r.example:5000", "a").as_deref(),
                Some("me:pass:word"),
                "{key}"
            );
            assert_eq!(user(&json, "r.example", "a"), None, "{key}");
        }
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io"] {
            let json = format!(r#"{{"auths":{{"{key}":{auth}}}}}"#);
            assert!(user(&json, "docker.io", "library/x").is_some(), "{key}");
        }
    }

    #[test]
    fn the_longest_path_wins_and_others_do_not_fit() {
        let json = r#"{"auths":{
            "q.io/team":{"username":"team","password":"1"},
            "q.io/team/app":{"username":"app","password":"2"},
            "q.io/other":{"identitytoken":"it"},
            "z.io":{}, "y.io":null, "x.io":{"auth":"***"}}, "credHelpers":null}"#;
        let json = &json.replace("\"y.io\":null, ", "");
        assert_eq!(user(json, "q.io", "team/app").as_deref(), Some("app:2"));
        assert_eq!(user(json, "q.io", "team/app2").as_deref(), Some("team:1"));
        assert_eq!(user(json, "q.io", "other").as_deref(), Some("identity it"));
        assert_eq!(user(json, "q.io", "teams"), None);
        assert_eq!(user(json, "z.io", "a"), None);
        assert_eq!(user(json, "x.io", "a"), None);
    }

    #[test]
    fn helpers_are_named_for_hosts_and_for_all() {
        let json = r#"{"credHelpers":{"gcr.io":"gcloud","index.docker.io":"hub"},
                       "credsStore":"secretservice"}"#;
        let config = parse(json.as_bytes()).unwrap();
        assert_eq!(config.helper("gcr.io"), Some(("gcloud", "gcr.io")));
        assert_eq!(config.helper("docker.io"), Some(("hub", DOCKER_HUB_KEY)));
        assert_eq!(config.helper("eu.gcr.io"), None);
        assert_eq!(config.store("x.io"), Some(("secretservice", "x.io")));
    }

    #[test]
    fn errors_do_not_repeat_the_file() {
        for text in [r#"{"auths":{"x":{"auth":["hunter2"]}}}"#, r#"{"auths":"hunter2"}"#, "hunter2"]
        {
            let error = parse(text.as_bytes()).err().unwrap();
            assert!(!error.contains("hunter2") && error.contains("line 1"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_entry_ends(key in ".{0,40}", auth in "[A-Za-z0-9+/=:]{0,40}", host in "[a-z.:/]{0,20}") {
            let json = serde_json::json!({"auths": {key: {"auth": auth}}}).to_string();
            let _ = user(&json, &host, "a/b/c");
        }

        #[test]
        fn what_docker_writes_comes_back(name in "[^:\0]{1,20}", password in "[^\0]{0,20}") {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            let json = serde_json::json!({"auths": {"r.io": {"auth": auth}}}).to_string();
            prop_assume!(name != "<token>");
            prop_assert_eq!(user(&json, "r.io", "a"), Some(format!("{name}:{password}")));
        }
    }
}
