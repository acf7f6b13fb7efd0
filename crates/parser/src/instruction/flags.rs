//! The `--name=value` words before an instruction's arguments.
//!
//! They are cut off every instruction's line, also where none is defined: `CMD --x` is an unknown
//! flag, not a command.

use nom::branch::alt;
use nom::bytes::complete::take_while1;
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{map, opt};
use nom::multi::fold_many0;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};
use rbuild_types::Span;

use super::words::{Part, Word};
use super::{Fault, fault};
use crate::ast::{Spanned, Text};
use crate::lines::Line;
use crate::suggest::{did_you_mean, suggest};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `=true` or `=false`.
    Bool,
    /// One value.
    Value,
    /// A value each time it is given.
    Values,
}

/// The flags of an instruction after they have been checked.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    line: &'a Line,
    given: Vec<Flag<'a>>,
}

#[derive(Debug)]
struct Flag<'a> {
    name: &'a str,
    value: &'a str,
    word: &'a Word,
}

/// Cuts leading flags off and takes quotes and escape characters out of them. A bare `--` ends
/// them and is dropped.
pub(super) fn split(part: Part<'_>, escape: char) -> (Vec<Word>, Part<'_>) {
    let mut flags = Vec::new();
    let mut rest = part.text.trim_start();
    while rest.starts_with("--") {
        let at = part.tail(rest).at;
        let Ok((after, text)) = flag(rest, escape) else { break };
        rest = after;
        if text == "--" {
            break;
        }
        flags.push(Word { text, at, end: part.tail(after).at });
        rest = rest.trim_start();
    }
    (flags, part.tail(rest))
}

/// One word without its quotes. An escape character at the very end goes.
fn flag(text: &str, escape: char) -> IResult<&str, String> {
    let escaped = || preceded(char(escape), opt(anychar)).map(|next| next.map(String::from));
    let quoted = |quote: char| {
        let inside = alt((
            escaped(),
            map(satisfy(move |next| next != quote && next != escape), |next| {
                Some(String::from(next))
            }),
        ));
        let inside = fold_many0(inside, String::new, append);
        delimited(char(quote), inside, opt(char(quote))).map(Some)
    };
    let is_plain =
        |next: char| !next.is_whitespace() && next != escape && !matches!(next, '"' | '\'');
    let plain = take_while1(is_plain).map(|text: &str| Some(text.to_owned()));
    fold_many0(alt((plain, quoted('"'), quoted('\''), escaped())), String::new, append).parse(text)
}

fn append(mut text: String, more: Option<String>) -> String {
    text.extend(more);
    text
}

impl<'a> Flags<'a> {
    /// Checks the flags against those that the instruction defines, by name without dashes.
    pub(super) fn read(
        line: &'a Line,
        words: &'a [Word],
        defined: &[(&'static str, Takes)],
    ) -> Result<Self, Fault> {
        let mut given: Vec<Flag<'a>> = Vec::new();
        for word in words {
            let (dashed, value) = match word.text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.text.as_str(), None),
            };
            let name = dashed.strip_prefix("--").unwrap_or(dashed);
            let Some((_, takes)) = defined.iter().find(|(known, _)| *known == name) else {
                let suggestion = suggest(name, defined.iter().map(|(known, _)| *known));
                let message = did_you_mean(format!("unknown flag: {dashed}"), suggestion);
                return Err(fault("unknown-flag", message).at(word));
            };
            if *takes != Takes::Values && given.iter().any(|flag| flag.name == name) {
                let message = format!("duplicate flag specified: {dashed}");
                return Err(fault("duplicate-flag", message).at(word));
            }
            match (takes, value) {
                (Takes::Bool, Some("")) | (Takes::Value | Takes::Values, None) => {
                    let message = format!("missing a value on flag: {dashed}");
                    return Err(fault("flag-value", message).at(word));
                }
                (Takes::Bool, Some(value)) if boolean(value).is_none() => {
                    let message =
                        format!("expecting boolean value for flag {dashed}, not: {value}");
                    return Err(fault("flag-value", message).at(word));
                }
                _ => given.push(Flag { name, value: value.unwrap_or("true"), word }),
            }
        }
        Ok(Self { line, given })
    }

    /// Checks that there is none.
    pub(super) fn none(line: &'a Line, words: &'a [Word]) -> Result<(), Fault> {
        Self::read(line, words, &[]).map(|_| ())
    }

    pub(super) fn value(&self, name: &str) -> Option<Text> {
        self.values(name).into_iter().next()
    }

    pub(super) fn values(&self, name: &str) -> Vec<Text> {
        self.each(name).map(|(text, _)| text).collect()
    }

    /// The values with the words that hold them.
    pub(super) fn each(&self, name: &str) -> impl Iterator<Item = (Text, &'a Word)> {
        let wanted = self.given.iter().filter(move |flag| flag.name == name);
        wanted.map(|flag| (Spanned::new(flag.value.to_owned(), self.value_span(flag)), flag.word))
    }

    pub(super) fn boolean(&self, name: &str) -> Option<Spanned<bool>> {
        let flag = self.given.iter().find(|flag| flag.name == name)?;
        let span = self.line.span(flag.word.at..flag.word.end);
        Some(Spanned::new(boolean(flag.value)?, span))
    }

    /// What follows `=`, quotes included.
    fn value_span(&self, flag: &Flag<'_>) -> Span {
        let written = self.line.text.get(flag.word.at..flag.word.end).unwrap_or_default();
        let skipped = written.find('=').map_or(0, |found| found + 1);
        self.line.span(flag.word.at + skipped..flag.word.end)
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> (Vec<String>, &str) {
        let (flags, rest) = split(Part::new(text, 0), '\\');
        (flags.into_iter().map(|flag| flag.text).collect(), rest.text.trim())
    }

    #[test]
    fn flags_lead_and_lose_their_quotes() {
        let none = Vec::<String>::new;
        assert_eq!(
            texts("--a=\"b c\" --d='e' f --g"),
            (vec!["--a=b c".into(), "--d=e".into()], "f --g")
        );
        assert_eq!(texts("--a -- --b"), (vec!["--a".into()], "--b"));
        assert_eq!(texts("-- x"), (none(), "x"));
        assert_eq!(texts("--"), (none(), ""));
        assert_eq!(texts("-a"), (none(), "-a"));
        assert_eq!(texts("--a=b\\ c d"), (vec!["--a=b c".into()], "d"));
        assert_eq!(texts("--a=\"open x"), (vec!["--a=open x".into()], ""));
        assert_eq!(texts("--a\\"), (vec!["--a".into()], ""));
    }

    #[test]
    fn errors_use_buildkits_words() {
        let line = Line::default();
        let defined = [("link", Takes::Bool), ("mount", Takes::Values), ("chown", Takes::Value)];
        let message = |text: &str| {
            let (words, _) = split(Part::new(text, 0), '\\');
            Flags::read(&line, &words, &defined).map(|_| ()).unwrap_err().message
        };
        assert_eq!(message("--mont=x"), "unknown flag: --mont (did you mean mount?)");
        assert_eq!(message("--nothing"), "unknown flag: --nothing");
        assert_eq!(message("--link="), "missing a value on flag: --link");
        assert_eq!(message("--chown"), "missing a value on flag: --chown");
        assert_eq!(message("--chown=a --chown=b"), "duplicate flag specified: --chown");
        assert_eq!(message("--link=1"), "expecting boolean value for flag --link, not: 1");
        let (words, _) = split(Part::new("--mount=a --mount=b --link=TRUE", 0), '\\');
        let flags = Flags::read(&line, &words, &defined).unwrap();
        assert_eq!(flags.values("mount").len(), 2);
        assert!(flags.boolean("link").unwrap().value);
        assert!(flags.value("chown").is_none());
    }
}
