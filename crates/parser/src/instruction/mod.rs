//! Instructions: from a logical line to a typed value.
//!
//! This happens in two steps, as in BuildKit, because their errors come in that order: all lines
//! of the file are first cut into words ([`shape`]), which also says whether heredocs follow, and
//! then the words of each are checked and typed ([`finish`]). What BuildKit only finds when it
//! reaches a stage is kept as a *late* fault.

mod arg;
mod copy;
mod duration;
mod env;
mod flags;
mod from;
mod meta;
mod mount;
mod run;
mod shape;
pub(crate) mod words;

pub(crate) use meta::refused_trigger;
pub(crate) use shape::{Arguments, Node, shape};

use rbuild_types::{Diagnostic, Span};
use words::Word;

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

/// What is wrong with an instruction, and where in its logical line.
#[derive(Debug)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub message: String,
    at: Option<(usize, usize)>,
    help: Option<&'static str>,
}

pub(crate) fn fault(code: &'static str, message: impl Into<String>) -> Fault {
    Fault { code, message: message.into(), at: None, help: None }
}

impl Fault {
    pub(crate) fn at(self, word: &Word) -> Self {
        Self { at: Some((word.at, word.end)), ..self }
    }

    pub(crate) fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }

    /// The error for the terminal. The first place is always on the line where the instruction
    /// begins, because that is the one BuildKit names.
    pub(crate) fn diagnostic(self, line: &Line) -> Diagnostic {
        let keyword = words::first_word(words::Part::new(&line.text, 0)).0;
        let keyword = line.span(0..keyword.end());
        let exact = self.at.map(|(start, end)| line.span(start..end)).unwrap_or(keyword);
        let first = match (line.begins_with(exact), line.begins_with(keyword)) {
            (true, _) => exact,
            (_, true) => keyword,
            _ => Span::new(line.start, line.start),
        };
        let mut diagnostic = Diagnostic::error(self.code, first, self.message);
        if exact != first {
            diagnostic = diagnostic.label(exact, "");
        }
        match self.help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        }
    }
}

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

fn at_least_one(name: &str) -> Fault {
    fault("arguments", format!("{name} requires at least one argument"))
}

/// The `DOC` of a comment line `NAME DOC`, for the first comment that begins with the name.
fn doc_of(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let docs = |line: &String| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    comments.iter().find_map(docs)
}

/// The warning for a flag on an instruction that BuildKit never reads flags of.
fn ignored_flags(node: &Node<'_>, line: &Line, name: &str, notes: &mut Notes) {
    for flag in &node.flags {
        let span = line.span(flag.at..flag.end);
        let message = format!("flag {} of {name} is ignored", flag.text);
        notes.warnings.push(Diagnostic::warning("ignored-flag", span, message));
    }
}

/// A text as Go's `%q` prints it.
pub(crate) fn go_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            _ if character < ' ' || character == '\u{7f}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ if character.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
