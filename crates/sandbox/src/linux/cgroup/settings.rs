//! From limits to the files of a control group.

use crate::Resources;

/// A part of the kernel that limits something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Memory, Self::Cpu, Self::Cpuset];

    /// Its name in the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
        }
    }
}

/// Which of the two kinds of control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy for each controller.
    One,
    /// The unified hierarchy.
    Two,
}

/// One file and what is written to it.
pub(super) type Setting = (&'static str, String);

/// Whether anything is asked of this controller.
pub(super) fn is_wanted(resources: &Resources, controller: Controller) -> bool {
    !settings(resources, controller, Version::One).is_empty()
}

/// What is written to the files of one controller, in order.
pub(super) fn settings(
    resources: &Resources,
    controller: Controller,
    version: Version,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    let Resources { memory, memory_swap, cpu_shares, cpu_period, cpu_quota, .. } = resources;
    let mut set = |file, value: Option<String>| settings.extend(value.map(|value| (file, value)));
    match (controller, version) {
        (Controller::Memory, Version::One) => {
            set("memory.limit_in_bytes", memory.map(|bytes| bytes.to_string()));
            set("memory.memsw.limit_in_bytes", memory_swap.map(|bytes| bytes.max(-1).to_string()));
        }
        (Controller::Memory, Version::Two) => {
            set("memory.max", memory.map(|bytes| bytes.to_string()));
            // There it is swap alone.
            let swap = memory_swap.map(|both| match u64::try_from(both) {
                Ok(both) => both.saturating_sub(memory.unwrap_or(0)).to_string(),
                Err(_) => "max".to_owned(),
            });
            set("memory.swap.max", swap);
        }
        (Controller::Cpu, Version::One) => {
            set("cpu.shares", cpu_shares.map(|shares| shares.to_string()));
            set("cpu.cfs_period_us", cpu_period.map(|period| period.to_string()));
            set("cpu.cfs_quota_us", cpu_quota.map(|quota| quota.max(-1).to_string()));
        }
        (Controller::Cpu, Version::Two) => {
            set("cpu.weight", cpu_shares.map(|shares| weight(shares).to_string()));
            if cpu_period.is_some() || cpu_quota.is_some() {
                let quota = cpu_quota.and_then(|quota| u64::try_from(quota).ok());
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                // The kernel's own period.
                let period = cpu_period.unwrap_or(100_000);
                set("cpu.max", Some(format!("{quota} {period}")));
            }
        }
        (Controller::Cpuset, _) => {
            set("cpuset.cpus", resources.cpuset_cpus.clone());
            set("cpuset.mems", resources.cpuset_mems.clone());
        }
    }
    settings
}

/// Shares are from 2 to 262144, weights from 1 to 10000, and both are linear
/// (`kubernetes/enhancements` KEP-2254).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_get_the_same_limits() {
        let resources = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            cpu_shares: Some(1024),
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: None,
            cgroup_parent: None,
        };
        let of = |version| -> Vec<String> {
            let each = Controller::ALL.map(|one| settings(&resources, one, version));
            each.into_iter().flatten().map(|(file, value)| format!("{file}={value}")).collect()
        };
        assert_eq!(
            of(Version::One),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=100663296",
                "cpu.shares=1024",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=25000",
                "cpuset.cpus=0-1",
            ]
        );
        assert_eq!(
            of(Version::Two),
            [
                "memory.max=67108864",
                "memory.swap.max=33554432",
                "cpu.weight=39",
                "cpu.max=25000 50000",
                "cpuset.cpus=0-1",
            ]
        );
    }

    #[test]
    fn no_limit_is_a_value_too() {
        let resources = Resources {
            memory_swap: Some(-1),
            cpu_quota: Some(-5),
            cpu_shares: Some(u64::MAX),
            ..Resources::default()
        };
        let of = |controller, version| settings(&resources, controller, version);
        let pair = |file, value: &str| vec![(file, value.to_owned())];
        assert_eq!(of(Controller::Memory, Version::One), pair("memory.memsw.limit_in_bytes", "-1"));
        assert_eq!(of(Controller::Memory, Version::Two), pair("memory.swap.max", "max"));
        assert_eq!(
            of(Controller::Cpu, Version::Two),
            [("cpu.weight", "10000".to_owned()), ("cpu.max", "max 100000".to_owned())]
        );
        assert!(!is_wanted(&Resources::default(), Controller::Memory));
    }
}
