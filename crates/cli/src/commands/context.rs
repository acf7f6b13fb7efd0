//! `rbuild context`.

use rbuild::{Decided, LineIndex, Preview, Silent, Taken};
use serde_json::{Value, json};

use crate::args::context::ContextArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::visible;
use crate::{exit_code, human, interrupt, output, report};

/// Files that are shown of one instruction.
const BIGGEST: usize = 20;

/// Shows what instructions take from the build context, or what its ignore file does.
pub fn run(args: &ContextArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let json = args.is_json()?;
    let request = args.request(context.environment)?;
    let cancel = interrupt::cancel_on_interrupt()?;
    let preview = rbuild::preview_contexts(&request, &Silent, &cancel)?;
    if json {
        let text = serde_json::to_string_pretty(&document(&preview)).unwrap_or_default();
        output::line(&text)?;
        return Ok(exit_code::SUCCESS);
    }
    output::data(match args.ignored {
        true => ignored(&preview),
        false => taken(&preview, args.no_trunc),
    })?;
    report::warnings(&preview.dockerfile, Some(&preview.source_text), &preview.warnings);
    if !preview.warnings.is_empty() {
        output::note("images are not looked at: a variable that an image sets is not known here");
    }
    for rule in &preview.ignored.idle {
        output::note(&visible(&format!("this rule changes nothing: {rule}")));
    }
    for directory in &preview.ignored.unread {
        let directory = if directory.is_empty() { "the context" } else { directory };
        output::note(&visible(&format!("{directory} cannot be read and was left out")));
    }
    Ok(exit_code::SUCCESS)
}

/// The instructions with what they take, the biggest first.
fn taken(preview: &Preview, all: bool) -> String {
    let lines = LineIndex::new(&preview.source_text);
    let mut text = String::new();
    for instruction in &preview.instructions {
        let place = instruction
            .span
            .map(|span| format!("  ({}:{})", preview.dockerfile, lines.line(span.start)));
        let from = instruction.context.as_ref().map(|name| format!("  from {name}"));
        let title = format!(
            "{}{}{}",
            instruction.name,
            from.unwrap_or_default(),
            place.unwrap_or_default()
        );
        text.push_str(&format!("{}\n", visible(&title)));
        if let Some(problem) = &instruction.problem {
            text.push_str(&format!("  fails: {}\n\n", visible(problem)));
            continue;
        }
        let files: Vec<_> =
            instruction.selected.iter().filter(|file| !file.is_directory()).collect();
        let limit = if all { files.len() } else { BIGGEST };
        for file in files.iter().take(limit) {
            let path = visible(&file.path);
            text.push_str(&format!("  {:>8}  {path}\n", human::bytes(file.bytes)));
        }
        if files.len() > limit {
            let rest: u64 = files.iter().skip(limit).map(|file| file.bytes).sum();
            let count = files.len() - limit;
            text.push_str(&format!("  {:>8}  and {count} smaller\n", human::bytes(rest)));
        }
        text.push_str(&format!("  {}\n\n", total(instruction.files, instruction.bytes)));
    }
    if preview.instructions.is_empty() {
        text.push_str("no instruction takes anything from a context\n");
    }
    let left_out = preview.ignored.paths.iter().filter(|path| path.ignored);
    let (files, bytes) =
        left_out.fold((0, 0), |(files, bytes), path| (files + path.files, bytes + path.bytes));
    if files > 0 {
        text.push_str(&format!("left out by the ignore file: {}\n", total(files, bytes)));
    }
    text
}

/// Every path that a rule decided on.
fn ignored(preview: &Preview) -> String {
    let mut text = String::new();
    for path in &preview.ignored.paths {
        let Decided { by, .. } = path;
        let sign = if path.ignored { '-' } else { '+' };
        let slash = if path.directory { "/" } else { "" };
        let what = visible(&format!("{}{slash}  {by}", path.path));
        text.push_str(&format!("{sign} {:>8}  {what}\n", human::bytes(path.bytes)));
    }
    if preview.ignored.paths.is_empty() {
        text.push_str("no path is left out\n");
    }
    text
}

fn total(files: u64, bytes: u64) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{files} {noun}, {}", human::bytes(bytes))
}

fn document(preview: &Preview) -> Value {
    let lines = LineIndex::new(&preview.source_text);
    let instruction = |taken: &Taken| {
        let mut value = serde_json::to_value(taken).unwrap_or_default();
        value["line"] = json!(taken.span.map(|span| lines.line(span.start)));
        value
    };
    let rule = |by: &rbuild::IgnoredBy| json!({"file": by.file, "line": by.line, "rule": by.rule});
    let path = |path: &Decided| {
        json!({
            "path": path.path,
            "directory": path.directory,
            "ignored": path.ignored,
            "files": path.files,
            "bytes": path.bytes,
            "by": rule(&path.by),
        })
    };
    json!({
        "dockerfile": preview.dockerfile,
        "instructions": preview.instructions.iter().map(instruction).collect::<Vec<_>>(),
        "ignore_file": {
            "paths": preview.ignored.paths.iter().map(path).collect::<Vec<_>>(),
            "unused_rules": preview.ignored.idle.iter().map(rule).collect::<Vec<_>>(),
            "unread": preview.ignored.unread,
        },
    })
}
