//! Which redirects are followed, and which other URLs that answers give.

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::exchange::{Answered, Client, Errand, Spot};
use crate::place::{Origin, may_be_plain};
use crate::{RegistryError, RegistryOptions};

/// As many as curl and browsers follow at least; registries need two.
pub(crate) const MAX_REDIRECTS: usize = 10;

/// Where a redirect from `current` leads, if it is one to follow.
///
/// TLS is not left for plain HTTP, but to hosts that are listed, and where `may_stay_plain` says of
/// the target that it was not used before either. A server elsewhere, whose origin is `asked`,
/// cannot send requests to services on this machine.
pub(crate) fn target(
    options: &RegistryOptions,
    asked: &Origin,
    current: &Url,
    location: &HeaderValue,
    may_stay_plain: impl Fn(&Origin) -> bool,
) -> Result<Url, String> {
    let location = location.to_str().map_err(|_| "its target is not text".to_owned())?;
    let mut url = current.join(location).map_err(|_| "its target is no URL".to_owned())?;
    // reqwest would turn these into an Authorization header. Both fail only without a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let target = Origin::of(&url).ok_or_else(|| format!("its scheme is {:?}", url.scheme()))?;
    if target.is_loopback() && !asked.is_loopback() {
        return Err(format!("its target {} is this machine", target.host));
    }
    let with_port = format!("{}:{}", target.host, target.port);
    let listed = || may_be_plain(options, &with_port) || may_be_plain(options, &target.host);
    if target.is_plain() && !may_stay_plain(&target) && !listed() {
        return Err(format!(
            "its target http://{} does not use TLS; list it as insecure if that is right",
            target.host
        ));
    }
    Ok(url)
}

impl Client {
    /// Where the `location` in an answer leads, judged as a redirect is.
    pub(crate) async fn spot(
        &self,
        errand: &Errand,
        answered: &Answered,
        location: &HeaderValue,
    ) -> Result<Spot, RegistryError> {
        let origin = self.origin(&errand.place).await?;
        let current = answered.response.url();
        let stays = |target: &Origin| *target == origin;
        let url = target(&self.options, &origin, current, location, stays);
        let url = url.map_err(|reason| RegistryError::Redirect {
            subject: errand.subject.clone(),
            host: errand.place.host.clone(),
            reason,
        })?;
        let on_own_origin = answered.on_own_origin && Origin::of(&url).as_ref() == Some(&origin);
        Ok(Spot { url, on_own_origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(
        current: &str,
        location: &str,
        may_stay_plain: impl Fn(&Origin) -> bool,
    ) -> Result<String, String> {
        let options =
            RegistryOptions { insecure: vec!["cdn.lan:9000".to_owned()], ..Default::default() };
        let current: Url = current.parse().unwrap();
        let asked = Origin::of(&current).unwrap();
        let location = HeaderValue::from_str(location).unwrap();
        target(&options, &asked, &current, &location, may_stay_plain).map(|url| url.to_string())
    }

    #[test]
    fn redirects_stay_encrypted_and_off_this_machine() {
        let from = "https://r.example/v2/a/blobs/x";
        let encrypted = |location| followed(from, location, |_| false);
        assert_eq!(encrypted("/y").unwrap(), "https://r.example/y");
        assert_eq!(encrypted("../y").unwrap(), "https://r.example/v2/a/y");
        assert_eq!(encrypted("https://u:p@cdn.example/y").unwrap(), "https://cdn.example/y");
        assert_eq!(encrypted("http://cdn.lan:9000/y").unwrap(), "http://cdn.lan:9000/y");
        for bad in [
            "http://cdn.example/y",
            "http://r.example/y",
            "http://127.0.0.1:1/",
            "https://[::1]/",
            "file:///etc/passwd",
            "http://",
            "data:,x",
        ] {
            assert!(encrypted(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_plain_may_stay_plain() {
        let (from, to) = ("http://h.example/", "http://cdn.example/x");
        assert_eq!(followed(from, to, |_| true).unwrap(), to);
        assert!(followed(from, to, |_| false).is_err());
        let loopback = followed("http://127.0.0.1:5000/x", "http://localhost:9000/y", |_| false);
        assert!(loopback.is_ok());
    }
}
