//! The parser directives at the top of a Dockerfile: `# syntax=`, `# escape=`, `# check=`.
//!
//! BuildKit reads them twice. The line parser reads them as it meets the lines and looks only for
//! `escape`; a `#!` line is a comment to it and ends the directives. Before that, `syntax` and
//! `check` are looked for in the whole text, and there a `#!` line is skipped, and `syntax` may
//! also be written `//syntax=` or as a key of a JSON object. Both are kept apart here too.

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, satisfy};
use nom::combinator::recognize;
use nom::{IResult, Parser};
use rbuild_types::{Diagnostic, Span};

use crate::ast::{Directives, Spanned, Text};

/// The directives there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Syntax,
    Escape,
    Check,
}

impl Key {
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "syntax" => Some(Self::Syntax),
            "escape" => Some(Self::Escape),
            "check" => Some(Self::Check),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

/// One directive; `at` is the offset of the value in the line.
#[derive(Debug)]
struct Directive<'a> {
    key: Key,
    value: &'a str,
    at: usize,
}

/// Reads directives line by line until the first line that is none.
#[derive(Debug)]
pub(crate) struct Reader {
    prefix: &'static str,
    seen: Vec<Key>,
    done: bool,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { prefix: "#", seen: Vec::new(), done: false }
    }

    /// Reads one line, which starts at `offset` in the source, for the line parser.
    ///
    /// Returns whether it is a directive, and sets the escape character when it is that one.
    pub(crate) fn line(
        &mut self,
        line: &str,
        offset: usize,
        escape: &mut char,
    ) -> Result<bool, Diagnostic> {
        let span = Span::new(offset, offset + line.len());
        let problem = |message| Diagnostic::error("directive", span, message);
        let Some(directive) = self.read(line).map_err(problem)? else { return Ok(false) };
        if directive.key == Key::Escape {
            *escape = match directive.value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let message = format!("invalid escape token '{other}' does not match ` or \\");
                    return Err(problem(message).help("the escape character is \\ or `"));
                }
            };
        }
        Ok(true)
    }

    fn read<'a>(&mut self, line: &'a str) -> Result<Option<Directive<'a>>, String> {
        if self.done {
            return Ok(None);
        }
        let Some(directive) = directive(line, self.prefix) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&directive.key) {
            let name = directive.key.name();
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(directive.key);
        Ok(Some(directive))
    }
}

/// Looks for `syntax` and `check` in the text after the byte order mark, which begins at `offset`
/// in the source. The escape character is left at its default.
pub(crate) fn detect(text: &str, offset: usize) -> Directives {
    let shebang = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => text.len() - rest.len(),
        _ => 0,
    };
    let rest = text.get(shebang..).unwrap_or_default();
    let offset = offset + shebang;
    let reference = |found: Text| {
        let value = found.value.split(' ').next().unwrap_or_default().to_owned();
        let end = found.span.start + value.len();
        Spanned::new(value, Span::new(found.span.start, end))
    };
    let syntax = find(Key::Syntax, "#", rest, offset)
        .or_else(|| find(Key::Syntax, "//", rest, offset))
        .map(reference)
        .or_else(|| syntax_of_json(rest, offset));
    Directives { syntax, check: find(Key::Check, "#", rest, offset), ..Directives::default() }
}

/// The warning for a frontend that is not Docker's own. No frontend image is ever fetched.
pub(crate) fn foreign_syntax(syntax: &Text) -> Option<Diagnostic> {
    foreign_frontend(&syntax.value)
        .map(|message| Diagnostic::warning("foreign-syntax", syntax.span, message))
}

/// What to say of a frontend that is not Docker's own, also one of `BUILDKIT_SYNTAX`.
pub fn foreign_frontend(syntax: &str) -> Option<String> {
    let name = syntax.strip_prefix("docker.io/").unwrap_or(syntax);
    let known = name.starts_with("docker/dockerfile") || name == "dockerfile.v0";
    (!known).then(|| format!("syntax {syntax:?} is not fetched: the built-in parser is used"))
}

fn find(key: Key, prefix: &'static str, text: &str, mut offset: usize) -> Option<Text> {
    let mut reader = Reader { prefix, ..Reader::new() };
    for line in text.split_inclusive('\n') {
        let trimmed = line.strip_suffix('\n').unwrap_or(line);
        let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
        let found = reader.read(trimmed).ok()?;
        if reader.done {
            return None;
        }
        if let Some(found) = found.filter(|found| found.key == key) {
            let start = offset + found.at;
            let span = Span::new(start, start + found.value.len());
            return Some(Spanned::new(found.value.to_owned(), span));
        }
        offset += line.len();
    }
    None
}

fn syntax_of_json(text: &str, offset: usize) -> Option<Text> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some(Spanned::new(value.to_owned(), Span::new(offset, offset + text.len())))
}

fn directive<'a>(line: &'a str, prefix: &str) -> Option<Directive<'a>> {
    let (value, name) = name_and_value(line, prefix).ok()?;
    let key = Key::named(name)?;
    let trimmed = value.trim_matches(is_blank);
    let trimmed = match trimmed.is_empty() {
        // One character is always taken, be it the last blank.
        true => value.get(value.char_indices().last()?.0..)?,
        false => trimmed,
    };
    let blanks = value.find(trimmed)?;
    Some(Directive { key, value: trimmed, at: line.len() - value.len() + blanks })
}

/// `#`, blanks, the name, blanks, `=`; what is left is the value and blanks around it.
fn name_and_value<'a>(line: &'a str, prefix: &str) -> IResult<&'a str, &'a str> {
    let name = recognize((
        satisfy(|first| first.is_ascii_alphabetic()),
        take_while(|next: char| next.is_ascii_alphanumeric()),
    ));
    (tag(prefix), take_while(char::is_whitespace), name, take_while(is_blank), char('='))
        .map(|(_, _, name, _, _)| name)
        .parse(line)
}

/// What `\s` is in Go's regular expressions.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syntax(text: &str) -> Option<String> {
        detect(text, 0).syntax.map(|syntax| syntax.value)
    }

    #[test]
    fn syntax_is_found_in_its_three_forms() {
        let text = "# syntax = dockerfile:experimental // opts\nFROM busybox\n";
        let found = detect(text, 0).syntax.unwrap();
        assert_eq!(found.value, "dockerfile:experimental");
        assert_eq!(found.span.text(text), "dockerfile:experimental");
        assert_eq!(syntax("#!/bin/sh\n# syntax = a\nFROM busybox\n").as_deref(), Some("a"));
        assert_eq!(syntax("#!/bin/sh\n\n# syntax = a\n"), None);
        assert_eq!(syntax("FROM busybox\nRUN ls\n"), None);
        assert_eq!(syntax("//syntax=foo\n//key=value").as_deref(), Some("foo"));
        assert_eq!(syntax("#!/bin/sh\n//syntax=x").as_deref(), Some("x"));
        assert_eq!(syntax(r#"{"syntax": "foo", "bar": ["abc"]}"#).as_deref(), Some("foo"));
        assert_eq!(syntax(r#"{"syntax": "foo""#), None);
        assert_eq!(syntax("{\"syntax\": \"foo\"}\n# syntax=bar"), None);
    }

    #[test]
    fn check_keeps_its_whole_value() {
        let check = |text| detect(text, 0).check.map(|check| check.value);
        assert_eq!(check("#check = skip=all // opts\nFROM a\n").unwrap(), "skip=all // opts");
        assert_eq!(check("#!/bin/sh\n# check = skip=all\nFROM a\n").unwrap(), "skip=all");
        assert_eq!(check("# syntax=x\n# CHECK=error=true\n").unwrap(), "error=true");
        assert_eq!(check("//check=skip=all\n//key=value"), None);
    }

    #[test]
    fn only_the_first_lines_can_be_directives() {
        let escape_of = |text: &str| {
            let (mut reader, mut escape) = (Reader::new(), '\\');
            for line in text.lines() {
                reader.line(line, 0, &mut escape)?;
            }
            Ok::<_, Diagnostic>(escape)
        };
        assert_eq!(escape_of("# EScape=`\n").unwrap(), '`');
        assert_eq!(escape_of("# syntax=x\n#escape = ` \n").unwrap(), '`');
        assert_eq!(escape_of("# key=x\n# escape=`").unwrap(), '\\');
        assert_eq!(escape_of("#!/bin/sh\n# escape=`").unwrap(), '\\');
        assert_eq!(escape_of("\n# escape=`").unwrap(), '\\');
        let message = |text| escape_of(text).unwrap_err().message;
        assert_eq!(message("# escape=x"), "invalid escape token 'x' does not match ` or \\");
        assert_eq!(
            message("# escape=`\n# ESCAPE=`"),
            "only one escape parser directive can be used"
        );
    }

    #[test]
    fn only_dockers_frontend_is_known() {
        let foreign = |value: &str| {
            foreign_syntax(&Spanned::new(value.to_owned(), Span::new(0, 0))).is_some()
        };
        assert!(!foreign("docker/dockerfile:1.7-labs"));
        assert!(!foreign("docker.io/docker/dockerfile-upstream:master"));
        assert!(foreign("example.com/my/frontend"));
    }
}
