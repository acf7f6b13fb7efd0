//! Steps that fail, and builds that are cancelled.

use std::time::{Duration, Instant};

use rbuild::{BuildError, CancelToken, Event, Silent, StepError};

use crate::support::{Events, Place, build_error, explain};
use crate::tests;

tests![
    a_failed_step_says_where_and_how,
    a_failed_step_stops_the_others,
    what_was_finished_before_a_failure_stays,
    a_cancelled_step_leaves_nothing,
    a_build_cancelled_before_it_starts_runs_nothing,
    wrong_dockerfiles_point_into_the_text,
];

fn a_failed_step_says_where_and_how() {
    let place = Place::new();
    let engine = place.engine();
    let request = place.request("RUN echo told; echo so >&2; exit 42\n");
    let error = build_error(&engine, &request);
    let BuildError::Step { name, source_text, failure } = &error else {
        panic!("{}", explain(&error));
    };
    assert_eq!(name, "Dockerfile");
    let span = failure.span.unwrap();
    let text = &source_text[span.start..span.end];
    assert!(text.starts_with("RUN echo told"), "{text:?}");
    assert!(matches!(&failure.source, StepError::Exit { code: 42, .. }), "{:?}", failure.source);
    assert_eq!(failure.log_tail, b"told\nso\n");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn a_failed_step_stops_the_others() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "");
    let request = place.request(
        "FROM base AS slow\nRUN trap '' TERM; sleep 600\n\
         FROM base AS wrong\nRUN sleep 0.3; exit 3\n\
         FROM base\nCOPY --from=slow / /1\nCOPY --from=wrong / /2\n",
    );
    let start = Instant::now();
    let error = build_error(&engine, &request);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let BuildError::Step { failure, .. } = &error else { panic!("{}", explain(&error)) };
    assert!(matches!(failure.source, StepError::Exit { code: 3, .. }));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

fn what_was_finished_before_a_failure_stays() {
    let place = Place::new();
    let engine = place.engine();
    build_error(&engine, &place.request("RUN echo 1 > /one\nRUN exit 1\n"));
    let built = place.build(&engine, "RUN echo 1 > /one\nRUN exit 0\n");
    assert_eq!(built.executed, 1, "{:?}", built.steps);
}

fn a_cancelled_step_leaves_nothing() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, "");
    // Nobody else sleeps for so long.
    let marker = format!("{}.5", 100_000 + std::process::id());
    let request = place.request(&format!(
        "RUN --mount=type=cache,target=/cache --mount=target=/in \
         trap 'echo no' TERM; (trap '' TERM; sleep {marker}) & while :; do sleep {marker}; done\n"
    ));
    let groups = control_groups();
    let cancel = CancelToken::default();
    let progress = |event: &Event| {
        if let Event::StepStarted { .. } = event {
            let cancel = cancel.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                cancel.cancel();
            });
        }
    };
    let start = Instant::now();
    let result = engine.build(&request, &progress, &cancel);
    assert!(matches!(result, Err(BuildError::Cancelled(_))), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(processes_with(&marker), Vec::<String>::new());
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(control_groups(), groups);
    drop(engine);
    let engine = place.engine();
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(place.build(&engine, "").executed, 0);
}

fn processes_with(marker: &str) -> Vec<String> {
    let processes = fs_err::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs_err::read_to_string(process.path().join("cmdline")).ok())
        .filter(|line| line.contains(marker))
        .collect()
}

/// Groups that some builder could have made.
fn control_groups() -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for group in fs_err::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            found.push(group.path().display().to_string());
        }
    }
    found.retain(|path| path.contains("rbuild"));
    found
}

fn a_build_cancelled_before_it_starts_runs_nothing() {
    let place = Place::new();
    let engine = place.engine();
    let cancel = CancelToken::default();
    cancel.cancel();
    let events = Events::default();
    let result = engine.build(&place.request(""), &events, &cancel);
    assert!(matches!(result, Err(BuildError::Cancelled(_))), "{result:?}");
    let started = events.take().into_iter().filter(|it| matches!(it, Event::StepFinished { .. }));
    assert_eq!(started.count(), 0);
    assert!(engine.build(&place.request(""), &Silent, &CancelToken::default()).is_ok());
}

fn wrong_dockerfiles_point_into_the_text() {
    let place = Place::new();
    let engine = place.engine();
    let error = build_error(&engine, &place.request("FROM base\nCOPY --from=bsae /x /y\nRUNN x\n"));
    let BuildError::Dockerfile { diagnostics, source_text, .. } = &error else {
        panic!("{}", explain(&error));
    };
    assert!(diagnostics.iter().any(rbuild::Diagnostic::is_error));
    assert!(source_text.contains("RUNN"));
}
