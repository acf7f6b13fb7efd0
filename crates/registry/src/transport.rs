//! The HTTP clients under the requests: TLS roots, proxies, timeouts, and what their errors mean.
//!
//! Plain HTTP and TLS have clients of their own, made at first use: the system's roots are read
//! only when a TLS registry is spoken to, and a machine without any still reaches a loopback
//! registry. A host with its own certificates gets its own client, so that these are trusted for
//! no other host; so do hosts that need not prove who they are. No client follows redirects or undoes content encodings.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use reqwest::{NoProxy, Proxy, redirect};

use crate::place::Origin;
use crate::retry::{Failure, Retry};
use crate::text::printable;
use crate::{RegistryError, RegistryOptions, certificates};

/// Reached without a proxy always, as curl and Go do.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

/// Whether a server has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// By a certificate that somebody signed whom we trust.
    Certificate,
    /// Its word is taken for it: the user said so.
    None,
}

/// Which client an origin uses.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Plain,
    /// TLS with the certificates of these directories.
    Tls(Vec<PathBuf>, Proof),
}

#[derive(Default)]
pub(crate) struct Transport {
    clients: Mutex<HashMap<Kind, reqwest::Client>>,
}

impl Transport {
    /// The client for `origin`, from which `proof` is wanted.
    pub(crate) fn client(
        &self,
        options: &RegistryOptions,
        origin: &Origin,
        proof: Proof,
    ) -> Result<reqwest::Client, RegistryError> {
        let kind = match origin.is_plain() {
            true => Kind::Plain,
            false => Kind::Tls(certificates::directories(options, origin), proof),
        };
        // A panic while the lock is held cannot leave the map half-changed.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = build(options, &kind).map_err(|reason| RegistryError::Connection {
            subject: "anything".to_owned(),
            host: printable(&origin.host),
            reason,
        })?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

fn build(options: &RegistryOptions, kind: &Kind) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent.as_str())
        .redirect(redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        // One connection per blob: HTTP/2 would put all layers into one congestion window.
        .http1_only()
        .pool_max_idle_per_host(options.connections)
        .no_proxy();
    for (name, address) in &options.resolve {
        builder = builder.resolve(name, *address);
    }
    let listed = options.proxies.none.as_deref().unwrap_or_default();
    let direct = NoProxy::from_string(&format!("{NEVER_PROXIED},{listed}"));
    if let Some(url) = &options.proxies.http {
        let proxy = Proxy::http(url.as_str()).map_err(|error| cause(&error))?;
        builder = builder.proxy(proxy.no_proxy(direct.clone()));
    }
    if let Some(url) = &options.proxies.https {
        let proxy = Proxy::https(url.as_str()).map_err(|error| cause(&error))?;
        builder = builder.proxy(proxy.no_proxy(direct));
    }
    builder = match kind {
        Kind::Plain => builder.tls_built_in_native_certs(false),
        Kind::Tls(directories, proof) => {
            let own = certificates::read(directories).map_err(|error| error.to_string())?;
            let mut builder = builder.https_only(true);
            for certificate in own.roots {
                builder = builder.add_root_certificate(certificate);
            }
            if let Some(identity) = own.identity {
                builder = builder.identity(identity);
            }
            match proof {
                Proof::Certificate => builder,
                Proof::None => {
                    builder.danger_accept_invalid_certs(true).tls_built_in_native_certs(false)
                }
            }
        }
    };
    builder.build().map_err(|error| match cause(&error) {
        reason if reason.contains("native root store") => {
            "this machine has no root certificates; install the package ca-certificates".to_owned()
        }
        reason => reason,
    })
}

/// The innermost cause of an error, which is the part that says something. URLs are left out: a
/// content server's URL may carry a signature.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    printable(&deepest.to_string())
}

/// Whether the server was reached and its certificate was not accepted.
pub(crate) fn is_about_certificate(error: &reqwest::Error) -> bool {
    cause(error).to_ascii_lowercase().contains("certificate")
}

/// What a failed exchange means.
pub(crate) fn failure(subject: &str, host: &str, error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let text = cause(&error);
    let (reason, retry) = explain(&text, host);
    let error =
        RegistryError::Connection { subject: subject.to_owned(), host: host.to_owned(), reason };
    Failure { error, retry }
}

/// Adds the way out where one is known. Works on the text because neither reqwest nor rustls
/// show their inner errors as types.
fn explain(text: &str, host: &str) -> (String, Retry) {
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        let hint = format!(
            "the server does not speak TLS; if it speaks plain HTTP, list {host} as insecure"
        );
        return (hint, Retry::Never);
    }
    if text.contains("handshake eof") {
        let hint = format!("{text}; if it speaks plain HTTP, list {host} as insecure");
        return (hint, Retry::Later);
    }
    // What servers say of ours: Go's call one that is missing a bad one.
    let about_ours = ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateUnknown"];
    if about_ours.iter().any(|alert| text.contains(&format!("fatal alert: {alert}"))) {
        let hint = format!(
            "it wants to see a client certificate, or another one ({text}): put NAME.cert and \
             NAME.key into /etc/docker/certs.d/{host}"
        );
        return (hint, Retry::Never);
    }
    if text.contains("certificate") {
        let hint = if text.contains("Expired") || text.contains("expired") {
            "it is out of date: check this machine's clock, else the registry's certificate"
        } else if text.contains("NotValidYet") || text.contains("not valid yet") {
            "it is not valid yet: check this machine's clock"
        } else {
            "add the CA that signed it to the system's certificates, or put it as ca.crt into the \
             registry's directory below /etc/docker/certs.d"
        };
        return (format!("its certificate is not accepted ({text}); {hint}"), Retry::Never);
    }
    let no_such_name = ["Name or service not known", "No address associated"];
    if no_such_name.iter().any(|known| text.contains(known)) {
        return (format!("no such host ({text}); check the registry's name"), Retry::Never);
    }
    if text.contains("Connection refused") {
        return (format!("nobody listens there ({text}); check the port"), Retry::Soon);
    }
    (text.to_owned(), Retry::Later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_a_way_out() {
        let (text, retry) = explain("received corrupt message of type InvalidContentType", "r:5");
        assert!(text.contains("list r:5 as insecure") && retry == Retry::Never, "{text}");
        let (text, _) = explain("invalid peer certificate: Expired", "r");
        assert!(text.contains("clock"), "{text}");
        let (text, _) = explain("invalid peer certificate: UnknownIssuer", "r");
        assert!(text.contains("CA that signed it"), "{text}");
        let (text, _) = explain("received fatal alert: BadCertificate", "r:5");
        assert!(text.contains("NAME.key into /etc/docker/certs.d/r:5"), "{text}");
        assert_eq!(explain("Connection refused (os error 111)", "r").1, Retry::Soon);
    }
}
