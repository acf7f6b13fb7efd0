//! The public corpora at the level of words and lines, row by row: BuildKit's parser, heredoc,
//! JSON, instruction and shell tests, the pattern tests of moby and fsutil, asottile/dockerfile,
//! and every Dockerfile that is there.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

#[path = "../common/mod.rs"]
mod common;

mod asottile;
mod dockerfiles;
mod expansion;
mod heredocs;
mod instructions;
mod lines;
mod patterns;

use rbuild_parser::ast::Instruction;
use rbuild_parser::parse;
use rbuild_types::Diagnostic;
use serde_json::Value;

/// Parses one instruction in a stage.
fn instruction(text: &str) -> Result<Instruction, String> {
    let (file, problems) = parse(&format!("FROM scratch\n{text}"));
    match problems.iter().find(|problem| problem.is_error()) {
        Some(error) => Err(error.message.clone()),
        None => Ok(file.stages[0].instructions[0].clone()),
    }
}

/// The message of the error that the instruction is.
fn message(text: &str) -> Result<String, String> {
    instruction(text).err().ok_or_else(|| "is accepted".to_owned())
}

/// Whether it is an error whose words hold `words`.
fn refused(text: &str, words: &str) -> Result<(), String> {
    let message = message(text)?;
    if message.contains(words) { Ok(()) } else { Err(message) }
}

/// A text of a row; empty where the row has none.
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Whether the list of diagnostics has no error.
fn accepted(problems: &[Diagnostic]) -> Result<(), String> {
    match problems.iter().find(|problem| problem.is_error()) {
        Some(error) => Err(error.message.clone()),
        None => Ok(()),
    }
}
