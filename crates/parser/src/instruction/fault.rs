//! What is wrong with an instruction, in a form that does not know the source yet.

use rbuild_types::{Diagnostic, Span};

use super::words::{Part, Word, first_word};
use crate::lines::Line;

/// What is wrong with an instruction, and where in its logical line.
#[derive(Debug)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub message: String,
    pub at: Option<(usize, usize)>,
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
        let keyword = first_word(Part::new(&line.text, 0)).0;
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

pub(super) fn at_least_one(name: &str) -> Fault {
    fault("arguments", format!("{name} requires at least one argument"))
}

pub(super) fn exactly_one(name: &str) -> Fault {
    fault("arguments", format!("{name} requires exactly one argument"))
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
