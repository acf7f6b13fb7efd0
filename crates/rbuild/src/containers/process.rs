//! What runs in a container, as the caller wants it, and as the sandbox is told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rbuild_plan::{ExtraHost, Ulimit};
use rbuild_sandbox::linux::sysctl;
use rbuild_sandbox::{InjectedFile, Network, Resources, Rlimit, SharedNamespaces, Spec};
use rbuild_types::ImageConfig;
use serde::{Deserialize, Serialize};

use super::{Privileges, Tmpfs};
use crate::BuildError;
use crate::volume::Volume;

/// The search path of a process whose image names none (Docker's default).
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kind of terminal that a process is told to have, unless somebody knows better.
pub(crate) const TERM: &str = "TERM=xterm";

/// What runs in a container. [`Default`] is what the image says.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Replaces the image's `CMD` when it is not empty.
    pub argv: Vec<String>,
    /// Replaces the image's `ENTRYPOINT`; its `CMD` then does not count either.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// Working directory, over the image's.
    pub cwd: Option<String>,
    /// User, over the image's.
    pub user: Option<String>,
    /// Host name; the beginning of the id when not given.
    pub hostname: Option<String>,
    /// The network.
    pub network: ContainerNetwork,
    /// Name servers, domains and options instead of the host's (`--dns` and relatives).
    pub dns: Dns,
    /// Names with addresses, or with `host-gateway`, the host's address on the network.
    pub hosts: Vec<ExtraHost>,
    /// What is mounted, besides the volumes that the image declares.
    pub volumes: Vec<Volume>,
    /// Memory that is mounted.
    pub tmpfs: Vec<Tmpfs>,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Whether standard input stays open for those who attach; else it is empty.
    pub open_stdin: bool,
    /// Whether the root filesystem may not be written.
    pub read_only: bool,
    /// What it and all that it starts may use together.
    pub resources: Resources,
    /// Limits of each of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`; Docker's 64 MiB when not given.
    pub shm_size: Option<u64>,
    /// From -1000 to 1000: how willingly the kernel kills it when the host's memory is used up.
    pub oom_score_adj: Option<i16>,
    /// What it may do.
    pub privileges: Privileges,
    /// Whether an init is its first process, which passes signals on and waits for orphans.
    pub init: bool,
    /// Settings of the kernel, `net.core.somaxconn` and a value, in its own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Domain name; empty is none.
    pub domainname: String,
    /// Which namespaces besides the network's are the host's.
    pub shared: SharedNamespaces,
}

/// The network of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ContainerNetwork {
    /// The host's.
    #[default]
    Host,
    /// Loopback only.
    None,
    /// One of its own that is connected to networks.
    Connected(Connection),
}

/// How a container is connected to networks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Connection {
    /// The networks, of which the first leads everywhere.
    pub networks: Vec<Membership>,
    /// Published ports, in the words of `docker run -p`.
    pub ports: Vec<String>,
    /// Whether all ports that the image exposes are published too, each at a free port.
    pub publish_all: bool,
}

/// A container's membership of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's name, or the beginning of its id.
    pub network: String,
    /// By which names others find the container there, besides its own.
    pub aliases: Vec<String>,
    /// The address that it is to have; any when not given.
    pub address: Option<IpAddr>,
}

impl Connection {
    /// To one network, with nothing published.
    pub fn to(network: impl Into<String>) -> Self {
        let network = network.into();
        let networks = vec![Membership { network, aliases: Vec::new(), address: None }];
        Self { networks, ..Self::default() }
    }
}

/// What takes the place of what the host's `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains in which short names are looked for.
    pub search: Vec<String>,
    /// Options of the resolver library.
    pub options: Vec<String>,
}

/// What the sandbox runs, but for files and mounts, which are made for each start.
pub(super) fn spec(id: &str, config: &ImageConfig, process: &Process) -> Result<Spec, BuildError> {
    let image = &config.config;
    let command = || image.cmd.clone().unwrap_or_default();
    let mut argv = match &process.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => image.entrypoint.clone().unwrap_or_default(),
    };
    match (&process.entrypoint, process.argv.is_empty()) {
        (_, false) => argv.extend(process.argv.iter().cloned()),
        (None, true) => argv.extend(command()),
        (Some(_), true) => {}
    }
    if argv.is_empty() {
        return Err(BuildError::Request {
            message: "the image names no command: give one after its name".to_owned(),
        });
    }
    let hostname = match &process.hostname {
        Some(_) if process.shared.uts => {
            let message = "a container with the host's name has none of its own";
            return Err(BuildError::Request { message: message.to_owned() });
        }
        Some(hostname) => hostname.clone(),
        None if process.shared.uts => {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        }
        None => id.get(..12).unwrap_or(id).to_owned(),
    };
    let network = match &process.network {
        ContainerNetwork::Host => Network::Host,
        ContainerNetwork::None => Network::None,
        ContainerNetwork::Connected(_) => Network::Given,
    };
    check_limits(process, network)?;
    let defaults = [format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    let term = process.terminal.then(|| TERM.to_owned());
    let given = image.env.iter().chain(&process.env).cloned();
    let env = merged(defaults.into_iter().chain(term).chain(given));
    let cwd = process.cwd.clone().unwrap_or_else(|| image.working_dir.clone());
    let privileges = &process.privileges;
    let capabilities = privileges.capabilities()?;
    let (seccomp, filter) = privileges.filter(capabilities)?;
    let rlimit =
        |limit: &Ulimit| Rlimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard };
    Ok(Spec {
        argv,
        env,
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        user: process.user.clone().unwrap_or_else(|| image.user.clone()),
        files: Vec::new(),
        hostname,
        network,
        terminal: process.terminal,
        capabilities,
        seccomp,
        filter,
        no_new_privileges: privileges.no_new_privileges,
        groups: privileges.groups.clone(),
        devices: Vec::new(),
        mounts: process.tmpfs.iter().map(Tmpfs::mount).collect(),
        read_only: process.read_only,
        privileged: privileges.privileged,
        unmasked: privileges.unmasked,
        init: process.init,
        shared: process.shared,
        domainname: process.domainname.clone(),
        sysctls: process.sysctls.clone(),
        shm_size: process.shm_size,
        rlimits: process.ulimits.iter().map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj,
        resources: process.resources.clone(),
    })
}

/// Refuses what cannot be before anything is made.
fn check_limits(process: &Process, network: Network) -> Result<(), BuildError> {
    let refused = |message: String| Err(BuildError::Request { message });
    if let Some(problem) = process.resources.problem() {
        return refused(problem);
    }
    if let Some(score) = process.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return refused(format!("a score of {score} for the kernel: it is from -1000 to 1000"));
    }
    for name in process.sysctls.keys() {
        if let Some(problem) = sysctl::problem(name, network, process.shared) {
            return refused(format!("sysctl {name}: {problem}"));
        }
    }
    Ok(())
}

/// What Docker sets in the network of a container where nobody says otherwise: any user may listen on
/// any port, and send echo requests.
pub(super) fn add_sysctls(spec: &mut Spec) {
    if spec.network == Network::Host {
        return;
    }
    let defaults = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ];
    for (name, value) in defaults {
        spec.sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// Variables, each once: a later one takes the place of an earlier one of the same name.
pub(crate) fn merged(variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        match places.get(&name).and_then(|place| env.get_mut(*place)) {
            Some(there) => *there = variable,
            None => {
                places.insert(name, env.len());
                env.push(variable);
            }
        }
    }
    env
}

/// The files that a container has and no image. Who has an address finds it in `hosts` once it has it.
pub(super) fn files(spec: &Spec, extra: &[ExtraHost], resolv_conf: &str) -> Vec<InjectedFile> {
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if spec.network != Network::Given {
        hosts.push_str(&format!("127.0.1.1\t{}\n", spec.host_names()));
    }
    for ExtraHost { name, address } in extra {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    vec![
        InjectedFile::new("/etc/hosts", hosts, 0o644),
        InjectedFile::new("/etc/hostname", format!("{}\n", spec.hostname), 0o644),
        InjectedFile::new("/etc/resolv.conf", resolv_conf, 0o644),
    ]
}
