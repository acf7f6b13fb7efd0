//! What runs in a container, and what that uses.

use std::time::Duration;

use rbuild_sandbox::{ProcessStat, members, usage};

use super::Container;
use crate::BuildError;

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProcess {
    /// What the kernel shows of it, with its number on the host.
    pub stat: ProcessStat,
    /// Whose it is.
    pub user: u32,
    /// The program and its arguments; its name alone where it has shown none.
    pub command: Vec<String>,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Time on processors.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes that it may have, or the machine has.
    pub memory_limit: u64,
    /// Bytes received; nothing on the host's network, where nobody counts.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// Processes.
    pub processes: u64,
}

impl Container {
    /// The processes that run in it, by number.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it does not run.
    pub fn processes(&self) -> Result<Vec<ContainerProcess>, BuildError> {
        let all = self.of_process(|first| members(first).map_err(unread))?;
        Ok(all.into_iter().filter(|stat| !stat.is_zombie()).filter_map(described).collect())
    }

    /// What it uses now.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it does not run.
    pub fn usage(&self) -> Result<ContainerUsage, BuildError> {
        let (used, (received, sent)) = self.of_process(|first| {
            let network = |process: &str| fs_err::read_link(format!("/proc/{process}/ns/net")).ok();
            let own = network(&first.to_string()) != network("self");
            let traffic =
                own.then(|| fs_err::read_to_string(format!("/proc/{first}/net/dev")).ok());
            let traffic = traffic.flatten().map_or((0, 0), |text| traffic_of(&text));
            Ok((usage(first).map_err(unread)?, traffic))
        })?;
        let of_machine = || {
            let text = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            kibibytes.map_or(0, |kibibytes: u64| kibibytes * 1024)
        };
        Ok(ContainerUsage {
            cpu: used.cpu,
            memory: used.memory,
            memory_limit: self.record.spec.resources.memory.unwrap_or_else(of_machine),
            received,
            sent,
            read: used.read,
            written: used.written,
            processes: used.processes,
        })
    }
}

fn unread(source: std::io::Error) -> BuildError {
    BuildError::Io { what: "look at the container's processes".to_owned(), source }
}

/// A process that has ended meanwhile is none.
fn described(stat: ProcessStat) -> Option<ContainerProcess> {
    let status = fs_err::read_to_string(format!("/proc/{}/status", stat.pid)).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // The effective one is the second.
    let user = uids.split_whitespace().nth(1)?.parse().ok()?;
    let command = fs_err::read(format!("/proc/{}/cmdline", stat.pid)).ok()?;
    let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let mut command: Vec<_> =
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if command.is_empty() {
        command.push(format!("[{}]", stat.name));
    }
    Some(ContainerProcess { stat, user, command })
}

/// Bytes received and sent by all devices but loopback, of `/proc/PID/net/dev`.
fn traffic_of(text: &str) -> (u64, u64) {
    let devices = text.lines().filter_map(|line| line.split_once(':'));
    let devices = devices.filter(|(name, _)| name.trim() != "lo");
    devices.fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> =
            numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
        (received + number(0), sent + number(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_devices_but_loopback() {
        let text = "Inter-|   Receive            |  Transmit\n face |bytes  packets\n\
                    \x20   lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n\
                    \x20 eth0: 20 1 0 0 0 0 0 0 30 1 0 0 0 0 0 0\n eth1:1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(traffic_of(text), (21, 32));
        assert_eq!(traffic_of("x: y\nz"), (0, 0));
    }
}
