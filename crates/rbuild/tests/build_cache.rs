//! What runs again and what does not.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use rbuild::{Digest, NoCache};
use rbuild_solver::copy::Listing;

use crate::support::{BASE_STEPS, Place, build, id, ran};
use crate::tests;

tests![
    an_unchanged_build_runs_nothing,
    a_changed_file_runs_what_depends_on_it,
    files_of_a_copy_are_listed_beside_its_tree,
    times_alone_change_nothing,
    other_bytes_are_noticed_whatever_size_and_time_say,
    a_copied_file_that_stays_the_same_keeps_the_hit,
    a_copied_stage_is_not_run_for_its_own_sake,
    a_rebuilt_stage_reaches_those_who_copy_from_it,
    a_fresh_root_under_cached_steps_does_not_halt,
    swapped_mounts_are_other_steps,
    a_bound_context_is_part_of_the_key,
    a_result_whose_root_was_forgotten_stays_on_its_root,
];

const STAGES: &str = "\
FROM base AS one
COPY one.txt /
RUN cat /one.txt > /one
FROM base AS two
COPY two.txt /
RUN cat /two.txt > /two
FROM base
COPY --from=one /one /
COPY --from=two /two /
CMD [\"cat\", \"/one\", \"/two\"]
";

fn stages() -> Place {
    let place = Place::new();
    place.write("one.txt", "1\n");
    place.write("two.txt", "2\n");
    place
}

fn an_unchanged_build_runs_nothing() {
    let place = stages();
    let engine = place.engine();
    let first = place.build(&engine, STAGES);
    assert_eq!((first.executed, first.cached), (BASE_STEPS + 6, 0), "{:?}", first.steps);
    let second = place.build(&engine, STAGES);
    assert_eq!((second.executed, second.cached), (0, BASE_STEPS + 6), "{:?}", ran(&second));
    assert_eq!(id(&first), id(&second));
    // Nor does another engine, with nothing in its memory.
    drop(engine);
    let third = place.build(&place.engine(), STAGES);
    assert_eq!((third.executed, id(&third)), (0, id(&first)));
}

fn a_changed_file_runs_what_depends_on_it() {
    let place = stages();
    let engine = place.engine();
    place.build(&engine, STAGES);
    place.write("unrelated.txt", "nobody copies this");
    assert_eq!(place.build(&engine, STAGES).executed, 0);
    place.write("two.txt", "zwei\n");
    let third = place.build(&engine, STAGES);
    let expected = [
        "[two 1/2] COPY two.txt /",
        "[two 2/2] RUN cat /two.txt > /two",
        "[stage-3 2/2] COPY --from=two /two /",
    ];
    assert_eq!(ran(&third), expected);
    place.write("two.txt", "2\n");
    assert_eq!(place.build(&engine, STAGES).executed, 0, "back to what it was");
}

fn files_of_a_copy_are_listed_beside_its_tree() {
    let place = stages();
    let engine = place.engine();
    place.build(&engine, STAGES);
    let store = rbuild_cache::Store::open(place.store()).unwrap();
    let copies = store.records().by_step_name("[one 1/2] COPY one.txt /", 1).unwrap();
    let snapshot = copies[0].snapshot.as_ref().unwrap();
    let listing = Listing::of(&store, snapshot).unwrap().unwrap().files;
    assert_eq!(listing.len(), 1, "{listing:?}");
    let content = Some(Digest::of("1\n"));
    assert_eq!((listing[0].path.as_str(), listing[0].digest), ("/one.txt", content));
    assert!(copies[0].inputs.get("files").is_none(), "{}", copies[0].inputs);
}

fn times_alone_change_nothing() {
    let place = stages();
    let engine = place.engine();
    let first = place.build(&engine, STAGES);
    let file = fs_err::File::options().write(true).open(place.context().join("one.txt")).unwrap();
    file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
    let second = place.build(&engine, STAGES);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
}

fn other_bytes_are_noticed_whatever_size_and_time_say() {
    let place = stages();
    let engine = place.engine();
    let first = place.build(&engine, STAGES);
    let path = place.context().join("one.txt");
    let before = fs_err::metadata(&path).unwrap();
    fs_err::write(&path, "7\n").unwrap();
    let file = fs_err::File::options().write(true).open(&path).unwrap();
    file.file().set_modified(before.modified().unwrap()).unwrap();
    let after = fs_err::metadata(&path).unwrap();
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
    let second = place.build(&engine, STAGES);
    assert_ne!(id(&first), id(&second));
    // Its stage, its copy, and the copy on top of that.
    assert_eq!(second.executed, 4, "{:?}", ran(&second));
}

fn a_copied_file_that_stays_the_same_keeps_the_hit() {
    let place = Place::new();
    let engine = place.engine();
    let text = |extra: &str| {
        format!(
            "FROM base AS made\nRUN echo {extra} > /extra; echo same > /same\n\
             FROM base\nCOPY --from=made /same /\nRUN cat /same > /copy\n"
        )
    };
    let first = place.build(&engine, &text("one"));
    let second = place.build(&engine, &text("two"));
    assert_eq!(ran(&second), ["[made 1/1] RUN echo two > /extra; echo same > /same"]);
    assert_eq!(id(&first), id(&second));
}

fn a_copied_stage_is_not_run_for_its_own_sake() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS made\nRUN echo 1 > /file\nFROM base\nCOPY --from=made /file /\n";
    let first = place.build(&engine, text);
    let made = "[made 1/1] RUN echo 1 > /file";
    forget(&place, |name| name == made);
    let second = place.build(&engine, text);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
}

fn a_rebuilt_stage_reaches_those_who_copy_from_it() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS one\nRUN head -c 8 /dev/urandom > /random\n\
                FROM one AS two\nRUN cp /random /copy\n\
                FROM base\nCOPY --from=two /copy /\n";
    let first = place.build(&engine, text);
    let mut request = place.request(text);
    request.options.no_cache = NoCache::Stages(vec!["one".to_owned()]);
    let second = build(&engine, &request);
    assert_ne!(id(&first), id(&second), "{:?}", second.steps);
    assert_eq!(second.executed, 3, "{:?}", ran(&second));
    let third = place.build(&engine, text);
    assert_eq!((third.executed, id(&third)), (0, id(&second)));
}

fn a_fresh_root_under_cached_steps_does_not_halt() {
    let place = Place::new();
    let engine = place.engine();
    let text = |last: &str| {
        format!(
            "FROM base AS one\nRUN cat /proc/uptime > /one\nFROM one\nRUN echo 2 > /two\nRUN {last}\n"
        )
    };
    place.build(&engine, &text("echo 3 > /three"));
    let mut request = place.request(&text("echo 4 > /four"));
    request.options.no_cache = NoCache::Stages(vec!["one".to_owned()]);
    assert_eq!(build(&engine, &request).executed, 3);
}

/// The stages' keys must be told apart by the mounts that they belong to.
fn swapped_mounts_are_other_steps() {
    let place = Place::new();
    let engine = place.engine();
    let text = |x: &str, y: &str| {
        format!(
            "FROM base AS one\nRUN echo 1 > /file\nFROM base AS two\nRUN echo 2 > /file\n\
             FROM base\nRUN --mount=from={x},target=/x --mount=from={y},target=/y \
             cat /x/file /y/file > /both\n"
        )
    };
    let first = place.build(&engine, &text("one", "two"));
    let second = place.build(&engine, &text("two", "one"));
    assert_ne!(id(&first), id(&second), "{:?}", second.steps);
}

fn a_bound_context_is_part_of_the_key() {
    let place = Place::new();
    let engine = place.engine();
    place.write("src/main.c", "one");
    place.write("other", "1");
    let text = "FROM base\nRUN --mount=target=/in,source=src cp /in/main.c /out\n";
    let first = place.build(&engine, text);
    place.write("other", "2");
    assert_eq!(place.build(&engine, text).executed, 0);
    place.write("src/main.c", "two");
    let second = place.build(&engine, text);
    assert_eq!(second.executed, 1);
    assert_ne!(id(&first), id(&second));
}

/// To run the lower step again would put the upper one's cached changes on another tree.
fn a_result_whose_root_was_forgotten_stays_on_its_root() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base\nRUN head -c 8 /dev/urandom > /random\nRUN cp /random /copy\n";
    let first = place.build(&engine, text);
    forget(&place, |name| name.contains("urandom"));
    let second = place.build(&engine, text);
    assert_eq!((second.executed, id(&second)), (0, id(&first)), "{:?}", ran(&second));
    // And a step on top finds the tree too.
    let third = place.build(&engine, &format!("{text}RUN cmp /random /copy\n"));
    assert_eq!(third.executed, 1, "{:?}", ran(&third));
}

/// Removes step records by name.
fn forget(place: &Place, which: impl Fn(&str) -> bool) {
    let store = rbuild_cache::Store::open(place.store()).unwrap();
    let records = store.records().list().unwrap();
    let victims: Vec<_> = records.iter().filter(|record| which(&record.step_name)).collect();
    assert!(!victims.is_empty());
    for record in victims {
        assert!(store.records().remove(&record.key).unwrap());
    }
}
