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

impl Registry {
    /// Starts it with its configuration, data and log in `dir`.
    pub(crate) fn start(dir: &Path) -> Outcome<Self> {
        fs_err::create_dir_all(dir)?;
        let port = http::free_port()?;
        let config = dir.join("config.yml");
        let data = dir.join("data");
        fs_err::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\n\
                 storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
                 http:\n  addr: 127.0.0.1:{port}\n",
                data.display()
            ),
        )?;
        let command = Cmd::new("docker-registry").arg("serve").arg(config);
        let command = Limits::SERVER.apply(command);
        let ready = || http::get(port, "/v2/").is_ok();
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
