//! Debian's docker-registry on loopback, with its data below `target/`.

use std::path::Path;

use crate::command::Cmd;
use crate::failure::Outcome;
use crate::http;
use crate::service::{Limits, Service};

/// A registry that runs while this value lives.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) port: u16,
    service: Service,
}

/// Whom a registry lets in, and how it proves who it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Guard<'a> {
    /// A file that `htpasswd -B` made.
    pub(crate) passwords: Option<&'a Path>,
    /// A directory with `server.crt`, `server.key` and the `ca.crt` that signed it.
    pub(crate) tls: Option<&'a Path>,
    /// Whether clients need a certificate of that CA, too.
    pub(crate) clients: bool,
}

impl Registry {
    /// Starts it with its configuration, data and log in `dir`.
    pub(crate) fn start(dir: &Path) -> Outcome<Self> {
        Self::start_guarded(dir, Guard::default())
    }

    /// The same, where not everybody is let in.
    pub(crate) fn start_guarded(dir: &Path, guard: Guard<'_>) -> Outcome<Self> {
        fs_err::create_dir_all(dir)?;
        let port = http::free_port()?;
        let config = dir.join("config.yml");
        let data = dir.join("data");
        let mut text = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        if let Some(certificates) = guard.tls {
            let file = |name: &str| certificates.join(name).display().to_string();
            let (certificate, key) = (file("server.crt"), file("server.key"));
            text += &format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
            if guard.clients {
                text += &format!("    clientcas: [{}]\n", file("ca.crt"));
            }
        }
        if let Some(passwords) = guard.passwords {
            let passwords = passwords.display();
            text += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {passwords}\n");
        }
        fs_err::write(&config, text)?;
        let command = Cmd::new("docker-registry").arg("serve").arg(config);
        let command = Limits::SERVER.apply(command);
        let is_open = guard.passwords.is_none() && guard.tls.is_none();
        let ready = || match is_open {
            true => http::get(port, "/v2/").is_ok(),
            false => http::answers(port),
        };
        let service = Service::start("docker-registry", command, &dir.join("log"), ready)?;
        Ok(Self { port, service })
    }

    /// `127.0.0.1:PORT/NAME`.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Puts an image that skopeo can read (`oci:DIR:TAG`, `oci-archive:FILE`) under `name`.
    pub(crate) fn push(&self, source: &str, name: &str) -> Outcome {
        Cmd::new("skopeo")
            .words("copy --quiet --insecure-policy --dest-tls-verify=false")
            .arg(source)
            .arg(format!("docker://{}", self.reference(name)))
            .output()
            .map_err(|failure| self.service.explain(failure))?;
        Ok(())
    }
}
