//! Steps that run again and make what was there: what stands upon them stays in the cache.

use rbuild::{Built, Cutoff, Engine, NoCache};

use crate::support::{BASE_STEPS, Place, build, id, ran};
use crate::tests;

tests![
    equal_bytes_keep_what_stands_upon_them,
    what_was_cut_off_once_is_found_at_once,
    steps_that_change_nothing_are_one,
    other_bytes_run_what_stands_upon_them,
    a_fresh_step_that_makes_the_same_is_not_fresh_for_others,
    a_fresh_step_that_makes_something_else_is,
    times_count_unless_contents_alone_are_asked_for,
    a_bound_stage_that_stays_the_same_keeps_the_hit,
    a_linked_copy_does_not_move,
    what_goes_into_a_cache_mount_is_no_part_of_a_layer,
    a_result_is_laid_upon_no_other_root,
    rewritten_times_make_results_equal,
    copies_are_as_old_as_the_fixed_time_says,
    files_of_the_context_and_of_earlier_layers_keep_their_times,
];

/// Bytes and time of the file are the same whenever it is made.
const MADE: &str = "echo same > /made; touch -d @1000 /made";

fn with(script: &str) -> String {
    format!("RUN {script}\nRUN cat /made > /above\nRUN cat /proc/sys/kernel/random/uuid > /top\n")
}

/// The image's layers above those of the base.
fn layers(engine: &Engine, built: &Built) -> Vec<String> {
    let details = engine.image_config(&id(built).to_string()).unwrap();
    let layers = &details.config.rootfs.diff_ids;
    layers.iter().skip(BASE_STEPS).map(ToString::to_string).collect()
}

fn equal_bytes_keep_what_stands_upon_them() {
    let place = Place::new();
    let engine = place.engine();
    let first = place.build(&engine, &with(MADE));
    let second = place.build(&engine, &with(&format!("true; {MADE}")));
    assert_eq!(ran(&second), [format!("[base 3/5] RUN true; {MADE}")]);
    assert_eq!(layers(&engine, &first), layers(&engine, &second));
    assert_eq!(place.leftovers(), [""; 0]);
}

fn what_was_cut_off_once_is_found_at_once() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, &with(MADE));
    let other = with(&format!("true; {MADE}"));
    let second = place.build(&engine, &other);
    let third = place.build(&engine, &other);
    assert_eq!((third.executed, id(&third)), (0, id(&second)));
    assert_eq!(place.build(&engine, &with(MADE)).executed, 0);
    // What is made upon it later belongs to both.
    place.build(&engine, &format!("{other}RUN echo new\n"));
    let fourth = place.build(&engine, &format!("{}RUN echo new\n", with(MADE)));
    assert_eq!(fourth.executed, 0, "{:?}", ran(&fourth));
}

fn steps_that_change_nothing_are_one() {
    let place = Place::new();
    let engine = place.engine();
    let text = |lint: &str| format!("RUN {lint}\nRUN cat /proc/sys/kernel/random/uuid > /top\n");
    place.build(&engine, &text("true"));
    assert_eq!(place.build(&engine, &text("echo all is well")).executed, 1);
}

fn other_bytes_run_what_stands_upon_them() {
    let place = Place::new();
    let engine = place.engine();
    place.build(&engine, &with(MADE));
    let second = place.build(&engine, &with("echo SAME > /made; touch -d @1000 /made"));
    assert_eq!(second.executed, 3, "{:?}", ran(&second));
    assert_eq!(place.build(&engine, &with("echo same > /made; touch -d @1001 /made")).executed, 3);
}

fn fresh(place: &Place, engine: &Engine, text: &str, stage: &str) -> Built {
    let mut request = place.request(text);
    request.options.no_cache = NoCache::Stages(vec![stage.to_owned()]);
    build(engine, &request)
}

fn a_fresh_step_that_makes_the_same_is_not_fresh_for_others() {
    let place = Place::new();
    let engine = place.engine();
    let text = format!(
        "FROM base AS low\nRUN {MADE}\nFROM low\nRUN cat /proc/sys/kernel/random/uuid > /top\n"
    );
    let first = place.build(&engine, &text);
    let second = fresh(&place, &engine, &text, "low");
    assert_eq!(ran(&second), [format!("[low 1/1] RUN {MADE}")]);
    assert_eq!(layers(&engine, &first), layers(&engine, &second));
    assert_eq!(place.build(&engine, &text).executed, 0);
}

fn a_fresh_step_that_makes_something_else_is() {
    let place = Place::new();
    let engine = place.engine();
    let text =
        "FROM base AS low\nRUN cat /proc/sys/kernel/random/uuid > /made\nFROM low\nRUN true\n";
    place.build(&engine, text);
    assert_eq!(fresh(&place, &engine, text, "low").executed, 2);
}

fn times_count_unless_contents_alone_are_asked_for() {
    let place = Place::new();
    let engine = place.engine();
    let build = |time: u64, cutoff| {
        let text = with(&format!("echo same > /made; touch -d @{time} /made"));
        let mut request = place.request(&text);
        request.cutoff = cutoff;
        build(&engine, &request)
    };
    let first = build(1, Cutoff::Bytes);
    assert_eq!(build(2, Cutoff::Bytes).executed, 3);
    let third = build(3, Cutoff::Content);
    assert_eq!(third.executed, 1, "{:?}", ran(&third));
    // Whatever it took the place of has the older time.
    assert_ne!(layers(&engine, &first).len(), 0);
    let text = with("echo same > /made; touch -d @3 /made");
    assert_eq!(place.build(&engine, &text).executed, 0);
}

fn a_bound_stage_that_stays_the_same_keeps_the_hit() {
    let place = Place::new();
    let engine = place.engine();
    let text = |script: &str| {
        format!(
            "FROM base AS made\nRUN {script}\n\
             FROM base\nRUN --mount=from=made,target=/m cat /m/made > /copy\n"
        )
    };
    place.build(&engine, &text(MADE));
    let second = place.build(&engine, &text(&format!("true; {MADE}")));
    assert_eq!(ran(&second), [format!("[made 1/1] RUN true; {MADE}")]);
}

fn a_linked_copy_does_not_move() {
    let place = Place::new();
    place.write("f", "linked");
    let engine = place.engine();
    let text = |script: &str| {
        format!("RUN {script}\nCOPY --link f /f\nRUN cat /proc/sys/kernel/random/uuid > /top\n")
    };
    let first = place.build(&engine, &text(MADE));
    let second = place.build(&engine, &text(&format!("true; {MADE}")));
    assert_eq!(second.executed, 1, "{:?}", ran(&second));
    assert_eq!(layers(&engine, &first), layers(&engine, &second));
}

/// Modification times, in seconds, of files of an image.
fn times(place: &Place, engine: &Engine, built: &Built, paths: &str) -> String {
    let image = id(built).to_string();
    place.sh(engine, &image, &format!("stat -c %Y {paths}")).replace('\n', " ")
}

fn rewritten_times_make_results_equal() {
    let place = Place::new();
    let engine = place.engine();
    let built = |lint: &str| {
        let text = format!("RUN {lint}; echo same > /made\nRUN cat /proc/uptime > /top\n");
        let mut request = place.request(&text).arg("SOURCE_DATE_EPOCH", "1000000");
        request.options.rewrite_timestamps = Some(true);
        build(&engine, &request)
    };
    let first = built("true");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = built("echo hello");
    assert_eq!(second.executed, 1, "{:?}", ran(&second));
    assert_eq!(layers(&engine, &first), layers(&engine, &second));
    assert_eq!(times(&place, &engine, &second, "/made /top"), "1000000 1000000 ");
}

fn copies_are_as_old_as_the_fixed_time_says() {
    let place = Place::new();
    place.write("tree/new", "new");
    let old = place.write("tree/old", "old");
    let file = fs_err::File::open(old).unwrap();
    file.file().set_modified(std::time::UNIX_EPOCH).unwrap();
    let engine = place.engine();
    let text = "COPY tree /tree\nWORKDIR /work\nRUN echo > /run\n";
    let request = |rewrite| {
        let mut request = place.request(text).arg("SOURCE_DATE_EPOCH", "1000000");
        request.options.rewrite_timestamps = rewrite;
        request
    };
    let paths = "/tree/new /tree/old /tree /work";
    let built = build(&engine, &request(None));
    assert_eq!(times(&place, &engine, &built, paths), "1000000 0 1000000 1000000 ");
    // What a process made is younger, unless that is asked for.
    let run = times(&place, &engine, &built, "/run");
    assert!(run.trim().parse::<u64>().unwrap() > 1_000_000_000, "{run}");
    let built = build(&engine, &request(Some(true)));
    assert_eq!(times(&place, &engine, &built, "/run /tree/new"), "1000000 1000000 ");
    let built = build(&engine, &request(Some(false)));
    let kept = times(&place, &engine, &built, "/tree/new");
    assert!(kept.trim().parse::<u64>().unwrap() > 1_000_000_000, "{kept}");
}

fn files_of_the_context_and_of_earlier_layers_keep_their_times() {
    use std::os::unix::fs::MetadataExt as _;
    let place = Place::new();
    let file = place.write("f", "x");
    let before = fs_err::metadata(&file).unwrap().mtime();
    let engine = place.engine();
    let first = place.build(&engine, "COPY f /f\n");
    let request = place.request("COPY f /f\nRUN echo > /g\n").arg("SOURCE_DATE_EPOCH", "7");
    build(&engine, &request);
    assert_eq!(fs_err::metadata(&file).unwrap().mtime(), before);
    assert_eq!(times(&place, &engine, &first, "/f"), format!("{before} "));
}

fn what_goes_into_a_cache_mount_is_no_part_of_a_layer() {
    let place = Place::new();
    let engine = place.engine();
    let text = |version: &str| {
        format!(
            "RUN --mount=type=cache,target=/c echo {version} > /c/f\n\
             RUN --mount=type=cache,target=/c cat /c/f > /out\n"
        )
    };
    place.build(&engine, &text("v1"));
    let second = build(&engine, &place.request(&text("v2")).tag("app"));
    assert_eq!(second.executed, 2, "{:?}", ran(&second));
    assert_eq!(place.sh(&engine, "app", "cat /out"), "v2\n");
}

fn a_result_is_laid_upon_no_other_root() {
    let place = Place::new();
    let engine = place.engine();
    let text = "FROM base AS low\n# rbuild: ttl=1s\nRUN cat /proc/sys/kernel/random/uuid > /a\n\
                FROM low\nRUN cat /a > /b\n";
    place.build(&engine, text);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let low = build(&engine, &place.request(text).target("low"));
    assert_eq!(low.executed, 1, "{:?}", ran(&low));
    let whole = build(&engine, &place.request(&text.replace("1s", "1h")).tag("app"));
    assert_eq!(whole.executed, 1, "{:?}", ran(&whole));
    assert_eq!(place.sh(&engine, "app", "cmp /a /b && echo same"), "same\n");
}
