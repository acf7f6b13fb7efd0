//! How the health of a container is checked: what the image says, and what is said over it.

use std::time::Duration;

use rbuild_container::HealthChecks;
use rbuild_types::{HealthConfig, ImageConfig};

use crate::BuildError;

/// Docker's `HEALTHCHECK` when nothing else is said.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// The shortest time that Docker takes.
const SHORTEST: Duration = Duration::from_millis(1);

/// The checks; none when nobody wants any.
///
/// # Errors
///
/// [`BuildError::Request`] for what cannot be.
pub(super) fn checks(
    over: &HealthConfig,
    config: &ImageConfig,
) -> Result<Option<HealthChecks>, BuildError> {
    let image = config.config.healthcheck.clone().unwrap_or_default();
    let test = if over.test.is_empty() { &image.test } else { &over.test };
    let times = [
        ("interval", over.interval, image.interval, INTERVAL),
        ("timeout", over.timeout, image.timeout, TIMEOUT),
        ("start period", over.start_period, image.start_period, Duration::ZERO),
        ("start interval", over.start_interval, image.start_interval, START_INTERVAL),
    ];
    let argv = match test.split_first() {
        None => return Ok(None),
        Some((kind, rest)) => match (kind.as_str(), rest) {
            ("NONE", _) => return Ok(None),
            ("CMD", [_, ..]) => rest.to_vec(),
            ("CMD-SHELL", [text]) => {
                let shell = config.config.shell.clone().filter(|shell| !shell.is_empty());
                let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
                let mut argv = shell.unwrap_or_else(default);
                argv.push(text.clone());
                argv
            }
            _ => return Err(wrong(format!("the test is {test:?}: it has to be CMD or CMD-SHELL"))),
        },
    };
    let [interval, timeout, start_period, start_interval] =
        times.map(|(name, over, image, default)| {
            let nanoseconds = if over == 0 { image } else { over };
            match u64::try_from(nanoseconds).map(Duration::from_nanos) {
                Ok(Duration::ZERO) => Ok(default),
                Ok(time) if time >= SHORTEST => Ok(time),
                _ => Err(wrong(format!("the {name} has to be 1ms or longer"))),
            }
        });
    let retries = if over.retries == 0 { image.retries } else { over.retries };
    let retries = u32::try_from(retries).map_err(|_| wrong("retries cannot be negative".into()))?;
    Ok(Some(HealthChecks {
        argv,
        given: test.clone(),
        interval: interval?,
        timeout: timeout?,
        start_period: start_period?,
        start_interval: start_interval?,
        retries: if retries == 0 { RETRIES } else { retries },
    }))
}

/// What an image says that is to be checked so.
pub(super) fn config(checks: Option<&HealthChecks>) -> HealthConfig {
    let Some(checks) = checks else {
        return HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
    };
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    HealthConfig {
        test: checks.test(),
        interval: nanoseconds(checks.interval),
        timeout: nanoseconds(checks.timeout),
        start_period: nanoseconds(checks.start_period),
        start_interval: nanoseconds(checks.start_interval),
        retries: checks.retries.into(),
    }
}

fn wrong(why: String) -> BuildError {
    BuildError::Request { message: format!("health check: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(test: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        let test = test.iter().map(|word| (*word).to_owned()).collect();
        let health =
            HealthConfig { test, interval: 2_000_000_000, retries: 7, ..Default::default() };
        config.config.healthcheck = Some(health);
        config
    }

    #[test]
    fn what_is_said_lies_over_the_image() {
        let over = HealthConfig { retries: 1, timeout: 5_000_000, ..HealthConfig::default() };
        let checks = checks(&over, &image(&["CMD-SHELL", "exit 0"])).unwrap().unwrap();
        assert_eq!(checks.argv, ["/bin/sh", "-c", "exit 0"]);
        assert_eq!((checks.retries, checks.timeout), (1, Duration::from_millis(5)));
        assert_eq!(
            (checks.interval, checks.start_interval),
            (Duration::from_secs(2), START_INTERVAL)
        );
    }

    #[test]
    fn none_is_none_and_nonsense_is_refused() {
        let none = HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
        let image = image(&["CMD", "true"]);
        assert_eq!(checks(&none, &image).unwrap(), None);
        assert_eq!(checks(&HealthConfig::default(), &ImageConfig::default()).unwrap(), None);
        let short = HealthConfig { interval: 5, ..HealthConfig::default() };
        assert!(checks(&short, &image).unwrap_err().to_string().contains("interval"));
        let odd = HealthConfig { test: vec!["CMD".to_owned()], ..HealthConfig::default() };
        assert!(checks(&odd, &image).is_err());
    }
}
