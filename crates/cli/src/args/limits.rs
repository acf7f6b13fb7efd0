//! Limits of the steps of a build, and of containers.

use std::fmt::Display;
use std::str::FromStr;

use clap::Args;
use rbuild::{Resources, Ulimit};

use crate::failure::Failure;

/// What a step, or a container, and all that it starts may use together.
#[derive(Debug, Args)]
pub struct ResourceArgs {
    /// Memory that may be used, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 for any amount of swap [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Weight beside others; 1024 is that of a group without one
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors that may be used, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, such as 0
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
}

/// What a step, or a container, may use.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Limit of processes: nofile=SOFT[:HARD] and others; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Limits of all processes together.
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Control group below which that of a step, or a container, is made [default: /rbuild]
    #[arg(long, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
}

/// What a container and all that it starts may use together, besides.
#[derive(Debug, Args)]
pub struct CountArgs {
    /// Processors that may be used, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Processes and threads that there may be; -1 for any number
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

/// What a container may use.
#[derive(Debug, Args)]
pub struct ContainerLimitArgs {
    /// What a step may use too.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What only a container is asked for.
    #[command(flatten)]
    pub counts: CountArgs,
    /// How willingly the kernel kills it when the host's memory is used up, from -1000 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i16>,
}

impl LimitArgs {
    /// `--ulimit`.
    pub fn ulimits(&self) -> Result<Vec<Ulimit>, Failure> {
        all("--ulimit", &self.ulimit)
    }

    /// `--shm-size`. Docker takes 0 for its default; a tmpfs would take it for no limit.
    pub fn shm_size(&self) -> Result<Option<u64>, Failure> {
        Ok(given("--shm-size", self.shm_size.as_deref())?.filter(|bytes| *bytes > 0))
    }

    /// Those of control groups.
    pub fn resources(&self) -> Result<Resources, Failure> {
        checked(self.group()?)
    }

    fn group(&self) -> Result<Resources, Failure> {
        Ok(Resources { cgroup_parent: filled(&self.cgroup_parent), ..self.resources.given()? })
    }
}

impl ResourceArgs {
    /// As they are, each for itself. For Docker 0 is no limit.
    pub fn given(&self) -> Result<Resources, Failure> {
        let memory_swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            text => given("--memory-swap", text)?
                .filter(|bytes| *bytes > 0)
                .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        };
        Ok(Resources {
            memory: given("--memory", self.memory.as_deref())?.filter(|bytes| *bytes > 0),
            memory_swap,
            cpu_shares: self.cpu_shares.filter(|shares| *shares > 0),
            cpu_period: self.cpu_period.filter(|period| *period > 0),
            cpu_quota: self.cpu_quota.filter(|quota| *quota != 0),
            cpuset_cpus: filled(&self.cpuset_cpus),
            cpuset_mems: filled(&self.cpuset_mems),
            ..Resources::default()
        })
    }
}

impl CountArgs {
    /// Adds them to others.
    pub fn add_to(&self, resources: Resources) -> Result<Resources, Failure> {
        let cpus = self.cpus.as_deref().map(nano_cpus).transpose()?;
        Ok(Resources {
            nano_cpus: cpus.filter(|cpus| *cpus > 0),
            pids: self.pids_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|it| *it > 0),
            ..resources
        })
    }
}

/// An empty one is none.
fn filled(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

impl ContainerLimitArgs {
    /// Those of control groups.
    pub fn resources(&self) -> Result<Resources, Failure> {
        checked(self.counts.add_to(self.limits.group()?)?)
    }
}

fn checked(resources: Resources) -> Result<Resources, Failure> {
    match resources.problem() {
        Some(problem) => Err(Failure::usage(problem)),
        None => Ok(resources),
    }
}

/// `--cpus`, in parts of a thousand million, which is as fine as Docker counts.
fn nano_cpus(text: &str) -> Result<u64, Failure> {
    const DIGITS: usize = 9;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let good = digits(whole) && digits(part) && part.len() <= DIGITS && text.len() > 1
        || text.len() == 1 && digits(text);
    let number = good.then(|| format!("{whole}{part:0<DIGITS$}").parse().ok()).flatten();
    number.ok_or_else(|| {
        Failure::usage_hint(
            format!("--cpus {text}: not a number of processors"),
            "for example 2 or 0.5",
        )
    })
}

/// Reads all values of a flag.
pub fn all<T: FromStr<Err: Display>>(flag: &str, texts: &[String]) -> Result<Vec<T>, Failure> {
    let one = |text: &String| {
        text.parse().map_err(|error: T::Err| Failure::usage(format!("{flag}: {error}")))
    };
    texts.iter().map(one).collect()
}

/// Reads a number of bytes.
pub fn given(flag: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match rbuild::ram_in_bytes(text) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Failure::usage_hint(
            format!("{flag} {text}: not a number of bytes"),
            "for example 512m or 2g",
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: ContainerLimitArgs,
    }

    /// What the arguments say: what each process may use, and what all may.
    fn read(line: &str) -> Result<(Vec<Ulimit>, Option<u64>, Resources), String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let limits = Line::try_parse_from(words).map_err(|error| error.to_string())?.limits;
        let said = |failure| match failure {
            Failure::Usage { message, .. } => message,
            other => panic!("{other:?}"),
        };
        let each = limits.limits.ulimits().map_err(said)?;
        let shm_size = limits.limits.shm_size().map_err(said)?;
        Ok((each, shm_size, limits.resources().map_err(said)?))
    }

    #[test]
    fn limits_arrive() {
        let line = "--ulimit nofile=5:6 --shm-size 1g -m 1g --memory-swap -1 -c 512 \
                    --cpu-period 50000 --cpu-quota -1 --cpuset-cpus 0-1 --cpuset-mems 0 \
                    --cgroup-parent /x --pids-limit 7";
        let (ulimits, shm_size, resources) = read(line).unwrap();
        assert_eq!(ulimits, ["nofile=5:6".parse().unwrap()]);
        assert_eq!(shm_size, Some(1 << 30));
        let expected = Resources {
            cgroup_parent: Some("/x".to_owned()),
            memory: Some(1 << 30),
            memory_swap: Some(-1),
            nano_cpus: None,
            cpu_shares: Some(512),
            cpu_period: Some(50_000),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            pids: Some(7),
        };
        assert_eq!(resources, expected);
    }

    #[test]
    fn processors_are_counted_in_parts() {
        for (text, expected) in [
            ("1", 1_000_000_000),
            ("0.5", 500_000_000),
            (".5", 500_000_000),
            ("2.", 2_000_000_000),
            ("1.000000001", 1_000_000_001),
        ] {
            assert_eq!(nano_cpus(text).unwrap(), expected, "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "1.0000000001", "99999999999999999999", "one", "1.2.3"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_and_zero_limit_nothing() {
        for line in [
            "",
            "-m 0 --memory-swap 0 -c 0 --cpu-quota 0 --cpu-period 0 --cpuset-cpus= --cpus 0",
            "--pids-limit -1",
            "--pids-limit 0",
        ] {
            let (_, shm_size, resources) = read(line).unwrap();
            assert_eq!((shm_size, resources), (None, Resources::default()), "{line}");
        }
    }

    #[test]
    fn wrong_limits_are_named() {
        for (line, part) in [
            ("-m x", "--memory x: not a number of bytes"),
            ("-m 1k", "too small"),
            ("--memory-swap 1g", "needs one of memory too"),
            ("--shm-size many", "--shm-size many"),
            ("--ulimit files=1", "--ulimit: invalid ulimit \"files=1\""),
            ("--cgroup-parent ../a", "no name of a control group"),
            ("--cpu-quota 5", "a quota is"),
            ("--cpus 0.001", "a hundredth"),
            ("--cpus 1 --cpu-quota 5000", "excludes"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
