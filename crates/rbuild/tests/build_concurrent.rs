//! Steps beside each other, and builds beside each other.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use rbuild::{CancelToken, Event};

use crate::child;
use crate::support::{BASE_STEPS, Events, Place, build, id};
use crate::tests;

tests![
    independent_stages_overlap,
    jobs_limits_what_runs_at_once,
    two_engines_in_two_threads_run_each_step_once,
    two_processes_run_each_step_once,
    locked_cache_mounts_in_any_order_do_not_wait_for_each_other,
    equal_steps_in_one_build_run_once,
    a_busy_host_builds,
];

const FOUR: &str = "\
FROM base AS a
RUN sleep 0.5; echo a > /a
FROM base AS b
RUN sleep 0.5; echo b > /b
FROM base AS c
RUN sleep 0.5; echo c > /c
FROM base AS d
RUN sleep 0.5; echo d > /d
FROM base
COPY --from=a /a /
COPY --from=b /b /
COPY --from=c /c /
COPY --from=d /d /
";

/// How many of the steps whose name has `part` in it ran at the same time.
fn most_at_once(events: &[Event], part: &str) -> usize {
    let mut steps = BTreeSet::new();
    let (mut now, mut most) = (0, 0);
    for event in events {
        match event {
            Event::StepQueued { step, name, .. } if name.contains(part) => {
                steps.insert(*step);
            }
            Event::StepStarted { step } if steps.contains(step) => {
                now += 1;
                most = most.max(now);
            }
            Event::StepFinished { step, .. } if steps.contains(step) => now -= 1,
            _ => {}
        }
    }
    most
}

fn independent_stages_overlap() {
    let place = Place::new();
    let events = Events::default();
    place.engine().build(&place.request(FOUR), &events, &CancelToken::default()).unwrap();
    assert_eq!(most_at_once(&events.take(), "sleep"), 4);
}

fn jobs_limits_what_runs_at_once() {
    let place = Place::new();
    let events = Events::default();
    let mut request = place.request(&FOUR.replace("0.5", "0.05"));
    request.jobs = Some(1);
    place.engine().build(&request, &events, &CancelToken::default()).unwrap();
    assert_eq!(most_at_once(&events.take(), "sleep"), 1);
}

const RANDOM: &str = "\
FROM base AS one
RUN sleep 0.2; head -c 8 /dev/urandom > /one
FROM base AS two
RUN sleep 0.2; head -c 8 /dev/urandom > /two
FROM base
COPY --from=one /one /
COPY --from=two /two /
RUN head -c 8 /dev/urandom > /three
";
const RANDOM_STEPS: usize = BASE_STEPS + 5;

fn two_engines_in_two_threads_run_each_step_once() {
    let place = Place::new();
    let together = Barrier::new(2);
    let one = || {
        let engine = place.engine();
        together.wait();
        build(&engine, &place.request(RANDOM))
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(one);
        (one(), other.join().unwrap())
    });
    assert_eq!(id(&first), id(&second));
    assert_eq!(first.executed + second.executed, RANDOM_STEPS);
    assert_eq!(first.cached + second.cached, RANDOM_STEPS);
}

fn two_processes_run_each_step_once() {
    let place = Place::new();
    let (dockerfile, store) = (place.path().join("Dockerfile"), place.store());
    fs_err::write(&dockerfile, format!("{}{RANDOM}", crate::support::BASE)).unwrap();
    let start = || child::build(&store, &place.context(), &dockerfile).spawn().unwrap();
    let children = [start(), start(), start()];
    let results: Vec<_> = children.map(|child| child::result(child.wait_with_output())).into();
    let executed: usize = results.iter().map(|result| result.executed).sum();
    assert_eq!(executed, RANDOM_STEPS, "{results:?}");
    assert!(results.iter().all(|result| result.id == results[0].id), "{results:?}");
}

/// A step waits for all of its caches, so the order in which they are written must not matter.
fn locked_cache_mounts_in_any_order_do_not_wait_for_each_other() {
    let place = Place::new();
    let engine = place.engine();
    let mount = |id: &str| format!("--mount=type=cache,sharing=locked,id={id},target=/{id}");
    let mut text = String::new();
    for (stage, (first, second)) in
        [("x", "y"), ("y", "x"), ("x", "y"), ("y", "x")].iter().enumerate()
    {
        let (one, two) = (mount(first), mount(second));
        text.push_str(&format!(
            "FROM base AS s{stage}\n\
             RUN {one} {two} mkdir /x/busy && sleep 0.1 && rmdir /x/busy && touch /done{stage}\n"
        ));
    }
    // One directory at two places is one lock.
    let same = mount("x");
    text.push_str(&format!("FROM base\nRUN {same} {same}2 test -d /x2\n"));
    for stage in 0..4 {
        text.push_str(&format!("COPY --from=s{stage} /done{stage} /\n"));
    }
    let cancel = CancelToken::default();
    let watchdog = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(60));
        watchdog.cancel();
    });
    engine.build(&place.request(&text), &rbuild::Silent, &cancel).unwrap();
}

fn equal_steps_in_one_build_run_once() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS one\nRUN head -c 8 /dev/urandom > /file\n\
                FROM base AS two\nRUN head -c 8 /dev/urandom > /file\n\
                FROM base\nCOPY --from=one /file /1\nCOPY --from=two /file /2\nRUN cmp /1 /2\n";
    place.build(&engine, text);
}

fn a_busy_host_builds() {
    let place = Place::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                while !stop.load(ordering) {
                    let garbage: Vec<String> = (0..100).map(|it| it.to_string()).collect();
                    std::hint::black_box(garbage);
                    std::thread::yield_now();
                }
            });
        }
        let text = FOUR.replace("sleep 0.5; ", "");
        let result =
            place.engine().build(&place.request(&text), &rbuild::Silent, &CancelToken::default());
        stop.store(true, ordering);
        assert_eq!(result.unwrap().executed, BASE_STEPS + 8);
    });
}
