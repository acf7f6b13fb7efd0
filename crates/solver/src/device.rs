//! Devices that steps are given: what the engine makes of their names.

use std::path::PathBuf;

use rbuild_plan::op::Device;
use rbuild_sandbox::DeviceNode;

use crate::error::StepError;

/// Knows the machine's devices. Implemented by the engine.
pub trait Devices: Sync {
    /// What these devices add to a process, as the machine is now. One that is not there, and
    /// that the step can do without, adds nothing.
    fn edits(&self, devices: &[Device]) -> Result<DeviceEdits, StepError>;
}

/// What devices add to a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceEdits {
    /// `NAME=value`, in the place of variables of the same names.
    pub env: Vec<String>,
    /// Nodes.
    pub nodes: Vec<DeviceNode>,
    /// Files and directories of the host.
    pub mounts: Vec<HostMount>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A file or directory of the host that a process sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
    /// Whether it may not be written.
    pub read_only: bool,
    /// Whether setuid and setgid programs in it are programs like others.
    pub no_suid: bool,
    /// Whether no program in it can be executed.
    pub no_exec: bool,
}
