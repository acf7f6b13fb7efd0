//! What a process and all it starts may use together.

use serde::{Deserialize, Serialize};

use crate::SandboxError;
use crate::linux::cgroup;

/// Least memory that a process can be limited to (Docker's number).
const MIN_MEMORY: u64 = 6 << 20;
/// Least `nano_cpus`: a quota of 1000 microseconds in Docker's period.
const MIN_NANO_CPUS: u64 = 10_000_000;
/// Bounds of the kernel for `cpu_period` and least `cpu_quota`, in microseconds.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// Limits that a control group holds, with Docker's names. Nothing is limited by default, and
/// then there is no group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The group below which that of the process is made; `/rbuild` when not given.
    pub cgroup_parent: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; a negative number is no limit of swap. Twice `memory` when
    /// not given, as far as the kernel limits swap.
    pub memory_swap: Option<i64>,
    /// Processors, in parts of a thousand million: another way to say `cpu_quota`.
    #[serde(default)]
    pub nano_cpus: Option<u64>,
    /// Weight beside other groups; 1024 is that of a group without one.
    pub cpu_shares: Option<u64>,
    /// The period that `cpu_quota` is counted in, in microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period; a negative number is no limit.
    pub cpu_quota: Option<i64>,
    /// Processors, such as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    #[serde(default)]
    pub pids: Option<u64>,
}

impl Resources {
    /// Bytes of memory and swap together, where they are limited or said not to be.
    pub fn memory_and_swap(&self) -> Option<i64> {
        let twice = |memory: u64| i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX);
        self.memory_swap.or_else(|| self.memory.map(twice))
    }

    /// Changes the limits of a process that runs, and was started with such limits. What is not given
    /// stays as it is.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Start`] when the process has no control group of its own for one of them, or
    /// the kernel refuses.
    pub fn change(&self, pid: u32) -> Result<(), SandboxError> {
        cgroup::change(pid, self).map_err(SandboxError::Start)
    }

    /// These, and the others' where these say nothing. Another way to say the same takes the place of
    /// the first.
    pub fn over(self, others: &Self) -> Self {
        let says_time = self.cpu_period.is_some() || self.cpu_quota.is_some();
        let others = others.clone();
        Self {
            cgroup_parent: self.cgroup_parent.or(others.cgroup_parent),
            memory: self.memory.or(others.memory),
            memory_swap: self.memory_swap.or(others.memory_swap),
            nano_cpus: self.nano_cpus.or(others.nano_cpus.filter(|_| !says_time)),
            cpu_shares: self.cpu_shares.or(others.cpu_shares),
            cpu_period: self.cpu_period.or(others.cpu_period.filter(|_| self.nano_cpus.is_none())),
            cpu_quota: self.cpu_quota.or(others.cpu_quota.filter(|_| self.nano_cpus.is_none())),
            cpuset_cpus: self.cpuset_cpus.or(others.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.or(others.cpuset_mems),
            pids: self.pids.or(others.pids),
        }
    }

    /// What is wrong with them, if anything is that can be seen without a kernel.
    pub fn problem(&self) -> Option<String> {
        if let Some(memory) = self.memory
            && memory < MIN_MEMORY
        {
            return Some(format!("a memory limit of {memory} bytes is too small: 6m is the least"));
        }
        if let Some(swap) = self.memory_swap.and_then(|swap| u64::try_from(swap).ok()) {
            match self.memory {
                None => {
                    return Some("a limit of memory and swap needs one of memory too".to_owned());
                }
                Some(memory) if swap < memory => {
                    return Some("the limit of memory and swap is below that of memory".to_owned());
                }
                Some(_) => {}
            }
        }
        if self.cpu_period.is_some_and(|period| !PERIODS.contains(&period)) {
            return Some("a period is from 1000 to 1000000 microseconds".to_owned());
        }
        if self.cpu_quota.is_some_and(|quota| (0..1_000).contains(&quota)) {
            return Some("a quota is 1000 microseconds or more, or -1".to_owned());
        }
        if self.nano_cpus.is_some_and(|cpus| cpus < MIN_NANO_CPUS) {
            return Some("a hundredth of a processor is the least".to_owned());
        }
        if self.nano_cpus.is_some() && (self.cpu_period.is_some() || self.cpu_quota.is_some()) {
            return Some(
                "a number of processors excludes a period and a quota: they say the same"
                    .to_owned(),
            );
        }
        let parent = self.cgroup_parent.as_deref().unwrap_or_default();
        if parent.split('/').any(|name| name == ".." || name == ".") || parent.contains('\0') {
            return Some(format!("{parent:?} is no name of a control group"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_limits_stand_over_earlier_ones() {
        let none = Resources::default();
        let first =
            Resources { memory: Some(1), cpu_quota: Some(5), pids: Some(2), ..none.clone() };
        let second = Resources { memory: Some(3), nano_cpus: Some(4), ..none.clone() };
        let both = Resources { memory: Some(3), nano_cpus: Some(4), pids: Some(2), ..none.clone() };
        assert_eq!(second.clone().over(&first), both);
        let time = Resources { memory: Some(1), cpu_quota: Some(5), pids: Some(2), ..none.clone() };
        assert_eq!(first.over(&both), time);
        assert_eq!(none.over(&second), second);
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused() {
        let none = Resources::default();
        let memory = |memory, memory_swap| Resources { memory, memory_swap, ..none.clone() };
        for good in [
            none.clone(),
            memory(Some(6 << 20), None),
            memory(Some(1 << 30), Some(1 << 30)),
            memory(Some(1 << 30), Some(-1)),
            memory(None, Some(-1)),
            Resources { cpu_quota: Some(-1), cpu_period: Some(1_000), ..none.clone() },
            Resources { nano_cpus: Some(1_500_000_000), ..none.clone() },
            Resources { cgroup_parent: Some("/a/b.slice".to_owned()), ..none.clone() },
        ] {
            assert_eq!(good.problem(), None, "{good:?}");
        }
        for bad in [
            memory(Some(1), None),
            memory(None, Some(1 << 30)),
            memory(Some(2 << 30), Some(1 << 30)),
            Resources { cpu_period: Some(10), ..none.clone() },
            Resources { cpu_quota: Some(10), ..none.clone() },
            Resources { nano_cpus: Some(9_999_999), ..none.clone() },
            Resources { nano_cpus: Some(1 << 30), cpu_quota: Some(5_000), ..none.clone() },
            Resources { cgroup_parent: Some("../x".to_owned()), ..none.clone() },
        ] {
            assert!(bad.problem().is_some(), "{bad:?}");
        }
    }
}
