//! Another network namespace, with a cable to this one.

use std::net::Ipv4Addr;

use crate::command::Cmd;
use crate::failure::Outcome;
use crate::paths;
use crate::service::Service;

/// This end's address and the other's (RFC 5737: for documentation, so nobody has them).
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The namespace; it and the cable go with this value.
pub(crate) struct Neighbour {
    service: Service,
}

impl Neighbour {
    /// Makes it. Only one may be there at a time.
    pub(crate) fn new() -> Outcome<Self> {
        let log = paths::scratch("neighbour")?.join("log");
        let script = "echo ready; exec sleep 1000000";
        let command = Cmd::new("unshare").args(["--net", "sh", "-c", script]);
        let ready = || fs_err::read_to_string(&log).is_ok_and(|text| text.contains("ready"));
        let service = Service::start("neighbour", command, &log, ready)?;
        let neighbour = Self { service };
        let pid = neighbour.service.id().to_string();
        let ip = |words: &str| Cmd::new("ip").words(words);
        ip("link add cable0 type veth peer name cable1 netns").arg(&pid).output()?;
        ip("addr add").arg(format!("{HOST}/24")).words("dev cable0").output()?;
        ip("link set cable0 up").output()?;
        let there = |words: &str| neighbour.cmd(&ip(words)).output();
        there(&format!("addr add {NEIGHBOUR}/24 dev cable1"))?;
        there("link set cable1 up")?;
        Ok(neighbour)
    }

    /// This end's address, as the neighbour sees it.
    pub(crate) fn host(&self) -> Ipv4Addr {
        HOST
    }

    /// Its own address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        NEIGHBOUR
    }

    /// A command, there.
    pub(crate) fn cmd(&self, command: &Cmd) -> Cmd {
        let enter = Cmd::new("nsenter").arg("-n").arg("-t").arg(self.service.id().to_string());
        command.clone().behind(&enter)
    }
}
