//! `--health-*` of `run` and `create`.

use clap::Args;
use rbuild::HealthConfig;

use crate::failure::Failure;

/// How health is checked, over what the image says.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Command for a shell that ends with 0 while the container is healthy
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks, such as 1m30s
    #[arg(long, value_name = "TIME")]
    pub health_interval: Option<String>,
    /// How long a check may take
    #[arg(long, value_name = "TIME")]
    pub health_timeout: Option<String>,
    /// Failures in a row that make the container unhealthy
    #[arg(long, value_name = "COUNT")]
    pub health_retries: Option<u32>,
    /// How long after the start failures do not count
    #[arg(long, value_name = "TIME")]
    pub health_start_period: Option<String>,
    /// Time between two checks meanwhile
    #[arg(long, value_name = "TIME")]
    pub health_start_interval: Option<String>,
    /// Check nothing, whatever the image says
    #[arg(long, conflicts_with_all = ["health_cmd", "health_interval", "health_timeout",
        "health_retries", "health_start_period", "health_start_interval"])]
    pub no_healthcheck: bool,
}

impl HealthArgs {
    /// The arguments as the engine wants them.
    pub fn config(&self) -> Result<HealthConfig, Failure> {
        let test = match (&self.health_cmd, self.no_healthcheck) {
            (_, true) => vec!["NONE".to_owned()],
            // An empty one is the image's.
            (Some(command), _) if !command.is_empty() => {
                vec!["CMD-SHELL".to_owned(), command.clone()]
            }
            _ => Vec::new(),
        };
        Ok(HealthConfig {
            test,
            interval: time("--health-interval", self.health_interval.as_deref())?,
            timeout: time("--health-timeout", self.health_timeout.as_deref())?,
            start_period: time("--health-start-period", self.health_start_period.as_deref())?,
            start_interval: time("--health-start-interval", self.health_start_interval.as_deref())?,
            retries: self.health_retries.unwrap_or(0).into(),
        })
    }
}

/// Nanoseconds; 0 is the image's.
fn time(flag: &str, text: Option<&str>) -> Result<i64, Failure> {
    let text = match text {
        None | Some("" | "0") => return Ok(0),
        Some(text) => text,
    };
    let nanoseconds = rbuild::duration(text).map(|time| i64::try_from(time.as_nanos()));
    match nanoseconds {
        Some(Ok(nanoseconds)) => Ok(nanoseconds),
        _ => Err(Failure::usage_hint(
            format!("{flag} {text}: not a time"),
            "give one such as 30s or 1m30s",
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
        health: HealthArgs,
    }

    fn config(words: &[&str]) -> Result<HealthConfig, Failure> {
        Line::parse_from(std::iter::once(&"run").chain(words)).health.config()
    }

    #[test]
    fn what_is_said_and_what_is_left_to_the_image() {
        let words = ["--health-cmd", "curl -f x", "--health-interval=1m30s", "--health-retries=2"];
        let said = config(&words).unwrap();
        assert_eq!(said.test, ["CMD-SHELL", "curl -f x"]);
        assert_eq!((said.interval, said.timeout, said.retries), (90_000_000_000, 0, 2));
        assert_eq!(config(&[]).unwrap(), HealthConfig::default());
        assert_eq!(config(&["--no-healthcheck"]).unwrap().test, ["NONE"]);
        assert!(config(&["--health-timeout=soon"]).is_err());
        let both = ["run", "--no-healthcheck", "--health-cmd=true"];
        assert!(Line::try_parse_from(both).is_err());
    }
}
