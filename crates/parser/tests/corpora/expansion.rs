//! Variables: BuildKit's `shell` package.

use std::collections::BTreeMap;

use rbuild_parser::expand::{Environment, expand_word, expand_words};
use rbuild_testkit::corpora::{Table, at_hand, events, same};
use regex::Regex;
use serde_json::{Value, json};

use crate::common::read;
use crate::text;

const TABLES: &str = "buildkit/tables/shell-lex.tables.jsonl";

#[derive(Default)]
struct Map(BTreeMap<String, String>);

impl Map {
    fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Environment for Map {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What a word comes to; `None` when it is an error.
fn word(text: &str, environment: &Map) -> Option<String> {
    expand_word(text, '\\', environment).ok().map(|expanded| expanded.text)
}

#[test]
fn words() {
    let Some(file) = at_hand("buildkit/shell/envVarTest") else { return };
    let pairs = [("PWD", "/home"), ("SHELL", "bash"), ("KOREAN", "한국어"), ("NULL", "")];
    let environment = Map::of(pairs);
    let text = read(file);
    let rows = text.lines().filter_map(|line| {
        let line = if line.starts_with('#') { "" } else { line };
        let parts: Vec<_> = line.splitn(3, '|').map(str::trim).collect();
        (parts.len() == 3).then(|| json!(parts))
    });
    Table::of("buildkit: envVarTest", rows.collect()).check(|row| {
        let expected = row[2].as_str().filter(|text| *text != "error").map(str::to_owned);
        same(&word(row[1].as_str().unwrap(), &environment), &expected)
    });
}

#[test]
fn words_that_are_split() {
    let Some(file) = at_hand("buildkit/shell/wordsTest") else { return };
    let lines = read(file);
    let lines = lines.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    // `ENV name=value` lines hold for those behind them.
    let mut environment = Map::default();
    let mut rows = Vec::new();
    for line in lines {
        if let Some((name, value)) = line.strip_prefix("ENV ").and_then(|pair| pair.split_once('='))
        {
            environment.0.insert(name.trim_start().to_owned(), value.to_owned());
            continue;
        }
        let (input, expected) = line.split_once('|').unwrap();
        rows.push(json!({
            "input": input.trim(), "expected": expected.trim_start(), "envs": environment.0,
        }));
    }
    Table::of("buildkit: wordsTest", rows).check(|row| {
        let result = expand_words(text(row, "input"), '\\', &envs(row));
        let expected = text(row, "expected");
        if expected == "error" {
            return same(&result.is_err(), &true);
        }
        let expected: Vec<_> =
            expected.split(',').map(|word| word.trim_start().to_owned()).collect();
        let found = result.map_err(|error| error.message)?.0;
        same(&found.iter().map(|word| word.trim_start().to_owned()).collect(), &expected)
    });
}

fn envs(row: &Value) -> Map {
    let pairs = row["envs"].as_object().into_iter().flatten();
    Map::of(pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap())))
}

#[test]
fn modifiers() {
    let Some(table) = Table::open(TABLES, "TestProcessWithMatches", "tc") else { return };
    table.check(|row| {
        let result = expand_word(text(row, "input"), '\\', &envs(row));
        if row["expectedErr"] == true {
            return same(&result.is_err(), &true);
        }
        let mut expanded = result.map_err(|error| error.message)?;
        expanded.unset.sort();
        let unset = row["unmatched"].as_object().into_iter().flatten();
        let unset: Vec<_> = unset.map(|(name, _)| name.clone()).collect();
        same(&expanded.text.as_str(), &text(row, "expected"))?;
        same(&expanded.unset, &unset)
    });
}

#[test]
fn variables_that_must_be_set() {
    let func = "TestShellParserMandatoryEnvVars";
    let Some(events) = events("buildkit/tables/shell-lex.events.jsonl", func) else { return };
    let (no_empty, no_unset) = (text(&events[0], "value"), text(&events[1], "value"));
    // What the test expects, in its order; "error" stands for its words.
    let error = "message herex";
    for (name, results) in
        [("setEnvs", ["plain", "plain"]), ("emptyEnvs", [error, ""]), ("unsetEnvs", [error, error])]
    {
        let Some(table) = Table::open(TABLES, func, name) else { return };
        let pairs = table.rows().iter().filter_map(|row| row.as_str()?.split_once('='));
        let environment = Map::of(pairs);
        for (word, expected) in [no_empty, no_unset].into_iter().zip(results) {
            match expand_word(word, '\\', &environment) {
                Ok(found) => assert_eq!(found.text, expected, "{name}: {word}"),
                Err(found) => assert!(found.message.contains(expected), "{name}: {found:?}"),
            }
        }
        table.check(|row| {
            let (key, value) = row.as_str().unwrap().split_once('=').unwrap();
            same(&word(&format!("${key}"), &environment).as_deref(), &Some(value))
        });
    }
}

/// Values for patterns to be tried on.
const VALUES: [&str; 8] = ["", "x", "*", "*x", "??", "\\*", "(()[]{}^$.*?|\\", "(()[]{}^$.*?|\\x"];

/// The table says which regular expression a pattern is; what `##` cuts off must be what that
/// expression matches.
#[test]
fn patterns_are_the_expressions_they_stand_for() {
    let func = "TestConvertShellPatternToRegex";
    let Some(table) = Table::open(TABLES, func, "cases") else { return };
    table.check(|row| {
        let (pattern, expression) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let expression = Regex::new(expression).map_err(|error| error.to_string())?;
        for value in VALUES {
            let environment = Map::of([("p", pattern), ("v", value)]);
            let expected = expression.replace(value, "").into_owned();
            same(&word("${v##$p}", &environment), &Some(expected))?;
        }
        Ok(())
    });
    let Some(table) = Table::open(TABLES, func, "invalid") else { return };
    table.check(|row| {
        let environment = Map::of([("p", row.as_str().unwrap()), ("v", "x")]);
        same(&word("${v#$p}", &environment), &None)
    });
}

/// The table says how BuildKit turns a pattern around to cut off suffixes; what `%%` cuts off by
/// the pattern must be what `##` cuts off by the turned one of the turned value.
#[test]
fn suffixes_are_prefixes_turned_around() {
    let Some(table) = Table::open(TABLES, "TestReversePattern", "cases") else { return };
    let turned = |text: &str| text.chars().rev().collect::<String>();
    table.check(|row| {
        let (pattern, reverse) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let plain: String = pattern.chars().filter(|letter| *letter != '\\').collect();
        for value in [plain.clone(), format!("x{plain}"), pattern.to_owned(), "abc".to_owned()] {
            let suffix = word("${v%%$p}", &Map::of([("p", pattern), ("v", &value)]));
            let back = turned(&value);
            let prefix = word("${v##$p}", &Map::of([("p", reverse), ("v", &back)]));
            same(&suffix, &prefix.map(|text| turned(&text)))?;
        }
        Ok(())
    });
}
