//! The second step of an instruction: its words checked and typed, by keyword.

use rbuild_types::{Diagnostic, Span};

use super::fault::{Fault, fault};
use super::{Node, arg, copy, env, from, meta, run};
use crate::ast::{Heredoc, Instruction, InstructionKind, Spanned, Stage};
use crate::lines::Line;
use crate::suggest::{did_you_mean, suggest_in_case_of};

/// All keywords, in the order in which ties between suggestions are broken.
const KEYWORDS: [&str; 18] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Problems that do not keep an instruction from being read.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Worth knowing.
    pub warnings: Vec<Diagnostic>,
    /// Errors that BuildKit finds after all instructions were read.
    pub late: Vec<Fault>,
}

/// A typed instruction.
#[derive(Debug)]
pub(crate) enum Parsed {
    Stage(Box<Stage>),
    Instruction(Box<Instruction>),
}

/// Checks and types an instruction. `end` is the offset after its last heredoc, if it has any.
pub(crate) fn finish(
    node: &Node<'_>,
    line: &Line,
    heredocs: Vec<Heredoc>,
    end: Option<usize>,
    escape: char,
    notes: &mut Notes,
) -> Result<Parsed, Fault> {
    let whole = line.whole();
    let span = Span::new(whole.start, end.unwrap_or(whole.end));
    let text = line.text.trim().to_owned();
    let keyword =
        Spanned::new(node.keyword.text.to_owned(), line.span(node.keyword.at..node.keyword.end()));
    if node.is("FROM") {
        return from::parse(node, line, span, text, keyword).map(Box::new).map(Parsed::Stage);
    }
    let kind = kind(node, line, heredocs, escape, notes)?;
    let comments = line.comments.clone();
    Ok(Parsed::Instruction(Box::new(Instruction { span, keyword, text, comments, kind })))
}

fn kind(
    node: &Node<'_>,
    line: &Line,
    heredocs: Vec<Heredoc>,
    escape: char,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    match node.name().as_str() {
        "ADD" => copy::parse_add(node, line, &heredocs),
        "ARG" => arg::parse(node, line, notes),
        "CMD" => run::parse_cmd(node, line),
        "COPY" => copy::parse_copy(node, line, &heredocs, escape, notes),
        "ENTRYPOINT" => run::parse_entrypoint(node, line),
        "ENV" => env::parse_env(node, line),
        "EXPOSE" => meta::parse_expose(node, line),
        "HEALTHCHECK" => meta::parse_healthcheck(node, line, notes),
        "LABEL" => env::parse_label(node, line),
        "MAINTAINER" => meta::parse_maintainer(node, line),
        "ONBUILD" => meta::parse_onbuild(node, line, &heredocs, escape, notes),
        "RUN" => run::parse_run(node, line, heredocs, escape, notes),
        "SHELL" => meta::parse_shell(node, line),
        "STOPSIGNAL" => meta::parse_stopsignal(node, line, notes),
        "USER" => meta::parse_user(node, line),
        "VOLUME" => meta::parse_volume(node, line),
        "WORKDIR" => meta::parse_workdir(node, line),
        _ => Err(unknown(node)),
    }
}

fn unknown(node: &Node<'_>) -> Fault {
    let written = node.keyword.text;
    let message = format!("unknown instruction: {written}");
    let suggestion = suggest_in_case_of(written, KEYWORDS);
    let message = did_you_mean(message, suggestion.as_deref());
    fault("unknown-instruction", message).at(&node.keyword.to_word())
}

/// The `DOC` of a comment line `NAME DOC`, for the first comment that begins with the name.
pub(super) fn doc_of(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let docs = |line: &String| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(docs)
}

/// The warning for a flag on an instruction that BuildKit never reads flags of.
pub(super) fn ignored_flags(node: &Node<'_>, line: &Line, name: &str, notes: &mut Notes) {
    for flag in &node.flags {
        let span = line.span(flag.at..flag.end);
        let message = format!("flag {} of {name} is ignored", flag.text);
        notes.warnings.push(Diagnostic::warning("ignored-flag", span, message));
    }
}
