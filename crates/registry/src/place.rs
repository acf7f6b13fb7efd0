//! Where a repository is served: origins, mirrors, and which of them may be spoken to in plain
//! HTTP.

use std::net::IpAddr;

use rbuild_types::Reference;
use reqwest::Url;

use crate::RegistryOptions;
use crate::transport::Proof;

/// Docker Hub's name in references is not the host that serves its API.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// Scheme, host and port: what a credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL; of nothing else.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        Some(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// One host that serves the repository: a mirror, or the registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `host[:port]` as named by people; what errors say.
    pub(crate) host: String,
    /// `host[:port]` that serves the API.
    pub(crate) api_host: String,
    /// The repository's path there.
    pub(crate) repository: String,
    /// Whether it need not prove who it is, and plain HTTP is allowed.
    pub(crate) insecure: bool,
    /// Whether another place follows; such a place is not tried for long.
    pub(crate) has_successor: bool,
}

impl Place {
    /// Whether plain HTTP is allowed.
    pub(crate) fn may_be_plain(&self) -> bool {
        self.insecure || is_loopback(without_port(&self.api_host))
    }

    /// What a server that is spoken to for this place's sake has to show: itself, a token server, or
    /// where a redirect leads.
    pub(crate) fn proof(&self, options: &RegistryOptions, server: &Origin) -> Proof {
        let with_port = format!("{}:{}", server.host, server.port);
        let is_usual = Some(server.port) == default_port(&server.scheme);
        let named = |host: &str| host == with_port || (is_usual && host == server.host);
        let itself = self.insecure && named(&self.api_host);
        match itself || !options.tls_verify || options.insecure.iter().any(|host| named(host)) {
            true => Proof::None,
            false => Proof::Certificate,
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// The mirrors of the reference's host in their order, then the host.
pub(crate) fn places(options: &RegistryOptions, reference: &Reference) -> Vec<Place> {
    let host = reference.host();
    let mut places = Vec::new();
    for mirror in options.mirrors.get(host).into_iter().flatten() {
        let Some((mirror_host, prefix)) = split_location(&mirror.location) else { continue };
        let repository = match prefix {
            "" => reference.path().to_owned(),
            prefix => format!("{prefix}/{}", reference.path()),
        };
        places.push(Place {
            host: mirror_host.to_owned(),
            api_host: api_host(mirror_host).to_owned(),
            repository,
            insecure: mirror.insecure || is_insecure(options, mirror_host),
            has_successor: true,
        });
    }
    places.push(own_place(options, reference));
    places
}

/// The reference's host itself: what is pushed goes nowhere else.
pub(crate) fn own_place(options: &RegistryOptions, reference: &Reference) -> Place {
    Place { repository: reference.path().to_owned(), ..of_host(options, reference.host()) }
}

/// A registry, and none of its repositories.
pub(crate) fn of_host(options: &RegistryOptions, host: &str) -> Place {
    Place {
        host: host.to_owned(),
        api_host: api_host(host).to_owned(),
        repository: String::new(),
        insecure: is_insecure(options, host),
        has_successor: false,
    }
}

fn api_host(host: &str) -> &str {
    match host {
        DOCKER_HUB | "index.docker.io" => DOCKER_HUB_API,
        host => host,
    }
}

/// Whether `host[:port]` is loopback or listed as insecure.
pub(crate) fn may_be_plain(options: &RegistryOptions, host: &str) -> bool {
    is_loopback(without_port(host)) || options.insecure.iter().any(|listed| listed == host)
}

fn is_insecure(options: &RegistryOptions, host: &str) -> bool {
    !options.tls_verify || options.insecure.iter().any(|listed| listed == host)
}

/// Splits `host[:port][/prefix]`; `None` when it is not of that form.
pub(crate) fn split_location(location: &str) -> Option<(&str, &str)> {
    let (host, prefix) = location.split_once('/').unwrap_or((location, ""));
    let prefix = prefix.trim_end_matches('/');
    let url = Url::parse(&format!("https://{host}/{prefix}")).ok()?;
    let clean = url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.path() == format!("/{prefix}")
        && !host.ends_with(':')
        && !prefix.starts_with('/')
        && !prefix.contains("//");
    clean.then_some((host, prefix))
}

/// `host` of `host[:port]`, IPv6 brackets kept.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if !host.ends_with(']') => &host[..at],
        _ => host,
    }
}

/// Whether a host name (without port) always means this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mirror;

    #[test]
    fn a_mirror_replaces_the_host_and_keeps_the_path() {
        let mut options = RegistryOptions::default();
        let mirror = |location: &str| Mirror { location: location.into(), insecure: false };
        options
            .mirrors
            .insert("docker.io".into(), vec![mirror("m.example:5000"), mirror("h.example/hub/")]);
        let reference = "python:3".parse().unwrap();
        let found: Vec<_> = places(&options, &reference)
            .into_iter()
            .map(|place| format!("{}/{}", place.api_host, place.repository))
            .collect();
        assert_eq!(
            found,
            [
                "m.example:5000/library/python",
                "h.example/hub/library/python",
                "registry-1.docker.io/library/python"
            ]
        );
    }

    #[test]
    fn odd_mirror_locations_are_refused() {
        for bad in
            ["", "https://x", "a b", "user@host", "host/a?b", "host/a//b", "host/../x", "h:x"]
        {
            assert_eq!(split_location(bad), None, "{bad}");
        }
        assert_eq!(split_location("[::1]:5000/a/b/"), Some(("[::1]:5000", "a/b")));
    }

    #[test]
    fn loopback_may_be_plain_and_others_only_when_listed() {
        let options =
            RegistryOptions { insecure: vec!["r.example:80".into()], ..Default::default() };
        for plain in ["127.0.0.1:5000", "localhost", "[::1]:5000", "127.3.2.1", "r.example:80"] {
            assert!(may_be_plain(&options, plain), "{plain}");
        }
        for safe in ["r.example", "localhost.example", "127.0.0.1.example:5000", "10.0.0.1"] {
            assert!(!may_be_plain(&options, safe), "{safe}");
        }
    }
}
