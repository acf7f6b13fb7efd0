//! What is to run and what it sees: plain data that crosses from the engine to the helper.
//!
//! Descriptors travel beside it ([`crate::Launch`]); the data names them by position.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Resources;
use crate::linux::capabilities::CapabilitySet;
use crate::linux::seccomp::SockFilter;

/// A process and its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The argument vector; the first word is looked up in the `PATH` of `env` when it has no
    /// slash.
    pub argv: Vec<String>,
    /// `NAME=value`; the only environment there is. `HOME` is added when it is missing.
    pub env: Vec<String>,
    /// Absolute working directory inside; made when it is missing.
    pub cwd: String,
    /// `USER` as written: looked up in the root filesystem's own passwd and group.
    pub user: String,
    /// Host name inside.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// Whether standard input, output and error are one terminal made inside.
    pub terminal: bool,
    /// Capabilities of the process.
    pub capabilities: CapabilitySet,
    /// Whether system calls are filtered, by Docker's profile unless `filter` says otherwise.
    pub seccomp: bool,
    /// The filter of system calls instead of that of Docker's profile.
    #[serde(default)]
    pub filter: Option<Vec<SockFilter>>,
    /// Whether nothing that the process executes gives it more than it has.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Supplementary groups besides those of the user: numbers, and names of the root filesystem's
    /// own group file.
    pub groups: Vec<String>,
    /// Devices besides those that every process has. Nothing but their permissions restricts what
    /// the process does with them.
    pub devices: Vec<DeviceNode>,
    /// What is mounted besides `/proc`, `/dev` and `/sys`. What lies in another mount comes after
    /// it, whatever the order here.
    pub mounts: Vec<Mount>,
    /// Files that exist inside and in no layer, such as `/etc/hosts`. They are laid over what
    /// the root filesystem has; a name that it lacks must have been made before.
    pub files: Vec<InjectedFile>,
    /// Whether the root filesystem may not be written.
    pub read_only: bool,
    /// Whether the process may use the host's devices, write to `/sys`, and see all of `/proc`:
    /// with all capabilities and no filter, nothing keeps it in.
    pub privileged: bool,
    /// Whether what of `/proc` and `/sys` shows or changes the host is left open.
    #[serde(default)]
    pub unmasked: bool,
    /// Whether process 1 is an init of ours: it passes signals on to the program and waits for
    /// whoever has lost its parent.
    #[serde(default)]
    pub init: bool,
    /// Which namespaces besides the network's are the host's.
    #[serde(default)]
    pub shared: SharedNamespaces,
    /// Domain name inside; empty is none.
    #[serde(default)]
    pub domainname: String,
    /// Settings of the kernel in the process' own namespaces: `net.core.somaxconn` and a value.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// Limits of the process itself.
    pub rlimits: Vec<Rlimit>,
    /// From -1000 to 1000: how willingly the kernel kills the process when the host's memory is
    /// used up.
    #[serde(default)]
    pub oom_score_adj: Option<i16>,
    /// Limits of the process and all that it starts.
    pub resources: Resources,
}

impl Spec {
    /// How the process is called in `/etc/hosts`.
    pub fn host_names(&self) -> String {
        let Self { hostname, domainname, .. } = self;
        match domainname.as_str() {
            "" => hostname.clone(),
            domainname => format!("{hostname}.{domainname} {hostname}"),
        }
    }
}

/// Namespaces of the host that a process is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// That of shared memory, semaphores and queues.
    pub ipc: bool,
    /// That of the host's name.
    pub uts: bool,
}

/// A limit that setrlimit(2) sets. `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited, in lower case without `RLIMIT_`.
    pub name: String,
    /// Where the process starts.
    pub soft: Option<u64>,
    /// How far it may raise that.
    pub hard: Option<u64>,
}

/// The network of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// One of its own that holds a loopback device and nothing else.
    None,
    /// The namespace of [`crate::Launch::network`].
    Given,
}

/// A device of the host, or a named pipe, made inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path inside. Outside of `/dev` a file must be there.
    pub path: String,
    /// What it is.
    pub kind: NodeKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Its user; `None` is that of the process.
    pub uid: Option<u32>,
    /// Its group; `None` is that of the process.
    pub gid: Option<u32>,
}

/// What a [`DeviceNode`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe; its numbers mean nothing.
    Fifo,
}

/// Something mounted inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside; links in it are followed inside the root filesystem only.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// Whether it may not be written.
    pub read_only: bool,
    /// Whether setuid and setgid programs in it are programs like others.
    pub no_suid: bool,
    /// Whether no program in it can be executed.
    pub no_exec: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum MountSource {
    /// The detached mount with this number in [`crate::Launch::mounts`], or one path in it.
    Detached {
        /// Which. No other mount may have the same.
        number: usize,
        /// A real path in it, that is, one without links; `/` is all of it.
        path: String,
    },
    /// An empty tmpfs.
    Tmpfs {
        /// Limit in bytes; the kernel's default is half of the memory.
        size: Option<u64>,
        /// Permissions of its root.
        mode: u32,
        /// User and group of its root.
        #[serde(default)]
        owner: (u32, u32),
        /// How many files it may hold; the kernel's default follows the memory.
        #[serde(default)]
        files: Option<u64>,
    },
}

impl MountSource {
    /// All of the detached mount with this number.
    pub fn whole(number: usize) -> Self {
        Self::Detached { number, path: "/".to_owned() }
    }
}

/// A file made inside at start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InjectedFile {
    /// Absolute path inside. Below `/dev` the file is made; elsewhere it is mounted over the
    /// file of that name.
    pub path: String,
    /// The bytes.
    pub content: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Whether it may not be written, whatever its permissions are.
    pub read_only: bool,
    /// Whether it is made where there is no place for it; else the process goes without.
    pub required: bool,
}

impl InjectedFile {
    /// A file of root's that the process may write, and goes without where there is no place for
    /// it: an image without `/etc` needs no `/etc/hosts`.
    pub fn new(path: impl Into<String>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self {
            path: path.into(),
            content: content.into(),
            mode,
            owner: (0, 0),
            read_only: false,
            required: false,
        }
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// With this code, after the kernel had killed it, or a process it started, because the
    /// memory that [`Resources`] grant was used up.
    OutOfMemory(i32),
}

impl Exit {
    /// The shell's number: the code, or 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
            Exit::OutOfMemory(code) => code,
        }
    }
}

/// What the helper is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) spec: Spec,
    pub(crate) place: Place,
}

/// Where a process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In namespaces of its own. The first descriptor is the root filesystem.
    Own,
    /// In those of a process that runs. The first descriptor is that process.
    Joined,
}

/// What the helper says, one JSON document a line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process started; its number on the host.
    Started { pid: u32 },
    /// The terminal was made; its master side rides on this message.
    Terminal,
    /// The program runs, or [`Report::Failed`] came before.
    Executed,
    /// It ended.
    Exited(Exit),
    /// It could not be started.
    Failed(StartFailure),
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFailure {
    /// What was being done: `mount /proc`, `find user "app"`.
    pub action: String,
    /// Why it failed.
    pub reason: String,
    /// 127 when the program is not there, 126 when it cannot be executed, 125 for the rest
    /// (Docker's exit codes).
    pub code: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Containers keep theirs on disk.
    #[test]
    fn a_spec_from_before_there_were_more_limits_is_read() {
        let text = r#"{"argv": ["sh"], "env": [], "cwd": "/", "user": "", "hostname": "h",
            "network": "Host", "terminal": false, "capabilities": 1, "seccomp": true, "groups": [],
            "devices": [], "files": [], "read_only": false, "privileged": false, "shm_size": null,
            "mounts": [{"target": "/t", "source": {"Tmpfs": {"size": null, "mode": 1023}},
                "read_only": false, "no_suid": false, "no_exec": false}],
            "rlimits": [], "resources": {"cgroup_parent": null, "memory": null,
                "memory_swap": null, "cpu_shares": null, "cpu_period": null, "cpu_quota": null,
                "cpuset_cpus": null, "cpuset_mems": null}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.resources, Resources::default());
        assert!(!spec.init && spec.filter.is_none() && spec.sysctls.is_empty());
    }
}
