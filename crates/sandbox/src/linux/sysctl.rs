//! Settings of the kernel that a process has in namespaces of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::BorrowedFd;

use rbuild_rooted::openat2;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::linux::child::During as _;
use crate::{Network, SharedNamespaces, StartFailure};

/// Settings of the namespace of shared memory, semaphores and queues, besides those below
/// `fs.mqueue`.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Why a setting cannot be a process' own, if it cannot. `/` may stand for `.`, as for sysctl(8).
pub fn problem(name: &str, network: Network, shared: SharedNamespaces) -> Option<String> {
    let name = name.replace('/', ".");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !name.split('.').all(|part| !part.is_empty() && part.bytes().all(plain)) {
        return Some("it is no name of a setting".to_owned());
    }
    let of_host = |what: &str| Some(format!("the container has the host's {what}"));
    if name.starts_with("net.") {
        return if network == Network::Host { of_host("network") } else { None };
    }
    if name.starts_with("fs.mqueue.") || OF_IPC.contains(&name.as_str()) {
        return if shared.ipc { of_host("shared memory and queues") } else { None };
    }
    Some(
        "it is the whole machine's: net.*, fs.mqueue.* and those of System V IPC are not"
            .to_owned(),
    )
}

/// Makes the settings. `/proc` is the process' own, and not read-only yet.
pub(crate) fn set(
    root: BorrowedFd<'_>,
    settings: &BTreeMap<String, String>,
) -> Result<(), StartFailure> {
    for (name, value) in settings {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat2(root, path.as_str(), flags, Mode::empty(), resolve);
        let written = file.map_err(std::io::Error::from).and_then(|file| {
            // In one call: the kernel takes each for a value.
            std::fs::File::from(file).write_all(value.as_bytes())
        });
        written.during(format_args!("set sysctl {name} to {value}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_a_namespace_of_its_own_is_set() {
        let own = SharedNamespaces::default();
        for name in
            ["net.core.somaxconn", "net/ipv4/ip_forward", "kernel.shmmax", "fs.mqueue.msg_max"]
        {
            assert_eq!(problem(name, Network::None, own), None, "{name}");
        }
        assert!(problem("net.core.somaxconn", Network::Host, own).is_some());
        let ipc = SharedNamespaces { ipc: true, uts: false };
        assert!(problem("kernel.shmmax", Network::None, ipc).is_some());
        for name in
            ["kernel.panic", "vm.swappiness", "kernel.hostname", "", "net..x", "net.", "net.a b"]
        {
            assert!(problem(name, Network::None, own).is_some(), "{name}");
        }
        for name in ["net.../../kernel/panic", "net.\0"] {
            assert!(problem(name, Network::None, own).is_some(), "{name}");
        }
    }
}
