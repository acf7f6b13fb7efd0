//! Which token servers are spoken to, and which of them may see a password.
//!
//! The realm URL comes from the registry, so a hostile one may name any URL: the password would
//! go to whoever it likes, or the request to a service that only this machine can reach.

use std::net::IpAddr;

use reqwest::Url;

use crate::RegistryOptions;
use crate::place::{Origin, Place, is_loopback};

/// Registry API host and the host of its token server, where the two are different sites.
const KNOWN_PAIRS: [(&str, &str); 1] = [("registry-1.docker.io", "auth.docker.io")];

/// How far a token server is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It may see the registry's credentials.
    Credentials,
    /// It may be asked for an anonymous token.
    Anonymous,
}

/// Judges `realm` for the registry at `origin`; the error says why it is not spoken to at all.
pub(super) fn judge(
    options: &RegistryOptions,
    place: &Place,
    origin: &Origin,
    realm: &Url,
) -> Result<Trust, String> {
    let Some(server) = Origin::of(realm) else {
        return Err(format!("its token server has the scheme {:?}", realm.scheme()));
    };
    let same_site = same_site(&origin.host, &server.host)
        || (origin.is_loopback() && server.is_loopback())
        || KNOWN_PAIRS.contains(&(origin.host.as_str(), server.host.as_str()));
    let listed =
        options.token_hosts.get(&place.host).is_some_and(|hosts| hosts.contains(&server.host));
    if server.is_plain() && !(origin.is_plain() && (same_site || listed)) {
        return Err(format!(
            "its token server http://{} does not use TLS, so nothing is sent to it",
            server.host
        ));
    }
    if same_site || listed {
        return Ok(Trust::Credentials);
    }
    if is_loopback(&server.host) || ip(&server.host).is_some() {
        return Err(format!(
            "its token server is the address {}, which is not the registry's; name it by \
             --token-host if that is right",
            server.host
        ));
    }
    Ok(Trust::Anonymous)
}

/// Whether two hosts belong to one owner by the Public Suffix List.
fn same_site(left: &str, right: &str) -> bool {
    if left == right {
        return true;
    }
    if ip(left).is_some() || ip(right).is_some() {
        return false;
    }
    match (psl::domain_str(left), psl::domain_str(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::own_place;

    fn trust(registry: &str, realm: &str) -> Result<Trust, String> {
        let options = RegistryOptions {
            token_hosts: [("r.example.org".to_owned(), vec!["login.example.com".to_owned()])]
                .into(),
            ..Default::default()
        };
        let url: Url = registry.parse().unwrap();
        let host = url.host_str().unwrap().replace("registry-1.docker.io", "docker.io");
        let reference = format!("{host}/a/b").parse().unwrap();
        let place = own_place(&options, &reference).unwrap();
        judge(&options, &place, &Origin::of(&url).unwrap(), &realm.parse().unwrap())
    }

    #[test]
    fn passwords_stay_on_the_site() {
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://quay.io", "https://quay.io/v2/auth"),
            ("https://r.example.org", "https://login.example.com/t"),
            ("http://127.0.0.1:5000", "http://localhost:5001/t"),
            ("http://r.example.org", "http://r.example.org:81/t"),
        ] {
            assert_eq!(trust(registry, realm), Ok(Trust::Credentials), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io.evil.com/"),
            ("https://a.co.uk", "https://b.co.uk/t"),
            ("https://mine.github.io", "https://other.github.io/t"),
            ("https://r.example.com", "https://login.example.org/t"),
        ] {
            assert_eq!(trust(registry, realm), Ok(Trust::Anonymous), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://r.example.com", "http://r.example.com/t"),
            ("https://r.example.com", "http://169.254.169.254/latest"),
            ("https://r.example.com", "https://169.254.169.254/latest"),
            ("https://r.example.com", "https://localhost/t"),
            ("https://r.example.com", "https://[::1]/t"),
            ("https://r.example.com", "file:///etc/passwd"),
            ("http://r.example.com", "http://other.example.net/t"),
        ] {
            assert!(trust(registry, realm).is_err(), "{registry} {realm}");
        }
    }
}
