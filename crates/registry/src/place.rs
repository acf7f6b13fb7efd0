//! Where a repository is served: origins, mirrors, and which of them may be spoken to in plain
//! HTTP.

use std::net::IpAddr;

use rbuild_types::Reference;
use reqwest::Url;

use crate::options::{Mirror, Serves};
use crate::transport::Proof;
use crate::{RegistryError, RegistryOptions, network};

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
    /// The host in the image's name, where a table about registries says that it is really at
    /// `host`. Logins that are given for it count here, but none that is stored for it.
    pub(crate) named: Option<String>,
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

/// What is asked of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Manifest,
    Blob,
}

/// The mirrors of the reference in their order, then the registry itself.
pub(crate) fn places(
    options: &RegistryOptions,
    reference: &Reference,
    asked: Asked,
) -> Result<Vec<Place>, RegistryError> {
    let own = own_place(options, reference)?;
    let rule = options.registries.rule(reference);
    let of_host = options.mirrors.get(reference.host()).into_iter().flatten();
    let of_rule = rule.iter().flat_map(|(rule, _)| &rule.mirrors);
    let rest = rule.map(|(_, rest)| rest).unwrap_or_default();
    let all = of_host.map(|mirror| (mirror, reference.path()));
    let all = all.chain(of_rule.map(|mirror| (mirror, rest)));
    let mut places: Vec<_> = all
        .filter(|(mirror, _)| asked == Asked::Blob || serves(mirror, reference))
        .filter_map(|(mirror, rest)| {
            let mut place = at(options, &mirror.location, rest)?;
            place.insecure |= mirror.insecure;
            Some(Place { has_successor: true, ..place })
        })
        .collect();
    places.push(own);
    Ok(places)
}

fn serves(mirror: &Mirror, reference: &Reference) -> bool {
    match mirror.serves {
        Serves::All => true,
        Serves::Digests => reference.digest().is_some(),
        Serves::Tags => reference.digest().is_none(),
    }
}

/// The registry itself: what is pushed goes nowhere else.
pub(crate) fn own_place(
    options: &RegistryOptions,
    reference: &Reference,
) -> Result<Place, RegistryError> {
    let same =
        Place { repository: reference.path().to_owned(), ..of_host(options, reference.host()) };
    let Some((rule, rest)) = options.registries.rule(reference) else { return Ok(same) };
    if rule.blocked {
        let (subject, file) = (reference.repository(), rule.file.clone());
        return Err(RegistryError::Blocked { subject, file });
    }
    let moved = rule.location.as_ref().and_then(|location| at(options, location, rest));
    let place = match moved {
        Some(place) => Place { named: Some(reference.host().to_owned()), ..place },
        None => same,
    };
    Ok(Place { insecure: place.insecure || rule.insecure, ..place })
}

/// The repository `rest` below a location.
fn at(options: &RegistryOptions, location: &str, rest: &str) -> Option<Place> {
    let (host, prefix) = split_location(location)?;
    let parts = [prefix, rest].into_iter().filter(|part| !part.is_empty());
    let repository = parts.collect::<Vec<_>>().join("/");
    (!repository.is_empty()).then(|| Place { repository, ..of_host(options, host) })
}

/// A registry, and none of its repositories.
pub(crate) fn of_host(options: &RegistryOptions, host: &str) -> Place {
    Place {
        host: host.to_owned(),
        named: None,
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
    !options.tls_verify
        || options.insecure.iter().any(|listed| listed == host)
        || network::is_in_insecure(options, host)
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

    fn shown(options: &RegistryOptions, name: &str, asked: Asked) -> Vec<String> {
        let found = places(options, &name.parse().unwrap(), asked).unwrap();
        found.iter().map(|place| format!("{}/{}", place.api_host, place.repository)).collect()
    }

    #[test]
    fn a_mirror_replaces_the_host_and_keeps_the_path() {
        let mut options = RegistryOptions::default();
        let mirror = |location: &str| Mirror {
            location: location.into(),
            insecure: false,
            serves: Serves::All,
        };
        options
            .mirrors
            .insert("docker.io".into(), vec![mirror("m.example:5000"), mirror("h.example/hub/")]);
        let found = shown(&options, "python:3", Asked::Manifest);
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
    fn registries_are_where_the_file_says() {
        let mut options = RegistryOptions::default();
        let text = "[[registry]]\nprefix = 'q.io/team'\nlocation = 'r.example:5000/kept'\n\
                    insecure = true\n\
                    [[registry.mirror]]\nlocation = 'd.example'\npull-from-mirror = 'digest-only'\n\
                    [[registry.mirror]]\nlocation = 't.example/x'\npull-from-mirror = 'tag-only'\n\
                    [[registry]]\nlocation = 'bad.example'\nblocked = true";
        options.registries.add("/etc/x.conf".as_ref(), text).unwrap();
        let digest = rbuild_types::Digest::of(b"");
        let (tagged, pinned) = ("q.io/team/app:1", format!("q.io/team/app@{digest}"));
        let (digests, tags, own) = ("d.example/app", "t.example/x/app", "r.example:5000/kept/app");
        assert_eq!(shown(&options, tagged, Asked::Manifest), [tags, own]);
        assert_eq!(shown(&options, &pinned, Asked::Manifest), [digests, own]);
        assert_eq!(shown(&options, tagged, Asked::Blob), [digests, tags, own]);
        assert!(own_place(&options, &tagged.parse().unwrap()).unwrap().insecure);
        assert_eq!(shown(&options, "q.io/teams/a", Asked::Manifest), ["q.io/teams/a"]);
        let error = own_place(&options, &"bad.example/a".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("/etc/x.conf"), "{error}");
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
