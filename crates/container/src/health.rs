//! Health: how it is checked, and what became of that.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many results are kept, as in Docker.
const KEPT: usize = 5;

/// How the health of a container is checked: a program is run in it, again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthChecks {
    /// The program and its arguments; it ends with 0 when all is well.
    pub argv: Vec<String>,
    /// The test in the words of whoever gave it, as `["CMD-SHELL", "true"]`; empty where that was not
    /// kept.
    #[serde(default)]
    pub given: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// How long a check may take before it is killed and has failed.
    pub timeout: Duration,
    /// How long after the start failures do not count.
    pub start_period: Duration,
    /// Between two checks meanwhile.
    pub start_interval: Duration,
    /// How many failures in a row make the container unhealthy.
    pub retries: u32,
}

/// How a container does in the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last checks, the oldest first.
    pub log: VecDeque<HealthCheck>,
}

/// Health in a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has decided yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks in a row have failed.
    Unhealthy,
}

impl HealthStatus {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// When it began, in nanoseconds since 1970.
    pub start: i64,
    /// When it ended.
    pub end: i64,
    /// The program's exit code; -1 when it took too long, or was not to be started.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

impl HealthChecks {
    /// The test in the form of images.
    pub fn test(&self) -> Vec<String> {
        match self.given.is_empty() {
            true => std::iter::once("CMD".to_owned()).chain(self.argv.iter().cloned()).collect(),
            false => self.given.clone(),
        }
    }

    /// How long to wait for the next check of a container that is `status`, so long after its start.
    pub(crate) fn pause(&self, status: HealthStatus, since_start: Duration) -> Duration {
        match status {
            HealthStatus::Starting if since_start < self.start_period => self.start_interval,
            _ => self.interval,
        }
    }
}

impl Health {
    /// Takes a result into account; `since_start` is when its check began.
    pub(crate) fn take(
        &mut self,
        check: HealthCheck,
        checks: &HealthChecks,
        since_start: Duration,
    ) {
        if check.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || since_start >= checks.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= checks.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push_back(check);
        while self.log.len() > KEPT {
            self.log.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn checks() -> HealthChecks {
        HealthChecks {
            argv: vec!["true".to_owned()],
            given: Vec::new(),
            interval: 30 * SECOND,
            timeout: 30 * SECOND,
            start_period: 10 * SECOND,
            start_interval: SECOND,
            retries: 2,
        }
    }

    fn check(exit_code: i32) -> HealthCheck {
        HealthCheck { start: 0, end: 0, exit_code, output: String::new() }
    }

    #[test]
    fn failures_count_after_the_start_or_the_first_success() {
        let checks = checks();
        let mut health = Health::default();
        let after = |health: &mut Health, code, at| {
            health.take(check(code), &checks, at * SECOND);
            (health.status, health.failing_streak)
        };
        assert_eq!(after(&mut health, 1, 1), (HealthStatus::Starting, 0));
        assert_eq!(after(&mut health, 0, 2), (HealthStatus::Healthy, 0));
        assert_eq!(after(&mut health, 1, 3), (HealthStatus::Healthy, 1));
        assert_eq!(after(&mut health, -1, 4), (HealthStatus::Unhealthy, 2));
        assert_eq!(after(&mut health, 0, 5), (HealthStatus::Healthy, 0));
        let mut late = Health::default();
        assert_eq!(after(&mut late, 1, 11), (HealthStatus::Starting, 1));
        assert_eq!(after(&mut late, 1, 12), (HealthStatus::Unhealthy, 2));
        for _ in 0..9 {
            after(&mut late, 0, 13);
        }
        assert_eq!(late.log.len(), KEPT);
    }

    #[test]
    fn checks_come_faster_while_it_starts() {
        let checks = checks();
        assert_eq!(checks.pause(HealthStatus::Starting, SECOND), SECOND);
        assert_eq!(checks.pause(HealthStatus::Healthy, SECOND), 30 * SECOND);
        assert_eq!(checks.pause(HealthStatus::Starting, 10 * SECOND), 30 * SECOND);
    }
}
