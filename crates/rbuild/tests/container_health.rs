//! Health of containers.

use std::time::{Duration, Instant};

use rbuild::{Container, ContainerOptions, Health, HealthConfig, HealthStatus};

use crate::container_lasting::{make, place, scripted, started};
use crate::support::build;
use crate::tests;

tests![
    health_follows_the_checks,
    a_check_that_takes_too_long_has_failed,
    a_container_that_is_started_again_has_no_health_yet,
    the_image_says_how_health_is_checked,
    nothing_is_checked_while_it_is_paused,
];

const MILLISECOND: i64 = 1_000_000;

fn checked(script: &str, test: &str) -> ContainerOptions {
    let health = HealthConfig {
        test: vec!["CMD-SHELL".to_owned(), test.to_owned()],
        interval: 20 * MILLISECOND,
        retries: 2,
        ..HealthConfig::default()
    };
    ContainerOptions { health, ..scripted(script) }
}

/// The health once it is what is waited for.
fn health(container: &Container, wanted: impl Fn(&Health) -> bool) -> Health {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let health = container.state().unwrap().health.unwrap();
        if wanted(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "it is {health:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn health_follows_the_checks() {
    let (_place, engine) = place();
    let serve = "rm /tmp/up; sleep 0.3; touch /tmp/up; while :; do sleep 0.1; done";
    // It sees the container's files and environment.
    let mut options = checked(serve, "echo probe of $WHO; test -e /tmp/up");
    options.process.env.push("WHO=me".to_owned());
    let container = started(&engine, options);
    assert_eq!(container.state().unwrap().health.unwrap().status, HealthStatus::Starting);
    let well = health(&container, |health| health.status == HealthStatus::Healthy);
    let last = well.log.back().unwrap();
    assert_eq!((last.exit_code, last.output.as_str()), (0, "probe of me\n"));
    assert!(last.start <= last.end && well.failing_streak == 0 && well.log.len() <= 5);
    let exec = rbuild::ExecOptions {
        argv: ["rm", "/tmp/up"].map(str::to_owned).to_vec(),
        ..rbuild::ExecOptions::default()
    };
    container.exec_in_background(&exec).unwrap();
    let ill = health(&container, |health| health.status == HealthStatus::Unhealthy);
    assert!(ill.failing_streak >= 2 && ill.log.back().unwrap().exit_code == 1);
    container.delete().unwrap();
}

fn a_check_that_takes_too_long_has_failed() {
    let (_place, engine) = place();
    let mut options = checked("sleep 60", "echo begun; sleep 60");
    options.health.timeout = 100 * MILLISECOND;
    let container = started(&engine, options);
    let ill = health(&container, |health| health.status == HealthStatus::Unhealthy);
    let last = ill.log.back().unwrap();
    assert_eq!(last.exit_code, -1);
    assert_eq!(last.output, "Health check exceeded timeout (100ms): begun\n");
    container.delete().unwrap();
}

fn a_container_that_is_started_again_has_no_health_yet() {
    let (_place, engine) = place();
    let mut options = checked("sleep 60", "true");
    options.health.interval = 200 * MILLISECOND;
    let mut container = started(&engine, options);
    health(&container, |health| health.status == HealthStatus::Healthy);
    let kill = rbuild::Stop { signal: 9, patience: None };
    container.restart(Some(kill)).unwrap();
    let again = container.state().unwrap().health.unwrap();
    assert_eq!((again.status, again.log.len()), (HealthStatus::Starting, 0));
    health(&container, |health| health.status == HealthStatus::Healthy);
    container.delete().unwrap();
}

fn the_image_says_how_health_is_checked() {
    let (place, engine) = place();
    let text = "FROM base\nHEALTHCHECK --interval=20ms --retries=1 CMD false\n";
    build(&engine, &place.request(text).tag("app"));
    let container = started(&engine, scripted("sleep 60"));
    health(&container, |health| health.status == HealthStatus::Unhealthy);
    container.delete().unwrap();
    let none = HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
    let container = make(&engine, ContainerOptions { health: none, ..scripted("sleep 60") });
    assert_eq!(container.record().health, None);
    container.delete().unwrap();
}

fn nothing_is_checked_while_it_is_paused() {
    let (_place, engine) = place();
    let container = started(&engine, checked("sleep 60", "true"));
    health(&container, |health| health.status == HealthStatus::Healthy);
    container.pause().unwrap();
    // One that was under way may come to its end.
    std::thread::sleep(Duration::from_millis(200));
    let before = container.state().unwrap().health;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(container.state().unwrap().health, before);
    container.unpause().unwrap();
    health(&container, |health| Some(health) != before.as_ref());
    container.delete().unwrap();
}
