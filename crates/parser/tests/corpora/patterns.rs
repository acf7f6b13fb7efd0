//! Ignore rules and wildcards: moby's patternmatcher and the filters of fsutil.

use rbuild_parser::ignore_file::{MatchedAbove, Patterns, glob_match};
use rbuild_testkit::corpora::{Table, same, strings};
use regex::Regex;
use serde_json::Value;

use crate::text;

const MATCHER: &str = "patternmatcher/patternmatcher.tables.jsonl";

/// Asks both ways, which must agree.
fn excluded(patterns: &Patterns, path: &str) -> Result<bool, String> {
    let alone = patterns.matches(path);
    let trimmed = path.trim_matches('/');
    let mut above = MatchedAbove::default();
    let mut walked = None;
    for end in trimmed.match_indices('/').map(|(at, _)| at).chain([trimmed.len()]) {
        let (verdict, matched) = patterns.matches_below(&trimmed[..end], &above);
        (walked, above) = (Some(verdict), matched);
    }
    same(&walked, &Some(alone))?;
    Ok(alone.excluded)
}

fn rules<S: AsRef<str>>(list: &[S]) -> Result<Patterns, String> {
    Patterns::from_list(list).map_err(|problem| problem.message)
}

fn part(row: &Value, index: usize) -> &str {
    row[index].as_str().unwrap()
}

#[test]
fn ignore_rules() {
    let Some(table) = Table::open(MATCHER, "TestMatches", "tests") else { return };
    table.check(|row| same(&excluded(&rules(&[part(row, 0)])?, part(row, 1))?, &(row[2] == true)));

    let Some(table) = Table::open(MATCHER, "TestMatches", "multiPatternTests") else { return };
    table
        .check(|row| same(&excluded(&rules(&strings(&row[0]))?, part(row, 1))?, &(row[2] == true)));
}

#[test]
fn wildcards() {
    let Some(table) = Table::open(MATCHER, "", "matchTests") else { return };
    table.check(|row| {
        let (pattern, name) = (part(row, 0), part(row, 1));
        let matches = row[2] == true;
        if !row[3].is_null() {
            same(&rules(&[pattern]).is_err(), &true)?;
            return same(&glob_match(pattern, name).is_err(), &true);
        }
        same(&excluded(&rules(&[pattern])?, name)?, &matches)?;
        // `a*` leaves `ab/c` out because it matches `ab`; as a name it does not match.
        let whole = matches && !(pattern == "a*" && name == "ab/c");
        same(&glob_match(pattern, name), &Ok(whole))
    });
}

/// Paths for the patterns of the next table.
const PATHS: [&str; 28] = [
    "a",
    "b",
    "ab",
    "a/b",
    "ax/b",
    "a/x/b",
    "file",
    "filex",
    "xfile",
    "x/file",
    "filextxt",
    "dir",
    "dir/x",
    "x/dir",
    "x/dir/y",
    "dir2/x",
    "y/dir2/x",
    "y/dir2/x/z",
    "x.txt",
    "y/x.txt",
    ".x",
    "ace",
    "abc.def",
    "abcxdef",
    "foo/bar",
    "x/foo/bar",
    "a(b)c/def",
    "a.|)$(}+{bc",
];

/// The table says which regular expression a pattern is, or how it is matched without one. The
/// paths must be judged by that.
#[test]
fn patterns_are_the_expressions_they_stand_for() {
    let Some(table) = Table::open(MATCHER, "", "compileTests") else { return };
    table.check(|row| {
        let (pattern, kind) = (part(row, 0), text(&row[1], "$id"));
        let expression = Regex::new(part(row, 2)).map_err(|error| error.to_string())?;
        let patterns = rules(&[pattern])?;
        for path in PATHS {
            let matches = |path: &str| match kind {
                "regexpMatch" => expression.is_match(path),
                "prefixMatch" => path.starts_with(pattern.trim_end_matches("**")),
                "suffixMatch" => {
                    let suffix = pattern.trim_start_matches("**");
                    path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
                }
                _ => path == pattern,
            };
            let above = path.match_indices('/').any(|(at, _)| matches(&path[..at]));
            same(&(path, excluded(&patterns, path)?), &(path, matches(path) || above))?;
        }
        Ok(())
    });
}

/// The lists of these tests, whose expectations are code: what is written down of each is what
/// it is there for.
#[test]
fn lists_of_rules_are_cleaned() {
    let left = |func: &str| {
        let table = Table::open(MATCHER, func, "patterns")?;
        let patterns = rules(&strings(&Value::from(table.rows().to_vec())));
        // Each row alone is read in the same way.
        table.check(|row| {
            let text = row.as_str().unwrap().trim().to_owned();
            let alone = rules(&[&text]);
            let Ok(alone) = alone else { return same(&text.as_str(), &"!") };
            let found: Vec<_> = alone.rules().map(|rule| rule.text.to_owned()).collect();
            same(&found, &vec![text].into_iter().filter(|text| !text.is_empty()).collect())
        });
        Some(patterns.map(|patterns| {
            let rules: Vec<_> = patterns.rules().map(|rule| rule.text.to_owned()).collect();
            (rules.join(" "), patterns.has_exceptions())
        }))
    };
    let plain = |text: &str| Some(Ok((text.to_owned(), text.contains('!'))));
    for (func, expected) in [
        ("TestCleanPatterns", "docs config"),
        ("TestCleanPatternsStripEmptyPatterns", "docs config"),
        ("TestCleanPatternsExceptionFlag", "docs !docs/README.md"),
        ("TestCleanPatternsLeadingSpaceTrimmed", "docs !docs/README.md"),
        ("TestCleanPatternsTrailingSpaceTrimmed", "docs !docs/README.md"),
    ] {
        let Some(found) = left(func) else { return };
        assert_eq!(Some(found), plain(expected), "{func}");
    }
    let alone = left("TestCleanPatternsErrorSingleException").unwrap();
    assert!(alone.is_err_and(|message| message.contains("illegal exclusion pattern: \"!\"")));
}

#[test]
fn ignore_files() {
    let file = "patternmatcher/ignorefile.tables.jsonl";
    let Some(table) = Table::open(file, "TestReadAll", "expected") else { return };
    // The input of the test, which the table does not hold.
    let text = "test1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \n";
    let (patterns, problems) = Patterns::parse(text);
    // A lone `!` is a rule to the reader of files and an error to who matches by it.
    let mut found: Vec<_> = patterns.rules().map(|rule| rule.text.to_owned()).collect();
    found.extend(problems.iter().map(|problem| problem.span().unwrap().text(text).to_owned()));
    let mut found = found.into_iter();
    table.check(|row| same(&found.next().as_deref(), &row.as_str()));
    assert_eq!(found.next(), None);
}

/// The tree of fsutil's test of filters.
const TREE: [&str; 5] = ["bar", "bar/foo", "bar/baz", "bar/baz/foo3", "foo2"];

/// What `--parents` and `--exclude` choose: a path is there when the first list matches it (or is
/// empty) and the second does not, and the directories above it are there with it.
#[test]
fn filters() {
    let file = "fsutil/fsutil.tables.jsonl";
    let Some(table) = Table::open(file, "TestCopyIncludeExclude", "testCases") else { return };
    table.check(|row| {
        let of = |call: &str| -> Vec<String> {
            let options = row["opts"].as_array().unwrap().iter();
            let options = options.filter(|option| option["$call"] == call);
            options.map(|option| option["args"][0].as_str().unwrap().to_owned()).collect()
        };
        let includes = of("WithIncludePattern");
        let (included, left_out) = (rules(&includes)?, rules(&of("WithExcludePattern"))?);
        let mut found = Vec::new();
        for path in TREE {
            let is_in = includes.is_empty() || excluded(&included, path)?;
            if is_in && !excluded(&left_out, path)? {
                found.push(path);
            }
        }
        let found: Vec<_> = TREE
            .into_iter()
            .filter(|path| {
                let above = format!("{path}/");
                found.iter().any(|one| one == path || one.starts_with(&above))
            })
            .collect();
        let mut expected = strings(&row["expectedResults"]);
        expected.sort_by_key(|path| TREE.iter().position(|one| one == path));
        same(&found, &expected.iter().map(String::as_str).collect())
    });
}
