//! What runs again and what does not.

use crate::support::{BASE_STEPS, Place, id, ran};
use crate::tests;

tests![
    an_unchanged_build_runs_nothing,
    a_rebuilt_stage_reaches_those_who_copy_from_it,
    swapped_mounts_are_other_steps
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

fn an_unchanged_build_runs_nothing() {
    let place = Place::new();
    place.write("one.txt", "1\n");
    place.write("two.txt", "2\n");
    let engine = place.engine();
    let first = place.build(&engine, STAGES);
    assert_eq!((first.executed, first.cached), (BASE_STEPS + 6, 0), "{:?}", first.steps);
    let second = place.build(&engine, STAGES);
    assert_eq!((second.executed, second.cached), (0, BASE_STEPS + 6), "{:?}", ran(&second));
    assert_eq!(id(&first), id(&second));
}

fn a_rebuilt_stage_reaches_those_who_copy_from_it() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS one\nRUN head -c 8 /dev/urandom > /random\n\
                FROM one AS two\nRUN cp /random /copy\n\
                FROM base\nCOPY --from=two /copy /\n";
    let first = place.build(&engine, text);
    let mut request = place.request(text);
    request.options.no_cache = rbuild::NoCache::Stages(vec!["one".to_owned()]);
    let second = crate::support::build(&engine, &request);
    assert_ne!(id(&first), id(&second), "{:?}", second.steps);
    let third = place.build(&engine, text);
    assert_eq!(id(&second), id(&third), "{:?}", third.steps);
    assert_eq!(third.executed, 0);
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
