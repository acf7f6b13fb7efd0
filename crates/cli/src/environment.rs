//! The only place that reads environment variables. Everything below gets values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use rbuild::{CredentialSource, ProvenanceMode, Proxies, Secret};

use crate::args::switch;
use crate::failure::Failure;

/// What the command takes from its environment, read once.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// The value of a variable that is set and is UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(std::ffi::OsStr::new(name))?.to_str()
    }

    /// The same, where empty counts as not set.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The bytes of a variable, for secrets.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt as _;
        Some(self.variables.get(std::ffi::OsStr::new(name))?.as_bytes().to_vec())
    }

    /// How much a metadata file tells of how an image was made: buildx's variable, in which
    /// everything that is not known is its default.
    pub fn metadata_provenance(&self) -> Option<ProvenanceMode> {
        match self.get("BUILDX_METADATA_PROVENANCE") {
            Some("disabled") => None,
            Some(value) if switch::FALSE.contains(&value) => None,
            Some("max") => Some(ProvenanceMode::Max),
            _ => Some(ProvenanceMode::Min),
        }
    }

    /// Whether attestations leave out which commit a directory is a checkout of: buildx's variable,
    /// in which everything that is not known is its default.
    pub fn without_git_info(&self) -> bool {
        self.get("BUILDX_GIT_INFO").is_some_and(|value| switch::FALSE.contains(&value))
    }

    /// The store: `RBUILD_ROOT`, or `/var/lib/rbuild` for root, or rbuild's folder in the user's
    /// data directory.
    pub fn root(&self) -> Option<PathBuf> {
        if let Some(root) = self.filled("RBUILD_ROOT") {
            return Some(root.into());
        }
        if rustix::process::geteuid().is_root() {
            return Some("/var/lib/rbuild".into());
        }
        // The XDG rules: a relative path there is to be ignored.
        let data =
            self.filled("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let data = data.or_else(|| Some(PathBuf::from(self.filled("HOME")?).join(".local/share")));
        Some(data?.join("rbuild"))
    }

    /// Where credentials are looked for: in `DOCKER_AUTH_CONFIG`, then in the file that
    /// `REGISTRY_AUTH_FILE` names, or else in Docker's and podman's.
    pub fn credentials(&self) -> Vec<CredentialSource> {
        let text = self.filled("DOCKER_AUTH_CONFIG").map(|text| CredentialSource::Text {
            name: "DOCKER_AUTH_CONFIG".to_owned(),
            text: Secret::new(text),
        });
        let files: Vec<_> = match self.filled("REGISTRY_AUTH_FILE") {
            Some(file) => vec![CredentialSource::File(file.into())],
            None => {
                let usual = self.docker_config().into_iter().chain(self.podman_auth());
                usual.map(CredentialSource::Usual).collect()
            }
        };
        text.into_iter().chain(files).collect()
    }

    /// The file that a login is written to.
    pub fn login_file(&self) -> Option<PathBuf> {
        self.filled("REGISTRY_AUTH_FILE").map(PathBuf::from).or_else(|| self.docker_config())
    }

    /// Path of Docker's `config.json`.
    fn docker_config(&self) -> Option<PathBuf> {
        let directory = match self.filled("DOCKER_CONFIG") {
            Some(directory) => PathBuf::from(directory),
            None => PathBuf::from(self.filled("HOME")?).join(".docker"),
        };
        Some(directory.join("config.json"))
    }

    /// Paths of podman's `auth.json`: that of the session, and that which stays.
    fn podman_auth(&self) -> Vec<PathBuf> {
        let session = match self.filled("XDG_RUNTIME_DIR") {
            Some(directory) => PathBuf::from(directory).join("containers"),
            None => format!("/run/containers/{}", rustix::process::getuid()).into(),
        };
        let lasting = self.config_home().map(|directory| directory.join("containers"));
        let directories = std::iter::once(session).chain(lasting);
        directories.map(|directory| directory.join("auth.json")).collect()
    }

    /// Where podman has the user's certificates by registry host.
    pub fn certs_dir(&self) -> Option<PathBuf> {
        Some(self.config_home()?.join("containers/certs.d"))
    }

    /// The user's directory of configurations, by the XDG rules.
    pub fn config_home(&self) -> Option<PathBuf> {
        match self.filled("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(directory) => Some(directory),
            None => Some(PathBuf::from(self.filled("HOME")?).join(".config")),
        }
    }

    /// Where OpenSSH looks for the keys of hosts.
    pub fn known_hosts(&self) -> Vec<PathBuf> {
        let own = self.filled("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
        own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect()
    }

    /// Proxies for registries. `HTTP_PROXY` in capitals is not read: curl's rule, because a web
    /// server puts a request's `Proxy:` header there.
    pub fn proxies(&self) -> Proxies {
        let either = |lower, upper| self.filled(lower).or_else(|| self.filled(upper));
        let owned = |value: Option<&str>| value.map(str::to_owned);
        let all = either("all_proxy", "ALL_PROXY");
        Proxies {
            http: owned(self.filled("http_proxy").or(all)),
            https: owned(either("https_proxy", "HTTPS_PROXY").or(all)),
            none: owned(either("no_proxy", "NO_PROXY")),
        }
    }

    /// `RBUILD_SECRET_KEY`: what keyed digests of secrets are made with, for machines that share a
    /// cache.
    pub fn secret_key(&self) -> Option<String> {
        self.filled("RBUILD_SECRET_KEY").map(str::to_owned)
    }

    /// `RBUILD_REGISTRY_MIRRORS`: `HOST=LOCATION` with commas between.
    pub fn registry_mirrors(&self) -> Vec<String> {
        self.list("RBUILD_REGISTRY_MIRRORS")
    }

    /// `RBUILD_INSECURE_REGISTRIES`: hosts with commas between.
    pub fn insecure_registries(&self) -> Vec<String> {
        self.list("RBUILD_INSECURE_REGISTRIES")
    }

    /// `RBUILD_OFFLINE`, as the flag.
    pub fn offline(&self) -> Result<bool, Failure> {
        let Some(value) = self.filled("RBUILD_OFFLINE") else { return Ok(false) };
        switch::parse(value)
            .map_err(|problem| Failure::usage(format!("RBUILD_OFFLINE={value}: {problem}")))
    }

    fn list(&self, name: &str) -> Vec<String> {
        let items = self.get(name).unwrap_or_default().split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// `BUILDKIT_PROGRESS`.
    pub fn progress(&self) -> Option<&str> {
        self.filled("BUILDKIT_PROGRESS")
    }

    /// `SOURCE_DATE_EPOCH`, which becomes a build argument by itself.
    pub fn source_date_epoch(&self) -> Option<&str> {
        self.filled("SOURCE_DATE_EPOCH")
    }

    /// `NO_COLOR` set to anything but nothing (no-color.org).
    pub fn no_color(&self) -> bool {
        self.filled("NO_COLOR").is_some()
    }

    /// A terminal that says of itself that it cannot move its cursor.
    pub fn dumb_terminal(&self) -> bool {
        self.get("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
    }
}

#[cfg(test)]
impl Environment {
    /// An environment of these variables only.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let pairs = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Self { variables: pairs.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_hosts_are_openssh_s() {
        let of = |variables: &[_]| Environment::of(variables).known_hosts();
        let everybody_s = "/etc/ssh/ssh_known_hosts";
        assert_eq!(of(&[]), [PathBuf::from(everybody_s)]);
        let both = ["/h/.ssh/known_hosts", everybody_s].map(PathBuf::from);
        assert_eq!(of(&[("HOME", "/h")]), both);
    }

    #[test]
    fn credentials_are_docker_s_then_podman_s_unless_a_file_is_named() {
        let of = |variables: &[_]| format!("{:?}", Environment::of(variables).credentials());
        let both = of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]);
        let expected = "[Usual(\"/h/.docker/config.json\"), Usual(\"/r/containers/auth.json\"), \
                        Usual(\"/h/.config/containers/auth.json\")]";
        assert_eq!(both, expected);
        let named = of(&[
            ("HOME", "/h"),
            ("DOCKER_AUTH_CONFIG", "hunter2"),
            ("REGISTRY_AUTH_FILE", "/a.json"),
        ]);
        assert_eq!(named, "[Text(\"DOCKER_AUTH_CONFIG\"), File(\"/a.json\")]");
        let login_file = |variables: &[_]| Environment::of(variables).login_file();
        assert_eq!(
            login_file(&[("DOCKER_CONFIG", "/d")]).unwrap(),
            PathBuf::from("/d/config.json")
        );
        assert_eq!(login_file(&[]), None);
    }

    #[test]
    fn the_store_is_where_the_variable_says() {
        let environment = Environment::of(&[("RBUILD_ROOT", "/x"), ("HOME", "/h")]);
        assert_eq!(environment.root().unwrap(), PathBuf::from("/x"));
    }

    #[test]
    fn capital_http_proxy_is_not_read_and_lists_are_split() {
        let environment = Environment::of(&[
            ("HTTP_PROXY", "http://evil"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("RBUILD_INSECURE_REGISTRIES", " a:5000, ,b "),
        ]);
        let proxies = environment.proxies();
        assert_eq!(proxies.http, None);
        assert_eq!(proxies.https.as_deref(), Some("http://proxy:3128"));
        assert_eq!(environment.insecure_registries(), ["a:5000", "b"]);
    }
}
