//! The logs of steps, and the record of past builds that leads to them.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rbuild::{BuildError, BuildState, CancelToken, Engine, Outcome, PruneOptions, Silent};

use crate::support::{Place, build_error};
use crate::{child, tests};

tests![
    a_log_is_whole_however_long_it_is,
    a_cached_step_shows_the_log_of_the_build_that_ran_it,
    a_log_of_a_failure_stays_as_long_as_its_files,
    a_killed_build_leaves_what_was_written,
    builds_are_remembered_with_their_steps,
];

fn log(engine: &Engine, step: &str) -> Option<String> {
    let step = engine.past_step(step).unwrap();
    let mut text = String::new();
    engine.step_log(&step).unwrap()?.read_to_string(&mut text).unwrap();
    Some(text)
}

fn a_log_is_whole_however_long_it_is() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "RUN seq 1 100000; echo last >&2\nCOPY busybox /again\n");
    let numbers = (1..=100_000).map(|number| format!("{number}\n"));
    let expected: String = numbers.chain(["last\n".to_owned()]).collect();
    let found = log(&engine, "base:3").unwrap();
    assert!(found == expected, "{} of {} bytes", found.len(), expected.len());
    assert_eq!(log(&engine, "@last"), None);
}

fn a_cached_step_shows_the_log_of_the_build_that_ran_it() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "RUN echo once\n");
    place.build(&engine, "RUN echo once\nRUN true\n");
    let cached = engine.past_step("base:3").unwrap();
    assert_eq!(cached.step.outcome, Outcome::Cached);
    assert_eq!(log(&engine, "base:3").unwrap(), "once\n");
    assert!(!cached.step.log.unwrap().starts_with(&cached.build.id));
}

fn a_log_of_a_failure_stays_as_long_as_its_files() {
    let place = Place::new();
    let engine = place.engine();
    build_error(&engine, &place.request("RUN echo bad; exit 3\n"));
    assert_eq!(log(&engine, "@failed").unwrap(), "bad\n");
    // Without the file in the directory of logs, as after a prune that chooses.
    fs_err::remove_dir_all(place.store().join("logs")).unwrap();
    fs_err::create_dir(place.store().join("logs")).unwrap();
    assert_eq!(log(&engine, "@failed").unwrap(), "bad\n");
    engine.prune(&PruneOptions::default(), &Silent, &CancelToken::default()).unwrap();
    assert_eq!(log(&engine, "@failed"), None);
}

fn a_killed_build_leaves_what_was_written() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "");
    let base = crate::support::BASE;
    let dockerfile = place.path().join("Dockerfile");
    fs_err::write(&dockerfile, format!("{base}RUN echo begun; sleep 600\n")).unwrap();
    let mut command = child::build(&place.store(), &place.context(), &dockerfile);
    let mut build = command.stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let written = || {
        let newest = engine.past_builds().unwrap().remove(0);
        (newest.state == BuildState::Running)
            .then(|| log(&engine, "base:3"))
            .flatten()
            .is_some_and(|text| text == "begun\n")
    };
    while !written() {
        assert!(Instant::now() < deadline, "{:?}", engine.past_builds());
        std::thread::sleep(Duration::from_millis(20));
    }
    build.kill().unwrap();
    build.wait().unwrap();
    let newest = engine.past_builds().unwrap().remove(0);
    assert_eq!(newest.state, BuildState::Killed);
    assert_eq!(log(&engine, "base:3").unwrap(), "begun\n");
    // What is explained, and what `why` shows, are builds that ended.
    assert!(engine.last_build().unwrap().unwrap().succeeded);
}

fn builds_are_remembered_with_their_steps() {
    let place = Place::new();
    let engine = place.engine();
    assert!(matches!(engine.past_step("1"), Err(BuildError::NoSuchStep { .. })));
    place.build(&engine, "RUN echo one\n");
    build_error(&engine, &place.request("RUN exit 7\n"));
    place.build(&engine, "");
    let builds = engine.past_builds().unwrap();
    let states: Vec<_> = builds.iter().map(|build| build.state).collect();
    assert_eq!(states, [BuildState::Succeeded, BuildState::Failed, BuildState::Succeeded]);
    let failed = &builds[1].record;
    assert_eq!(engine.past_build(&failed.id[..8]).unwrap().record, *failed);
    let step = engine.past_step("@failed").unwrap();
    assert_eq!((&step.build, step.number), (failed, failed.steps.len()));
    let failure = step.step.failure.unwrap();
    assert_eq!(failure.code, Some(7));
    assert!(failure.snapshot.is_some() && failure.message.contains("exit code: 7"));
    let first = format!("{}:base:3", &builds[2].record.id[..8]);
    assert_eq!(log(&engine, &first).unwrap(), "one\n");
}
