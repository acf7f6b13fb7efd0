//! Here-documents: BuildKit's `parser` and `instructions` packages.

use rbuild_parser::ast::{CommandLine, Heredoc, InstructionKind};
use rbuild_testkit::corpora::{Table, same, strings};
use serde_json::{Value, json};

use crate::{instruction, refused, text};

const PARSER: &str = "buildkit/tables/parser-parser_heredoc.tables.jsonl";
const INSTRUCTIONS: &str = "buildkit/tables/instructions-parse_heredoc.tables.jsonl";

/// The here-documents of a `RUN`.
fn heredocs(text: &str) -> Result<Vec<Heredoc>, String> {
    match instruction(text)?.kind {
        InstructionKind::Run(run) => Ok(run.heredocs),
        other => Err(format!("{other:?}")),
    }
}

/// The table holds what was read and not the text, so each row is written as a text first; one
/// without documents stands for a command without any.
#[test]
fn documents_are_read_as_they_were_written() {
    let Some(table) = Table::open(PARSER, "TestParseExtractsHeredoc", "tests") else { return };
    table.check(|row| {
        let rows = row.as_array().map(Vec::as_slice).unwrap_or_default();
        let (mut line, mut bodies) = ("RUN".to_owned(), String::new());
        for row in rows {
            let (name, content) = (text(row, "Name"), text(row, "Content"));
            let descriptor = row["FileDescriptor"].as_u64().map(|number| number.to_string());
            let chomp = if row["Chomp"] == true { "-" } else { "" };
            let name_as_written = match row["Expand"] == true {
                true => name.replace('\'', "\\'"),
                false => format!("\"{name}\""),
            };
            line += &format!(" {}<<{chomp}{name_as_written}", descriptor.unwrap_or_default());
            bodies += &format!("{content}{name}\n");
        }
        let found = heredocs(&format!("{line}\n{bodies}"))?;
        let found: Vec<_> = found
            .into_iter()
            .map(|one| (one.name, one.body.value, one.expand, one.chomp, one.descriptor))
            .collect();
        let expected = rows.iter().map(|row| {
            let descriptor = row["FileDescriptor"].as_u64().unwrap_or_default();
            let flags = (row["Expand"] == true, row["Chomp"] == true);
            let descriptor = u32::try_from(descriptor).unwrap();
            let (name, content) = (text(row, "Name"), text(row, "Content"));
            (name.to_owned(), content.to_owned(), flags.0, flags.1, descriptor)
        });
        same(&found, &expected.collect())
    });
}

#[test]
fn words_that_are_here_documents() {
    let Some(table) = Table::open(PARSER, "TestParseHeredocHelpers", "validHeredocs") else {
        return;
    };
    table.check(|word| {
        let found = heredocs(&format!("RUN {}\nEOF\n", word.as_str().unwrap()))?;
        same(&found.into_iter().map(|one| one.name).collect(), &vec!["EOF".to_owned()])
    });

    let Some(table) = Table::open(PARSER, "TestParseHeredocHelpers", "invalidHeredocs") else {
        return;
    };
    // An error of that function alone: the quote is open, so the line is not split into words, and
    // has no here-document.
    table.check(|word| same(&heredocs(&format!("RUN {}\n", word.as_str().unwrap()))?, &Vec::new()));

    let Some(table) = Table::open(PARSER, "TestParseHeredocHelpers", "notHeredocs") else {
        return;
    };
    table.check(|word| {
        same(&heredocs(&format!("RUN x {}\n", word.as_str().unwrap()))?, &Vec::new())
    });
}

#[test]
fn here_documents_of_a_line() {
    let Some(table) = Table::open(PARSER, "TestHeredocsFromLine", "srcs") else { return };
    table.check(|row| {
        let names = strings(&row["heredocNames"]);
        let found = heredocs(&format!("{}\n{}\n", text(row, "line"), names.join("\n")))?;
        same(&found.into_iter().map(|heredoc| heredoc.name).collect(), &names)
    });
}

#[test]
fn errors() {
    let Some(table) = Table::open(INSTRUCTIONS, "TestErrorCasesHeredoc", "cases") else { return };
    table.check(|row| refused(text(row, "dockerfile"), text(row, "expectedError")));
}

#[test]
fn files_of_copy() {
    let Some(table) = Table::open(INSTRUCTIONS, "TestCopyHeredoc", "cases") else { return };
    table.check(|row| {
        let InstructionKind::Copy(copy) = instruction(text(row, "dockerfile"))?.kind else {
            return Err("is no COPY".to_owned());
        };
        let documents = copy.heredocs.iter().map(|heredoc| {
            json!({"Data": heredoc.content(), "Expand": heredoc.expand, "Path": heredoc.name})
        });
        let sources: Vec<_> = copy.sources.iter().map(|source| &source.value).collect();
        let found = json!({
            "DestPath": copy.destination.value,
            "SourcePaths": sources,
            "SourceContents": documents.collect::<Value>(),
        });
        let list = |value: &Value| if value.is_null() { json!([]) } else { value.clone() };
        let expected = &row["sourcesAndDest"];
        let expected = json!({
            "DestPath": expected["DestPath"],
            "SourcePaths": list(&expected["SourcePaths"]),
            "SourceContents": list(&expected["SourceContents"]),
        });
        same(&found, &expected)
    });
}

#[test]
fn scripts_of_run() {
    let Some(table) = Table::open(INSTRUCTIONS, "TestRunHeredoc", "cases") else { return };
    table.check(|row| {
        let InstructionKind::Run(run) = instruction(text(row, "dockerfile"))?.kind else {
            return Err("is no RUN".to_owned());
        };
        let (shell, command) = match run.command {
            CommandLine::Exec { argv, .. } => (false, argv),
            CommandLine::Shell { text, .. } => (true, vec![text]),
        };
        same(&shell, &(row["shell"] == true))?;
        same(&command, &strings(&row["command"]))?;
        let files = row["files"].as_array().into_iter().flatten();
        let files: Vec<_> = files
            .map(|file| (file["Name"].clone(), file["Data"].clone(), file["Chomp"] == true))
            .collect();
        let found = run.heredocs.into_iter();
        let found = found.map(|one| (json!(one.name), json!(one.body.value), one.chomp));
        same(&found.collect(), &files)
    });
}
