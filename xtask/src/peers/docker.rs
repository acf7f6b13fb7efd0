//! Debian's dockerd with a store, a socket and limits of its own. On the host's network it makes no
//! bridge and no firewall rule, so its containers are on that too, or on none; in a network namespace
//! of its own it does as it always does.

use std::path::{Path, PathBuf};

use crate::command::{Cmd, find};
use crate::failure::{Outcome, fail};
use crate::paths;
use crate::service::{Limits, Service};

/// A daemon that runs while this value lives. The fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Docker {
    _service: Service,
    state: State,
    client: PathBuf,
}

/// The folder of sockets; its path must be short, because a socket's path is below 108 bytes.
#[derive(Debug)]
struct State(PathBuf);

impl Drop for State {
    fn drop(&mut self) {
        if let Err(failure) = paths::remove(&self.0) {
            eprintln!("warning: {failure}");
        }
    }
}

/// Where a daemon and its containers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Namespace,
}

impl Docker {
    /// Starts it with its images below `dir`.
    pub(crate) fn start(dir: &Path) -> Outcome<Self> {
        Self::start_in(Place::Host, dir)
    }

    /// Starts it in a network namespace of its own, where its containers get a bridge.
    pub(crate) fn start_bridged(dir: &Path) -> Outcome<Self> {
        Self::start_in(Place::Namespace, dir)
    }

    fn start_in(place: Place, dir: &Path) -> Outcome<Self> {
        let Some(daemon) = find("dockerd") else { return fail("dockerd is not installed") };
        // Debian's own client: a newer one elsewhere in PATH needs plugins to build.
        let packaged = Some(PathBuf::from("/usr/bin/docker")).filter(|p| p.is_file());
        let Some(client) = packaged.or_else(|| find("docker")) else {
            return fail("docker is not installed");
        };
        fs_err::create_dir_all(dir)?;
        let state =
            State(std::env::temp_dir().join(format!("xtask-{place:?}-{}", std::process::id())));
        fs_err::create_dir_all(state.0.join("config"))?;
        let command = Cmd::new(daemon)
            .words("--log-level=warn")
            .words(match place {
                Place::Host => "--iptables=false --ip6tables=false --bridge=none",
                Place::Namespace => "",
            })
            .arg("--data-root")
            .arg(dir.join("docker"))
            .arg("--exec-root")
            .arg(state.0.join("exec"))
            .arg("--pidfile")
            .arg(state.0.join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", state.0.join("sock").display()))
            .env("GOMAXPROCS", "2");
        let command = Limits::SERVER.apply(command);
        let command = match place {
            Place::Host => command,
            Place::Namespace => command.behind(&Cmd::new("unshare").arg("--net")),
        };
        let ask = client_cmd(&client, &state.0).arg("version");
        let ready = || ask.capture().is_ok_and(|o| o.status.success());
        let service = Service::start("dockerd", command, &dir.join("dockerd.log"), ready)?;
        Ok(Self { _service: service, state, client })
    }

    /// `docker …` on this daemon, with BuildKit as the builder.
    pub(crate) fn cmd(&self) -> Cmd {
        client_cmd(&self.client, &self.state.0)
    }
}

fn client_cmd(client: &Path, state: &Path) -> Cmd {
    Cmd::new(client)
        .env("DOCKER_HOST", format!("unix://{}", state.join("sock").display()))
        .env("DOCKER_CONFIG", state.join("config"))
        .env("DOCKER_BUILDKIT", "1")
}
