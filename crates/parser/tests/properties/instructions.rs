//! Flags and values of single instructions.

use proptest::prelude::*;
use rbuild_parser::ast::InstructionKind;
use rbuild_parser::parse;
use rbuild_testkit::property::holds;
use rbuild_types::Diagnostic;

use crate::common::without_spans;

fn kind(text: &str) -> Result<InstructionKind, Vec<Diagnostic>> {
    let whole = format!("FROM a\n{text}\n");
    let (mut file, problems) = parse(&whole);
    if problems.iter().any(Diagnostic::is_error) {
        return Err(problems);
    }
    let (again, _) = parse(&file.to_string());
    assert_eq!(without_spans(&again), without_spans(&file), "{text}");
    Ok(file.stages.pop().unwrap().instructions.pop().unwrap().kind)
}

/// Fields of mounts, good ones and others.
fn mount() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "type",
        "target",
        "dst",
        "destination",
        "source",
        "src",
        "from",
        "id",
        "sharing",
        "mode",
        "uid",
        "gid",
        "size",
        "env",
        "required",
        "ro",
        "rw",
        "readonly",
        "readwrite",
        "TYPE",
        "x",
        "",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "bind",
            "cache",
            "tmpfs",
            "secret",
            "ssh",
            "shared",
            "private",
            "locked",
            "true",
            "false",
            "1",
            "0700",
            "/x",
            "../..",
            "/",
            "64m",
            "$a",
            "${a}",
            "0",
            "-1",
            "99999999999999999999",
        ])
        .prop_map(str::to_owned),
        "[ -~é]{0,6}",
    ];
    let field = (key, prop::option::of(value)).prop_map(|(key, value)| match value {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    });
    prop::collection::vec(field, 0..6).prop_map(|fields| fields.join(","))
}

#[test]
fn any_mount_is_read_or_refused() {
    holds("mounts", &mount(), |mount| {
        if let Ok(InstructionKind::Run(run)) = kind(&format!("RUN --mount={mount} true")) {
            for mount in &run.mounts {
                let fields = mount.text.value.matches(',').count() + 1;
                assert!(mount.fields.len() <= fields, "{mount:?}");
                assert!(mount.fields.iter().all(|(key, _)| *key == key.to_lowercase()));
            }
        }
    });
}

/// The parts of a duration in Go's order of units, and nanoseconds of each.
const UNITS: [(&str, i128); 7] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

fn interval(text: &str) -> Option<i64> {
    match kind(&format!("HEALTHCHECK --interval={text} CMD true")) {
        Ok(InstructionKind::Healthcheck(check)) => Some(check.interval),
        _ => None,
    }
}

#[test]
fn durations_are_the_sums_of_their_parts() {
    let part = (0..10_000_u32, 0..1000_u32, prop::sample::select(UNITS.to_vec()));
    holds("durations", &prop::collection::vec(part, 1..4), |parts| {
        let texts = parts.iter().map(|(whole, thousandths, (unit, _))| match thousandths {
            0 => format!("{whole}{unit}"),
            _ => format!("{whole}.{thousandths:03}{unit}"),
        });
        // What is finer than a nanosecond is cut off, part by part.
        let nanoseconds = parts.iter().map(|(whole, thousandths, (_, unit))| {
            i128::from(*whole) * unit + i128::from(*thousandths) * unit / 1000
        });
        let (text, sum): (String, i128) = (texts.collect(), nanoseconds.sum());
        let expected = (sum == 0 || sum >= 1_000_000).then_some(i64::try_from(sum).unwrap());
        assert_eq!(interval(&text), expected, "{text}");
    });
}

#[test]
fn any_duration_is_read_or_refused() {
    holds("durations, any text", &"[0-9.hmsunµ+-]{0,24}|[!-~]{0,12}", |text| {
        let text = text.replace(['\\', '"', '\''], "");
        if let Some(found) = interval(&text) {
            assert!(found == 0 || found >= 1_000_000, "{text}: {found}");
        }
    });
}
