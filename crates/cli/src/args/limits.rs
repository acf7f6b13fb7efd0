//! Limits and surroundings of the steps of a build.

use std::fmt::Display;
use std::str::FromStr;

use clap::Args;
use rbuild::{Options, Resources};

use crate::failure::Failure;

/// What steps may use and what they find.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Name in /etc/hosts of steps: NAME:ADDRESS, where ADDRESS may be `host-gateway`; may be
    /// repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Limit of processes: nofile=SOFT[:HARD] and others; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Size of /dev/shm in steps [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Memory that one step may use, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Weight of a step beside others; 1024 is that of a group without one
    #[arg(short, long, value_name = "N")]
    pub cpu_shares: Option<u64>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time that a step has in each period
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors that steps may use, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that steps may use, such as 0
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Control group below which those of steps are made [default: /rbuild]
    #[arg(long, value_name = "NAME")]
    pub cgroup_parent: Option<String>,
}

impl LimitArgs {
    /// Those that are a part of each step.
    pub fn put_into(&self, options: &mut Options) -> Result<(), Failure> {
        options.extra_hosts = all("--add-host", &self.add_host)?;
        options.ulimits = all("--ulimit", &self.ulimit)?;
        let shm_size = given("--shm-size", self.shm_size.as_deref())?;
        // Docker takes 0 for its default; a tmpfs would take it for no limit.
        options.shm_size = shm_size.filter(|bytes| *bytes > 0);
        Ok(())
    }

    /// Those of control groups. For Docker 0 is no limit.
    pub fn resources(&self) -> Result<Resources, Failure> {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let memory_swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            text => given("--memory-swap", text)?
                .filter(|bytes| *bytes > 0)
                .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        };
        let resources = Resources {
            cgroup_parent: text(&self.cgroup_parent),
            memory: given("--memory", self.memory.as_deref())?.filter(|bytes| *bytes > 0),
            memory_swap,
            cpu_shares: self.cpu_shares.filter(|shares| *shares > 0),
            cpu_period: self.cpu_period.filter(|period| *period > 0),
            cpu_quota: self.cpu_quota.filter(|quota| *quota != 0),
            cpuset_cpus: text(&self.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems),
        };
        match resources.problem() {
            Some(problem) => Err(Failure::usage(problem)),
            None => Ok(resources),
        }
    }
}

fn all<T: FromStr<Err: Display>>(flag: &str, texts: &[String]) -> Result<Vec<T>, Failure> {
    let one = |text: &String| {
        text.parse().map_err(|error: T::Err| Failure::usage(format!("{flag}: {error}")))
    };
    texts.iter().map(one).collect()
}

fn given(flag: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
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
        limits: LimitArgs,
    }

    fn read(line: &str) -> Result<(Options, Resources), String> {
        let words = std::iter::once("build").chain(line.split_whitespace());
        let limits = Line::try_parse_from(words).map_err(|error| error.to_string())?.limits;
        let mut options = Options::default();
        let said = |failure| match failure {
            Failure::Usage { message, .. } => message,
            other => panic!("{other:?}"),
        };
        limits.put_into(&mut options).map_err(said)?;
        Ok((options, limits.resources().map_err(said)?))
    }

    #[test]
    fn limits_arrive() {
        let line = "--add-host a:1.2.3.4 --add-host b=host-gateway --ulimit nofile=5:6 \
                    --shm-size 1g -m 1g --memory-swap -1 -c 512 --cpu-period 50000 \
                    --cpu-quota -1 --cpuset-cpus 0-1 --cpuset-mems 0 --cgroup-parent /x";
        let (options, resources) = read(line).unwrap();
        assert_eq!(options.extra_hosts.len(), 2);
        assert_eq!(options.ulimits, ["nofile=5:6".parse().unwrap()]);
        assert_eq!(options.shm_size, Some(1 << 30));
        let expected = Resources {
            cgroup_parent: Some("/x".to_owned()),
            memory: Some(1 << 30),
            memory_swap: Some(-1),
            cpu_shares: Some(512),
            cpu_period: Some(50_000),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0-1".to_owned()),
            cpuset_mems: Some("0".to_owned()),
        };
        assert_eq!(resources, expected);
    }

    #[test]
    fn nothing_and_zero_limit_nothing() {
        for line in ["", "-m 0 --memory-swap 0 -c 0 --cpu-quota 0 --cpu-period 0 --cpuset-cpus="] {
            let (options, resources) = read(line).unwrap();
            assert_eq!((options.shm_size, resources), (None, Resources::default()), "{line}");
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
            ("--add-host a", "--add-host: invalid host \"a\""),
            ("--cgroup-parent ../a", "no name of a control group"),
            ("--cpu-quota 5", "a quota is"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
