//! Image references: `[host[:port]/]path[:tag][@digest]`, in Docker's grammar and defaults.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

/// A reference in its full form: a short name has got `docker.io/library/` in front, and `latest`
/// where neither tag nor digest was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Docker allows upper case in tags only, and says so in this form.
    #[error("invalid reference format: repository name ({path}) must be lowercase")]
    Uppercase {
        /// The repository path as written.
        path: String,
    },
    /// Anything else that the grammar refuses.
    #[error("invalid reference format: {text:?}")]
    Format {
        /// The refused text, shortened.
        text: String,
    },
}

/// Longest repository name that registries accept, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes (OCI distribution spec 1.1, "Pulling manifests").
const MAX_TAG: usize = 128;
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";

impl Reference {
    /// Registry host with port, `docker.io` when none was given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Repository path without the host, such as `library/python`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and path: `docker.io/library/python`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// Whether a name, as people type it, says which tag or digest is meant. A parsed one has a tag in
    /// any case.
    pub fn is_exact(name: &str) -> bool {
        name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'))
    }

    /// The tag, if there is one. A reference with a digest may have none.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The same repository, pinned to `digest` and without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same reference with its tag kept and `digest` beside it, as `name:tag@digest`.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The name and tag alone, with the tag `latest` where there is none.
    pub fn without_digest(&self) -> Self {
        let tag = self.tag.clone().or_else(|| Some(DEFAULT_TAG.to_owned()));
        Self { tag, digest: None, ..self.clone() }
    }

    /// The short form that people type: `python:3.7`, without Docker Hub's host and `library/`.
    pub fn familiar(&self) -> String {
        let name = self.familiar_name();
        self.suffix(name)
    }

    /// [`Reference::familiar`] without tag and digest.
    pub fn familiar_name(&self) -> String {
        match (self.host.as_str(), self.path.strip_prefix("library/")) {
            (DEFAULT_HOST, Some(short)) if !short.contains('/') => short.to_owned(),
            // `docker.io/ghcr.io/x` without its host would be another host's image.
            (DEFAULT_HOST, _) if split_host(&self.path).1 == self.path => self.path.clone(),
            _ => self.repository(),
        }
    }

    fn suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Format { text: text.chars().take(200).collect() };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to a port.
        let name_start = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[name_start..].find(':') {
            Some(at) => (&rest[..name_start + at], Some(&rest[name_start + at + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad());
        }
        let (host, path) = split_host(name);
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !is_host(&host) || path.len() + host.len() >= MAX_NAME {
            return Err(bad());
        }
        if !path.split('/').all(is_component) {
            let lower = path.to_ascii_lowercase();
            return Err(if lower != path && lower.split('/').all(is_component) {
                ReferenceError::Uppercase { path: name.to_owned() }
            } else {
                bad()
            });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { host, path, tag, digest })
    }
}

/// The first component is a host when it has a dot, a colon, upper case or is `localhost`
/// (distribution/reference `splitDockerDomain`).
fn split_host(name: &str) -> (String, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            let host = if first == "index.docker.io" { DEFAULT_HOST } else { first };
            (host.to_owned(), rest)
        }
        _ => (DEFAULT_HOST.to_owned(), name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':') {
        Some(at) if !host.ends_with(']') => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let ipv6 = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
    let name_fits = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => ipv6(inner),
        None => name.split('.').all(label),
    };
    port_fits && name_fits
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    component.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit()).all(
        |separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        },
    )
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_dockers_defaults() {
        let full = |text: &str| text.parse::<Reference>().unwrap().to_string();
        assert_eq!(full("python"), "docker.io/library/python:latest");
        assert_eq!(full("bitnami/redis:7"), "docker.io/bitnami/redis:7");
        assert_eq!(full("localhost/x"), "localhost/x:latest");
        assert_eq!(full("127.0.0.1:5000/a/b:c"), "127.0.0.1:5000/a/b:c");
        assert_eq!(full("index.docker.io/x/y"), "docker.io/x/y:latest");
        assert_eq!(full("[::1]:5000/x"), "[::1]:5000/x:latest");
        let pinned = format!("python@{}", Digest::of(""));
        assert_eq!(full(&pinned), format!("docker.io/library/{pinned}"));
    }

    #[test]
    fn a_port_is_no_tag() {
        for exact in ["a:1", "h:5000/a:1", "a@sha256:0", "h:5000/a@sha256:0"] {
            assert!(Reference::is_exact(exact), "{exact}");
        }
        for open in ["a", "h:5000/a", "a/b", ""] {
            assert!(!Reference::is_exact(open), "{open}");
        }
    }

    #[test]
    fn familiar_is_what_people_type() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/python:3"), "python:3");
        assert_eq!(familiar("docker.io/bitnami/redis"), "bitnami/redis:latest");
        assert_eq!(familiar("ghcr.io/a/b:c"), "ghcr.io/a/b:c");
        assert_eq!(familiar("docker.io/ghcr.io/b:c"), "docker.io/ghcr.io/b:c");
    }

    #[test]
    fn hostile_names_are_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "../x",
            "a/../b",
            "-x",
            "x-",
            "a:b:c",
            "a:",
            "a@",
            "a@sha256:../x",
            "x\n",
            "x\u{1b}[0m",
            "host:99999/x",
            "a___b",
            "a..b",
            &"a".repeat(300),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        let uppercase = "Python:3".parse::<Reference>().unwrap_err().to_string();
        assert!(uppercase.contains("must be lowercase"), "{uppercase}");
    }
}
