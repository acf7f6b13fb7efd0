//! What a supervisor is told: plain data that crosses from the engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rbuild_sandbox::{Resources, Spec};
use serde::{Deserialize, Serialize};

use crate::health::HealthChecks;
use crate::logs::LogOptions;
use crate::network::Connect;

/// Everything that a supervisor needs. Descriptors travel beside it: the container's lock first,
/// then whatever else is to be held while it runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The container's directory.
    pub directory: PathBuf,
    /// The program to start as the sandbox's helper.
    pub helper: PathBuf,
    /// What to run, but for what is mounted from the host.
    pub spec: Spec,
    /// The layers of the root filesystem, the bottom first.
    pub lowers: Vec<PathBuf>,
    /// What is mounted from the host.
    pub binds: Vec<Bind>,
    /// Whether what the process writes into its root filesystem must survive a crash of the
    /// machine, as far as it asks for that: leaving the mount then costs a sync.
    pub lasting: bool,
    /// Whether standard input stays open for those who attach; else it is empty.
    pub open_stdin: bool,
    /// Whether the container is removed when it ends.
    pub auto_remove: bool,
    /// Whether who starts it gets all that it writes, from the first byte on. Then its input ends
    /// with that one's; else with nobody's.
    pub attach: bool,
    /// Whether the container ends with the connection of who started it.
    pub tied: bool,
    /// How it is connected, with [`rbuild_sandbox::Network::Given`].
    pub connect: Option<Connect>,
    /// When it is started again.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// How its output is kept.
    pub log: LogOptions,
    /// How its health is checked.
    pub health: Option<HealthChecks>,
    /// What is said of it in events.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// A path of the host that shows inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The host's.
    pub path: PathBuf,
    /// Absolute path inside; made when it is missing.
    pub target: String,
    /// Whether it may not be written.
    pub read_only: bool,
    /// Whether setuid and setgid programs in it are programs like others.
    pub no_suid: bool,
    /// Whether no program in it can be executed.
    pub no_exec: bool,
}

/// When a container is started again after it ended by itself (`docker run --restart`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times in a row at most.
    OnFailure {
        /// `None` is without end.
        limit: Option<u32>,
    },
    /// Always, but for a stop.
    Always,
    /// The same; the difference shows only where containers are started with the machine.
    UnlessStopped,
}

impl Restart {
    /// Whether a process that ended with this code is started again, after so many restarts.
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure { limit } => code != 0 && limit.is_none_or(|limit| restarts < limit),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }
}

/// What of a container's orders may change while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// What the process and all that it starts may use.
    pub resources: Resources,
    /// When it is started again.
    pub restart: Restart,
}

/// How a container is stopped: a signal, and SIGKILL if that is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Number of the signal.
    pub signal: i32,
    /// How long it may take; `None` is for ever.
    pub patience: Option<Duration>,
}

/// An order to stop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct StopOrder {
    /// How.
    pub stop: Stop,
    /// Whether the container is kept although it goes when it ends: it is about to be started again.
    pub keep: bool,
}

impl Default for Stop {
    /// SIGTERM and 10 s, as Docker does.
    fn default() -> Self {
        Self { signal: 15, patience: Some(Duration::from_secs(10)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_look_at_the_code_and_count() {
        let limited = Restart::OnFailure { limit: Some(2) };
        assert_eq!([0, 1, 2].map(|restarts| limited.wants(1, restarts)), [true, true, false]);
        assert!(!limited.wants(0, 0) && !Restart::No.wants(1, 0));
        assert!(Restart::OnFailure { limit: None }.wants(1, 9999));
        assert!(Restart::Always.wants(0, 9) && Restart::UnlessStopped.wants(0, 9));
    }
}
