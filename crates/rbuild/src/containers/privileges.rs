//! What the process of a container may do, besides what Docker grants by default.

use std::path::PathBuf;

use rbuild_sandbox::linux::capabilities::{Capability, CapabilitySet};
use rbuild_sandbox::linux::seccomp::{SockFilter, profile_filter};
use serde::{Deserialize, Serialize};

use crate::BuildError;

/// The word for all capabilities.
const ALL: &str = "ALL";

/// Privileges of a container. [`Default`] is what Docker grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Whether nothing keeps the process in: it has all capabilities and the host's devices, and its
    /// system calls are not filtered.
    pub privileged: bool,
    /// Capabilities that it has besides, in any case, with or without `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities that it has not; `ALL` for all but those that are added.
    pub cap_drop: Vec<String>,
    /// Which system calls it may make.
    pub system_calls: SystemCalls,
    /// Whether nothing that it executes gives it more than it has.
    pub no_new_privileges: bool,
    /// Whether what of `/proc` and `/sys` shows or changes the host is left open.
    pub unmasked: bool,
    /// Supplementary groups, by number or by name in the image.
    pub groups: Vec<String>,
    /// Devices.
    pub devices: Vec<DeviceRequest>,
}

/// Which system calls a process may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemCalls {
    /// Those of Docker's profile.
    #[default]
    Docker,
    /// All.
    All,
    /// Those of another profile.
    Profile {
        /// What it is called.
        name: String,
        /// Its text, a document as Docker takes it.
        text: String,
    },
}

/// Devices that a container is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceRequest {
    /// One of the host, or all in a directory of it.
    Path {
        /// Where it is on the host.
        host: PathBuf,
        /// Absolute path inside.
        target: String,
    },
    /// What the Container Device Interface describes: `vendor/class=device`.
    Described(String),
}

impl Privileges {
    /// The capabilities, by Docker's rules (moby `oci/caps/utils.go`).
    pub(super) fn capabilities(&self) -> Result<CapabilitySet, BuildError> {
        let (add, all_added) = set(&self.cap_add)?;
        let (drop, all_dropped) = set(&self.cap_drop)?;
        Ok(match () {
            () if self.privileged => CapabilitySet::all(),
            () if all_added => CapabilitySet::all() - drop,
            () if all_dropped => add,
            () => (CapabilitySet::docker_default() - drop) | add,
        })
    }

    /// Whether system calls are filtered, and by which filter instead of Docker's.
    pub(super) fn filter(
        &self,
        granted: CapabilitySet,
    ) -> Result<(bool, Option<Vec<SockFilter>>), BuildError> {
        match &self.system_calls {
            SystemCalls::Docker => Ok((!self.privileged, None)),
            SystemCalls::All => Ok((false, None)),
            SystemCalls::Profile { name, text } => {
                let filter = profile_filter(text, granted).map_err(|problem| {
                    BuildError::Request { message: format!("seccomp profile {name}: {problem}") }
                })?;
                Ok((true, Some(filter)))
            }
        }
    }
}

/// The capabilities of a list, and whether it names all.
fn set(names: &[String]) -> Result<(CapabilitySet, bool), BuildError> {
    let (mut set, mut all) = (CapabilitySet::EMPTY, false);
    for name in names {
        let name = name.trim();
        if name.eq_ignore_ascii_case(ALL) || name.eq_ignore_ascii_case("CAP_ALL") {
            all = true;
            continue;
        }
        let capability: Capability = name.parse().map_err(|_| BuildError::Request {
            message: format!("unknown capability {name:?}: for example NET_ADMIN, or ALL"),
        })?;
        set = set.with(capability);
    }
    Ok((set, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> CapabilitySet {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let privileges =
            Privileges { cap_add: list(add), cap_drop: list(drop), ..Privileges::default() };
        privileges.capabilities().unwrap()
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_in_docker() {
        let default = CapabilitySet::docker_default();
        assert_eq!(of(&[], &[]), default);
        let time = CapabilitySet::EMPTY.with(Capability::SYS_TIME);
        assert_eq!(of(&["sys_time"], &["CAP_CHOWN"]), (default | time).without(Capability::CHOWN));
        assert_eq!(of(&[], &["all"]), CapabilitySet::EMPTY);
        assert_eq!(of(&["Cap_Sys_Time"], &["ALL"]), time);
        assert_eq!(of(&["ALL"], &["SYS_TIME"]), CapabilitySet::all() - time);
        assert_eq!(of(&["ALL"], &["ALL"]), CapabilitySet::all());
        // Who is in both is added.
        assert_eq!(of(&["CHOWN"], &["CHOWN"]), default);
        let everything = Privileges { privileged: true, ..Privileges::default() };
        assert_eq!(everything.capabilities().unwrap(), CapabilitySet::all());
        let unknown = Privileges { cap_add: vec!["NOPE".to_owned()], ..Privileges::default() };
        let error = unknown.capabilities().unwrap_err().to_string();
        assert!(error.contains("unknown capability \"NOPE\""), "{error}");
    }
}
