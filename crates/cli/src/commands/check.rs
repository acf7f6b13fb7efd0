//! `rbuild build --check`: findings in the look of `docker build --check`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::{BuildError, BuildRequest, Checked, ContextInput, Engine, Finding, Lines, Pull};
use serde_json::{Map, Value, json};

use crate::args::call::Call;
use crate::commands::Context;
use crate::failure::Failure;
use crate::{exit_code, interrupt, output, report};

/// Lines of the Dockerfile that are shown around a finding.
const AROUND: usize = 2;

/// Checks, prints and says whether something was found.
pub fn run(call: Call, request: &BuildRequest, context: &Context<'_>) -> Result<i32, Failure> {
    let cancel = interrupt::cancel_on_interrupt()?;
    let engine = engine(request, context)?;
    let checked = rbuild::check(request, engine.as_ref(), &cancel)?;
    if call.json {
        output::line(&serde_json::to_string_pretty(&document(&checked)).unwrap_or_default())?;
    } else {
        output::data(text(&checked))?;
    }
    for image in &checked.unknown_images {
        output::note(&format!(
            "{image} is not in the store: what it may set is not checked (--pull asks its registry)"
        ));
    }
    let found = !checked.findings.is_empty();
    if !checked.errors.is_empty() {
        return Err(BuildError::Dockerfile {
            name: checked.name,
            source_text: checked.source_text,
            diagnostics: checked.errors,
        }
        .into());
    }
    Ok(if found && !call.ignore_status { exit_code::FAILURE } else { exit_code::SUCCESS })
}

/// The store, to look at only; a check does without it where there is none or it cannot be read.
pub fn engine(request: &BuildRequest, context: &Context<'_>) -> Result<Option<Engine>, Failure> {
    // The answer of a registry and the files of a context are written into the store.
    let is_there = matches!(request.context, ContextInput::Directory(_) | ContextInput::None);
    if request.pull == Pull::Always || !is_there {
        return context.engine().map(Some);
    }
    let options = context.engine_options();
    Ok(options.ok().and_then(|options| Engine::read_only(options).ok()))
}

fn text(checked: &Checked) -> String {
    let mut text = match checked.findings.len() {
        0 if !checked.errors.is_empty() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        many => format!("Check complete, {many} warnings have been found!\n"),
    };
    // Once for all of them: a file may have as many findings as lines.
    let source: Vec<&str> = checked.source_text.split('\n').collect();
    for finding in &checked.findings {
        let warning = &finding.diagnostic;
        text.push_str(&format!("\nWARNING: {}", warning.code));
        if let Some(url) = &warning.url {
            text.push_str(&format!(" - {url}"));
        }
        text.push_str(&format!("\n{}\n", report::one_line(&warning.message)));
        if let Some(lines) = finding.lines {
            text.push_str(&snippet(&checked.name, &source, lines));
        }
    }
    text
}

/// The lines with some around them, marked, as BuildKit draws them.
fn snippet(name: &str, all: &[&str], lines: Lines) -> String {
    let end = lines.end.min(all.len());
    if lines.start < 1 || lines.start > end {
        return String::new();
    }
    let wanted = if lines.start == end { 2 * AROUND } else { AROUND };
    let (mut first, mut last, mut added) = (lines.start, end, 0);
    while added < wanted {
        if first > 1 {
            first -= 1;
            added += 1;
        }
        if last != all.len() {
            last += 1;
            added += 1;
        }
        added += 1;
    }
    let rule = "-".repeat(20);
    let mut text = format!("{}:{}\n{rule}\n", output::visible(name), lines.start);
    for number in first..=last {
        let mark = if (lines.start..=end).contains(&number) { ">>>" } else { "   " };
        let line = all.get(number - 1).copied().unwrap_or_default();
        text.push_str(&format!(" {number:3} | {mark} {}\n", report::one_line(line)));
    }
    text.push_str(&rule);
    text.push('\n');
    text
}

/// BuildKit's document.
fn document(checked: &Checked) -> Value {
    let mut document = Map::new();
    let warnings: Vec<Value> = checked.findings.iter().map(warning).collect();
    document.insert("warnings".to_owned(), Value::Array(warnings));
    let source = json!({
        "filename": checked.name,
        "language": "Dockerfile",
        "data": STANDARD.encode(&checked.source_text),
    });
    document.insert("sources".to_owned(), json!([source]));
    if let Some((message, lines)) = checked.build_error() {
        let error = json!({ "message": message, "location": location(lines) });
        document.insert("buildError".to_owned(), error);
    }
    Value::Object(document)
}

fn warning(finding: &Finding) -> Value {
    let diagnostic = &finding.diagnostic;
    let mut warning = Map::new();
    warning.insert("ruleName".to_owned(), json!(diagnostic.code));
    if let Some(description) = finding.description {
        warning.insert("description".to_owned(), json!(description));
    }
    if let Some(url) = &diagnostic.url {
        warning.insert("url".to_owned(), json!(url));
    }
    warning.insert("detail".to_owned(), json!(diagnostic.message));
    warning.insert("location".to_owned(), location(finding.lines));
    Value::Object(warning)
}

/// A place as BuildKit's documents write it; the file is always the first.
pub fn location(lines: Option<Lines>) -> Value {
    let range = |lines: Lines| json!({"start": {"line": lines.start}, "end": {"line": lines.end}});
    match lines {
        Some(lines) => json!({ "ranges": [range(lines)] }),
        None => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_around_are_shown() {
        let source = ["a", "b", "c", "d", "e", "f", ""];
        let one = snippet("Dockerfile", &source, Lines { start: 3, end: 3 });
        let expected = "\
Dockerfile:3
--------------------
   1 |     a
   2 |     b
   3 | >>> c
   4 |     d
   5 |     e
--------------------
";
        assert_eq!(one, expected);
        let source = ["a", "\u{1b}[2Jb\tx\r", "c"];
        let two = snippet("D", &source, Lines { start: 2, end: 3 });
        assert_eq!(
            two,
            "D:2\n--------------------\n   1 |     a\n   2 | >>> \\u{1b}[2Jb\tx\n   3 | >>> c\n\
             --------------------\n"
        );
        assert_eq!(snippet("D", &["a"], Lines { start: 7, end: 9 }), "");
    }
}
