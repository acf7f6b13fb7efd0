//! What the integration tests share: finding data, trees without spans.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};

use rbuild_parser::ast::Dockerfile;
use rbuild_types::{Diagnostic, LineIndex};
use serde_json::Value;

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder beside the repository with data that is not part of it. Tests that need it pass when
/// it is not there, and say so.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let base = match std::env::var_os("RBUILD_SHARED") {
        Some(path) => PathBuf::from(path),
        None => root().join("../shared"),
    };
    let path = base.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

pub fn read(path: impl AsRef<Path>) -> String {
    let bytes = fs_err::read(path.as_ref()).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The folders in a folder, by name.
pub fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(path).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// The tree without spans, which is what two texts that mean the same have in common.
pub fn without_spans(file: &Dockerfile) -> Value {
    let mut value = serde_json::to_value(file).unwrap();
    remove_spans(&mut value);
    value
}

fn remove_spans(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("span");
            fields.values_mut().for_each(remove_spans);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_spans),
        _ => {}
    }
}

pub fn errors(problems: &[Diagnostic]) -> Vec<&Diagnostic> {
    problems.iter().filter(|problem| problem.is_error()).collect()
}

/// `LINE: MESSAGE` of each, help behind it.
pub fn render(text: &str, problems: &[Diagnostic]) -> String {
    let index = LineIndex::new(text);
    let lines = problems.iter().map(|problem| {
        let line = index.line(problem.span().unwrap().start);
        let severity = if problem.is_error() { "error" } else { "warning" };
        let mut row = format!("{line}: {severity}[{}]: {}\n", problem.code, problem.message);
        for label in &problem.labels {
            let place = label.span.text(text);
            row.push_str(&format!("    at {}..{} {place:?}\n", label.span.start, label.span.end));
        }
        if let Some(help) = &problem.help {
            row.push_str(&format!("    help: {help}\n"));
        }
        row
    });
    lines.collect()
}
