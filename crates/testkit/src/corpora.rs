//! The public corpora: test data of other tools, in `corpora` of the folder beside the repository
//! (`RBUILD_SHARED`, or `../shared`). It is no part of the repository: a test that needs it
//! passes where it is not at hand, and says so.
//!
//! A table is gone through by [`Table::check`], which prints `N of M rows` and fails unless every
//! row holds but those in the list of `left_out.rs`. Which table is whose is in
//! `crates/testkit/tests/corpora.rs`.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a part of tests: they say what they went through, and what they skip"
)]

mod left_out;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use left_out::{LEFT_OUT, LeftOut, Why};

/// A folder or file of the corpora; says so when it is not there.
pub fn at_hand(name: &str) -> Option<PathBuf> {
    let beside = || crate::root().join("../shared");
    let shared = std::env::var_os("RBUILD_SHARED").map_or_else(beside, PathBuf::from);
    let path = shared.join("corpora").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there; RBUILD_SHARED names the folder of it", path.display());
    None
}

/// The documents of a file with one on each line.
///
/// # Panics
///
/// When it is not such a file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = fs_err::read_to_string(path).expect("the file is text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

/// What a test function of a file `….events.jsonl` does, in order; `None` without the corpora.
///
/// # Panics
///
/// When the file holds no such function.
pub fn events(file: &str, func: &str) -> Option<Vec<Value>> {
    let found = lines(&at_hand(file)?).into_iter().find(|line| line["func"] == func);
    let Some(Value::Array(events)) = found.map(|mut line| line["events"].take()) else {
        panic!("{file} has no {func}")
    };
    Some(events)
}

/// Every Dockerfile in and below a folder of the corpora, told by its name, in order.
///
/// # Panics
///
/// When a folder cannot be read.
pub fn dockerfiles(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("ockerfile") && !name.ends_with(".dockerignore") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The rows of one table.
#[derive(Debug)]
pub struct Table {
    name: String,
    rows: Vec<Value>,
}

impl Table {
    /// The table that is called `name` in the test function `func`; `None` without the corpora.
    /// Rows of a map are pairs.
    ///
    /// # Panics
    ///
    /// When the file does not hold exactly one such table.
    pub fn open(file: &str, func: &str, name: &str) -> Option<Self> {
        let mut found = lines(&at_hand(file)?);
        found.retain(|table| table["func"] == func && table["name"] == name);
        let [table] = found.as_mut_slice() else { panic!("{file}: not one table {func} {name}") };
        let rows = match table["rows"].take() {
            Value::Object(pairs) => {
                pairs.into_iter().map(|(key, value)| json!([key, value])).collect()
            }
            Value::Array(rows) => rows,
            other => panic!("{file}: {func} {name} is {other}"),
        };
        let corpus = file.split('/').next().unwrap_or_default();
        Some(Self::of(format!("{corpus}: {}", format!("{func} {name}").trim()), rows))
    }

    /// A table that was put together by the test.
    pub fn of(name: impl Into<String>, rows: Vec<Value>) -> Self {
        Self { name: name.into(), rows }
    }

    /// The rows, for a test that needs all of them at once.
    pub fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// Goes through all rows: each must hold, but those that are left out. One that is listed as
    /// different must be different.
    ///
    /// # Panics
    ///
    /// When one does not hold, or the list of what is left out is not exactly what was met.
    pub fn check(&self, mut check: impl FnMut(&Value) -> Result<(), String>) {
        let listed: Vec<_> = LEFT_OUT.iter().filter(|one| one.table == self.name).collect();
        let mut met = vec![0; listed.len()];
        let (mut held, mut wrong) = (0, Vec::new());
        for row in &self.rows {
            let text = row.to_string();
            let at = listed.iter().position(|one| text.contains(one.row));
            if let Some(at) = at {
                met[at] += 1;
            }
            match at.map(|at| &listed[at].why) {
                Some(Why::Unusable(_)) => {}
                Some(Why::Differs(_)) => {
                    if check(row).is_ok() {
                        wrong.push(format!("{text}: is listed as different and is not"));
                    }
                }
                None => match check(row) {
                    Ok(()) => held += 1,
                    Err(why) => wrong.push(format!("{text}: {why}")),
                },
            }
        }
        println!("{}: {held} of {} rows", self.name, self.rows.len());
        for (one, met) in listed.iter().zip(&met) {
            println!("    {met} left out: {} {}", one.row, one.why.text());
            if *met != one.rows {
                wrong.push(format!("{} was met {met} times, not {}", one.row, one.rows));
            }
        }
        assert!(!self.rows.is_empty(), "{} is empty", self.name);
        assert!(wrong.is_empty(), "{}:\n  {}", self.name, wrong.join("\n  "));
    }
}

/// The texts of a list.
///
/// # Panics
///
/// When one is none.
pub fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().expect("a text").to_owned()).collect()
}

/// Whether what was found is what a row expects.
pub fn same<T: PartialEq + Debug>(found: &T, expected: &T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("found {found:?}, expected {expected:?}")),
    }
}
