//! From limits to the files of a control group.

use crate::Resources;

/// A part of the kernel that limits something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids];

    /// Its name in the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
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

/// The kernel's own period of `cpu_quota`, and Docker's for `nano_cpus`.
const PERIOD: u64 = 100_000;

/// One file and what is written to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Whether the kernel must have it; else it was not asked for.
    pub(super) required: bool,
}

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
    let Resources { memory, cpu_shares, .. } = resources;
    let memory_swap = resources.memory_and_swap();
    let (period, quota) = time(resources);
    let mut add = |file, value: Option<String>, required| {
        settings.extend(value.map(|value| Setting { file, value, required }));
    };
    // Kernels may count memory and not swap.
    let swap_is_asked_for = resources.memory_swap.is_some();
    match (controller, version) {
        (Controller::Memory, Version::One) => {
            add("memory.limit_in_bytes", memory.map(|bytes| bytes.to_string()), true);
            let swap = memory_swap.map(|bytes| bytes.max(-1).to_string());
            add("memory.memsw.limit_in_bytes", swap, swap_is_asked_for);
        }
        (Controller::Memory, Version::Two) => {
            add("memory.max", memory.map(|bytes| bytes.to_string()), true);
            // There it is swap alone.
            let swap = memory_swap.map(|both| match u64::try_from(both) {
                Ok(both) => both.saturating_sub(memory.unwrap_or(0)).to_string(),
                Err(_) => "max".to_owned(),
            });
            add("memory.swap.max", swap, swap_is_asked_for);
        }
        (Controller::Cpu, Version::One) => {
            add("cpu.shares", cpu_shares.map(|shares| shares.to_string()), true);
            add("cpu.cfs_period_us", period.map(|period| period.to_string()), true);
            add("cpu.cfs_quota_us", quota.map(|quota| quota.max(-1).to_string()), true);
        }
        (Controller::Cpu, Version::Two) => {
            add("cpu.weight", cpu_shares.map(|shares| weight(shares).to_string()), true);
            if period.is_some() || quota.is_some() {
                let quota = quota.and_then(|quota| u64::try_from(quota).ok());
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                add("cpu.max", Some(format!("{quota} {}", period.unwrap_or(PERIOD))), true);
            }
        }
        (Controller::Cpuset, _) => {
            add("cpuset.cpus", resources.cpuset_cpus.clone(), true);
            add("cpuset.mems", resources.cpuset_mems.clone(), true);
        }
        (Controller::Pids, _) => {
            add("pids.max", resources.pids.map(|count| count.to_string()), true)
        }
    }
    settings
}

/// Period and quota.
fn time(resources: &Resources) -> (Option<u64>, Option<i64>) {
    match resources.nano_cpus {
        None => (resources.cpu_period, resources.cpu_quota),
        Some(cpus) => {
            let quota = u128::from(cpus) * u128::from(PERIOD) / 1_000_000_000;
            (Some(PERIOD), Some(i64::try_from(quota).unwrap_or(i64::MAX)))
        }
    }
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
            pids: Some(9),
            ..Resources::default()
        };
        let of = |version| -> Vec<String> {
            let each = Controller::ALL.map(|one| settings(&resources, one, version));
            let shown = |setting: Setting| format!("{}={}", setting.file, setting.value);
            each.into_iter().flatten().map(shown).collect()
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
                "pids.max=9",
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
                "pids.max=9",
            ]
        );
    }

    #[test]
    fn swap_follows_memory_where_the_kernel_counts_it() {
        let resources = Resources { memory: Some(10 << 20), ..Resources::default() };
        let swap = |version, resources: &Resources| {
            let settings = settings(resources, Controller::Memory, version);
            let Setting { value, required, .. } = settings.into_iter().next_back().unwrap();
            (value, required)
        };
        assert_eq!(swap(Version::One, &resources), ("20971520".to_owned(), false));
        assert_eq!(swap(Version::Two, &resources), ("10485760".to_owned(), false));
        let resources = Resources { memory_swap: Some(-1), ..resources };
        assert_eq!(swap(Version::Two, &resources), ("max".to_owned(), true));
    }

    #[test]
    fn processors_are_a_quota() {
        let resources = Resources { nano_cpus: Some(1_500_000_000), ..Resources::default() };
        let of = |version| {
            let settings = settings(&resources, Controller::Cpu, version);
            settings.into_iter().map(|setting| setting.value).collect::<Vec<_>>()
        };
        assert_eq!(of(Version::One), ["100000", "150000"]);
        assert_eq!(of(Version::Two), ["150000 100000"]);
    }

    #[test]
    fn no_limit_is_a_value_too() {
        let resources = Resources {
            memory_swap: Some(-1),
            cpu_quota: Some(-5),
            cpu_shares: Some(u64::MAX),
            ..Resources::default()
        };
        let of = |controller, version| {
            let settings = settings(&resources, controller, version);
            settings.into_iter().map(|it| (it.file, it.value)).collect::<Vec<_>>()
        };
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
