//! The tests of asottile/dockerfile: what is read of each instruction, and where it stands.

use rbuild_parser::{dump, parse};
use rbuild_testkit::corpora::{Table, at_hand, events, same, strings};
use rbuild_types::LineIndex;
use serde_json::Value;

use crate::common::read;
use crate::{accepted, text};

const TABLES: &str = "asottile-dockerfile/parse.tables.jsonl";
const EVENTS: &str = "asottile-dockerfile/parse.events.jsonl";

#[test]
fn instructions_and_their_lines() {
    let Some(folder) = at_hand("asottile-dockerfile") else { return };
    rows_are_found("TestParseFile", &read(folder.join("Dockerfile.ok")));
    for func in ["TestParseReader", "TestParseReaderHeredocs", "TestParseReaderHeredocsMultiple"] {
        let events = events(EVENTS, func).unwrap();
        rows_are_found(func, text(&events[0], "value"));
    }
}

fn rows_are_found(func: &str, dockerfile: &str) {
    let Some(table) = Table::open(TABLES, func, "expected") else { return };
    // Some of the texts begin inside a stage.
    let added = usize::from(!dockerfile.starts_with("FROM"));
    let whole = format!("{}{dockerfile}", "FROM scratch\n".repeat(added));
    let (file, problems) = parse(&whole);
    accepted(&problems).unwrap();
    let index = LineIndex::new(&whole);
    let stage = &file.stages[0];
    let mut spans = vec![stage.span];
    spans.extend(stage.instructions.iter().map(|each| each.span));
    let dumped = dump(&whole).unwrap();
    let mut found = spans.iter().zip(dumped.lines()).skip(added);
    table.check(|row| {
        let (span, dumped) = found.next().ok_or("there are fewer instructions")?;
        let line = |field: &str| row[field].as_u64().map(|line| line as usize + added);
        same(&Some(index.line(span.start)), &line("StartLine"))?;
        same(&Some(index.line(span.end - 1)), &line("EndLine"))?;
        same(&span.text(&whole).trim_end(), &text(row, "Original").trim_end())?;
        same(&dumped, &as_dumped(row).as_str())
    });
}

/// The row in the form of BuildKit's dumper.
fn as_dumped(row: &Value) -> String {
    let quoted = |words: Vec<String>| -> Vec<String> {
        words.iter().map(|word| format!("{word:?}")).collect()
    };
    let (flags, words) = (quoted(strings(&row["Flags"])), quoted(strings(&row["Value"])));
    let mut parts = vec![text(row, "Cmd").to_lowercase()];
    if !flags.is_empty() {
        parts.push(format!("[{}]", flags.join(" ")));
    }
    match text(row, "SubCmd") {
        "" => parts.extend(words),
        inner => parts.push(format!("({} {})", inner.to_lowercase(), words.join(" "))),
    }
    format!("({})", parts.join(" "))
}

#[test]
fn errors() {
    let Some(events) = events(EVENTS, "TestParseReaderParseError") else { return };
    Table::of("asottile-dockerfile: TestParseReaderParseError", vec![events[0]["value"].clone()])
        .check(|row| same(&dump(row.as_str().unwrap()).is_err(), &true));
}
