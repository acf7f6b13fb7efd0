//! The build cases beside the repository, as far as the parser decides them: what BuildKit
//! refuses while it reads the file is refused on the same line with the same words, and what it
//! builds is not refused.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

mod common;

use std::path::{Path, PathBuf};

use common::{errors, folders, read, render, shared};
use rbuild_parser::parse;
use rbuild_types::LineIndex;
use serde_json::Value;

/// Cases of these classes that only the plan can refuse, with the reason.
const LATER: [(&str, &str); 8] = [
    ("514-required-variable", "the value of a variable"),
    ("516-unterminated-quote", "quotes are read when the stage is reached"),
    ("518-expose-bad", "ports are read after expansion"),
    ("522-chmod-bad", "modes are read after expansion"),
    ("526-from-empty", "the value of a variable"),
    ("530-mount-no-target", "the target is WORKDIR, which is / here"),
    ("560-copy-quoted-name", "quotes are read when the stage is reached"),
    ("568-stopsignal-bad", "signals are read after expansion"),
];

struct Case {
    name: String,
    text: String,
    args: Value,
}

fn cases() -> Vec<Case> {
    let Some(root) = shared("cases") else { return Vec::new() };
    let sets: Vec<PathBuf> = ["own", "public"].iter().map(|set| root.join(set)).collect();
    sets.iter().filter(|set| set.is_dir()).flat_map(|set| folders(set)).filter_map(case).collect()
}

fn case(folder: PathBuf) -> Option<Case> {
    let args = folder.join("args.json");
    let args: Value = serde_json::from_str(&read(args.is_file().then_some(args)?)).ok()?;
    let path = dockerfile(&folder, &args)?;
    let name = folder.file_name()?.to_string_lossy().into_owned();
    Some(Case { name, text: read(path), args })
}

/// The Dockerfile of a case, where it is a file that is there and not one that a script makes.
fn dockerfile(folder: &Path, args: &Value) -> Option<PathBuf> {
    let name = args["dockerfile"].as_str().unwrap_or("Dockerfile");
    let places = [folder.join("context").join(name), folder.join(name), folder.join("Dockerfile")];
    places.into_iter().find(|path| path.is_file())
}

#[test]
fn what_buildkit_refuses_while_reading_is_refused_there() {
    for case in cases() {
        let expected = &case.args["expect_error"];
        let class = expected["class"].as_str().unwrap_or_default();
        if !["parse", "instruction", "expand"].contains(&class) {
            continue;
        }
        let (_, problems) = parse(&case.text);
        let errors = errors(&problems);
        let Some(first) = errors.first() else {
            let later = LATER.iter().any(|(name, _)| *name == case.name);
            assert!(later, "{} is accepted ({class})", case.name);
            continue;
        };
        let rendered = render(&case.text, &problems);
        if let Some(line) = expected["line"].as_u64() {
            let at = LineIndex::new(&case.text).line(first.span().unwrap().start);
            assert_eq!(at as u64, line, "{}: {rendered}", case.name);
        }
        for mention in expected["mentions"].as_array().into_iter().flatten() {
            let mut either = mention.as_str().unwrap().split('|');
            let place = first.span().unwrap().text(&case.text);
            let said = format!("{} {place}", first.message).to_lowercase();
            let found = either.any(|words| said.contains(&words.to_lowercase()));
            assert!(found, "{}: no {mention} in {rendered}", case.name);
        }
    }
}

#[test]
fn what_buildkit_builds_is_not_refused() {
    let mut seen = 0;
    for case in cases() {
        if !case.args["expect_error"].is_null() || !case.args["may_fail"].is_null() {
            continue;
        }
        seen += 1;
        let (file, problems) = parse(&case.text);
        assert!(errors(&problems).is_empty(), "{}: {}", case.name, render(&case.text, &problems));
        let (again, problems) = parse(&file.to_string());
        assert!(errors(&problems).is_empty(), "{}", case.name);
        assert_eq!(
            common::without_spans(&again),
            common::without_spans(&file),
            "{}: {}",
            case.name,
            file
        );
    }
    println!("{seen} cases");
}

#[test]
fn other_errors_are_not_found_too_early() {
    // The parser may refuse what BuildKit refuses later, but not on another line.
    for case in cases() {
        let Some(line) = case.args["expect_error"]["line"].as_u64() else { continue };
        let (_, problems) = parse(&case.text);
        if let Some(first) = errors(&problems).first() {
            let at = LineIndex::new(&case.text).line(first.span().unwrap().start);
            assert_eq!(at as u64, line, "{}: {}", case.name, render(&case.text, &problems));
        }
    }
}
