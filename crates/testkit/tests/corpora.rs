//! Holds `corpora.txt`, the list of what every table and file of the public corpora is used for,
//! to what is there: nothing of them is skipped without a word.

use std::collections::BTreeMap;

use rbuild_testkit::corpora::{LEFT_OUT, Why, at_hand, lines};
use rbuild_testkit::{read, sources};
use serde_json::Value;

const LIST: &str = "crates/testkit/tests/corpora.txt";

/// Licences and notes, which come with every corpus.
const NOTES: [&str; 4] = ["LICENSE", "NOTICE", "NOTICE.upstream", "README.md"];

/// A line of the list, its parts between colons taken off one by one.
struct Entry<'a> {
    name: &'a str,
    count: Option<usize>,
    /// A test, or `no:` and a reason.
    used_for: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Self {
        let (name, rest) = line.split_once(": ").unwrap_or((line, ""));
        let (count, used_for) = match rest.split_once(": ") {
            Some((count, rest)) if count != "no" => (count.parse().ok(), rest),
            _ => (None, rest),
        };
        Self { name, count, used_for }
    }
}

fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn nothing_wrong(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_test_that_is_listed_exists() {
    let text = read(LIST);
    let mut wrong = Vec::new();
    for line in listed(&text).filter(|line| line.contains(": ")) {
        let entry = Entry::parse(line.trim());
        let has_reason = entry.used_for.strip_prefix("no: ").is_some_and(|why| why.len() > 10);
        if !has_reason && !sources::defines_test(entry.used_for) {
            wrong.push(line.trim().to_owned());
        }
    }
    nothing_wrong("lines without a reason or a test that exists", &wrong);
}

/// How many rows a table has; those of a map are its pairs.
fn count(table: &Value) -> usize {
    match &table["rows"] {
        Value::Object(pairs) => pairs.len(),
        rows => rows.as_array().map_or(0, Vec::len),
    }
}

/// The rows by function, and by function and name.
fn rows_of(tables: &[Value]) -> BTreeMap<String, usize> {
    let mut rows = BTreeMap::new();
    for table in tables {
        let part = |field: &str| table[field].as_str().unwrap_or_default();
        let func = if part("func").is_empty() { "-" } else { part("func") };
        *rows.entry(func.to_owned()).or_default() += count(table);
        let name = format!("{} {}", part("func"), part("name"));
        *rows.entry(name.trim().to_owned()).or_default() += count(table);
    }
    rows
}

#[test]
fn every_table_is_listed_with_its_rows() {
    let Some(corpora) = at_hand("") else { return };
    let text = read(LIST);
    let mut wrong = Vec::new();
    let (mut all, mut asked) = (0, 0);
    let mut rows = BTreeMap::new();
    let (mut file, mut expected, mut found) = ("", 0, 0);
    for line in listed(&text).chain(["end"]) {
        if let Some(line) = line.strip_prefix("    ") {
            let entry = Entry::parse(line);
            let count = entry.count.unwrap_or_default();
            found += count;
            if !entry.used_for.starts_with("no: ") {
                asked += count;
            }
            if rows.get(entry.name) != Some(&count) {
                wrong.push(format!("{file}: {line}: there are {:?}", rows.get(entry.name)));
            }
            continue;
        }
        if found != expected {
            wrong.push(format!("{file}: {found} rows are listed, {expected} are there"));
        }
        all += expected;
        (file, expected, found) = (line, 0, 0);
        if line.ends_with(".tables.jsonl") {
            let tables = lines(&corpora.join(line));
            rows = rows_of(&tables);
            expected = tables.iter().map(count).sum();
        }
    }
    nothing_wrong("tables and what the list says of them", &wrong);
    let of = |wanted: fn(&Why) -> bool| -> usize {
        LEFT_OUT.iter().filter(|one| wanted(&one.why)).map(|one| one.rows).sum()
    };
    let differ = of(|why| matches!(why, Why::Differs(_)));
    let unusable = of(|why| matches!(why, Why::Unusable(_)));
    println!("{asked} of {all} rows are asked, {unusable} cannot be, {differ} differ on purpose");
    assert!(differ * 50 <= asked, "more than 2 % of the rows differ");
}

#[test]
fn every_file_is_listed() {
    let Some(corpora) = at_hand("") else { return };
    let text = read(LIST);
    let mut named = BTreeMap::new();
    for line in listed(&text).filter(|line| !line.starts_with(' ')) {
        let entry = Entry::parse(line);
        named.insert(entry.name, (entry.count.unwrap_or(1), 0));
    }
    let mut wrong = Vec::new();
    let mut folders = vec![corpora.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&corpora).unwrap().to_string_lossy().into_owned();
            let is_it = |name: &str| {
                relative == name || (name.ends_with('/') && relative.starts_with(name))
            };
            let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match named.iter_mut().find(|(name, _)| is_it(name)) {
                Some((_, (_, found))) => *found += 1,
                None if NOTES.contains(&file_name.as_str()) => {}
                None => wrong.push(format!("{relative} is not listed")),
            }
        }
    }
    for (name, (expected, found)) in named {
        if expected != found {
            wrong.push(format!("{name}: {expected} files are listed, {found} are there"));
        }
    }
    nothing_wrong("files and what the list says of them", &wrong);
}
