//! The first step of an instruction: keyword, flags and the words of its arguments.

use super::flags;
use super::words::{Json, Part, Word, blank_words, first_word, json_array, quoted_words};
use super::{Fault, fault, go_quoted};
use crate::lines::Line;

/// An instruction cut into words.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub keyword: Part<'a>,
    pub flags: Vec<Word>,
    /// What follows the flags, without blanks at its ends.
    pub rest: Part<'a>,
    pub arguments: Arguments<'a>,
    /// Whether the arguments are a JSON array.
    pub json: bool,
}

/// The arguments in the form that the keyword asks for.
#[derive(Debug)]
pub(crate) enum Arguments<'a> {
    /// Words, or one word with the whole text.
    Words(Vec<Word>),
    /// Keys and values of `ENV` and `LABEL`.
    Pairs(Vec<Pair>),
    /// The instruction after `ONBUILD`.
    Trigger(Option<Box<Node<'a>>>),
}

/// One key and value.
#[derive(Debug)]
pub(crate) struct Pair {
    pub key: Word,
    pub value: Word,
    /// Written without `=`.
    pub legacy: bool,
}

impl Node<'_> {
    /// The keyword in upper case.
    pub(crate) fn name(&self) -> String {
        self.keyword.text.to_uppercase()
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.keyword.text.eq_ignore_ascii_case(name)
    }

    /// The words; none where there are pairs or a trigger.
    pub(crate) fn words(&self) -> &[Word] {
        match &self.arguments {
            Arguments::Words(words) => words,
            _ => &[],
        }
    }

    /// The instruction after `ONBUILD`.
    pub(crate) fn trigger(&self) -> Option<&Node<'_>> {
        match &self.arguments {
            Arguments::Trigger(trigger) => trigger.as_deref(),
            _ => None,
        }
    }

    /// Whether heredoc words in the line count.
    pub(crate) fn takes_heredocs(&self) -> bool {
        let node = self.trigger().unwrap_or(self);
        !node.json && ["RUN", "COPY", "ADD"].iter().any(|name| node.is(name))
    }
}

/// Cuts a line into words.
pub(crate) fn shape<'a>(line: &'a Line, escape: char) -> Result<Node<'a>, Fault> {
    node(Part::new(&line.text, 0), escape, true)
}

fn node(part: Part<'_>, escape: char, outermost: bool) -> Result<Node<'_>, Fault> {
    let part = part.trim();
    let (keyword, after) = first_word(part);
    let after = after.unwrap_or(Part::new("", part.end()));
    let (flags, rest) = flags::split(after, escape);
    let mut node = Node {
        keyword,
        flags,
        rest: rest.trim(),
        arguments: Arguments::Words(Vec::new()),
        json: false,
    };
    // `ONBUILD ONBUILD` is refused, so there is no need to follow a chain of them any deeper.
    if !node.is("ONBUILD") || outermost {
        (node.arguments, node.json) = arguments(&node, escape)?;
    }
    Ok(node)
}

fn arguments<'a>(node: &Node<'a>, escape: char) -> Result<(Arguments<'a>, bool), Fault> {
    let rest = node.rest;
    let one = || match rest.text.is_empty() {
        true => Vec::new(),
        false => vec![rest.to_word()],
    };
    let plain = |words: Vec<Word>| Ok((Arguments::Words(words), false));
    let all = |words: Vec<Part<'_>>| words.into_iter().map(Part::to_word).collect();
    match node.name().as_str() {
        "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" => json_or(rest, one),
        "ADD" | "COPY" | "VOLUME" => json_or(rest, || all(blank_words(rest))),
        "FROM" | "EXPOSE" => plain(all(blank_words(rest))),
        "ARG" => plain(all(quoted_words(rest, escape))),
        "ENV" | "LABEL" => Ok((Arguments::Pairs(pairs(node, escape)?), false)),
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => plain(one()),
        "HEALTHCHECK" => healthcheck(rest),
        "ONBUILD" if rest.text.is_empty() => Ok((Arguments::Trigger(None), false)),
        "ONBUILD" => {
            let trigger = self::node(rest, escape, false)?;
            Ok((Arguments::Trigger(Some(Box::new(trigger))), false))
        }
        _ => plain(Vec::new()),
    }
}

fn json_or<'a>(
    part: Part<'a>,
    otherwise: impl FnOnce() -> Vec<Word>,
) -> Result<(Arguments<'a>, bool), Fault> {
    match json_array(part) {
        Json::Array(words) => Ok((Arguments::Words(words), true)),
        Json::Not => Ok((Arguments::Words(otherwise()), false)),
        Json::NotStrings => {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            Err(fault("json", message).at(&part.to_word()))
        }
    }
}

/// The type, then a command.
fn healthcheck(rest: Part<'_>) -> Result<(Arguments<'_>, bool), Fault> {
    let length = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
    let (kind, command) = rest.text.split_at_checked(length).unwrap_or((rest.text, ""));
    if kind.is_empty() {
        return Ok((Arguments::Words(Vec::new()), false));
    }
    let command = rest.tail(command).trim();
    let one = || match command.text.is_empty() {
        true => Vec::new(),
        false => vec![command.to_word()],
    };
    let (arguments, json) = json_or(command, one)?;
    let mut words = vec![Part::new(kind, rest.at).to_word()];
    if let Arguments::Words(more) = arguments {
        words.extend(more);
    }
    Ok((Arguments::Words(words), json))
}

fn pairs(node: &Node<'_>, escape: char) -> Result<Vec<Pair>, Fault> {
    let words = quoted_words(node.rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.text.contains('=') {
        let (key, value) = first_word(node.rest);
        let Some(value) = value else {
            let name = node.name();
            let message = format!("{name} must have two arguments");
            return Err(fault("arguments", message)
                .at(&key.to_word())
                .help("write it as name=value"));
        };
        return Ok(vec![Pair { key: key.to_word(), value: value.to_word(), legacy: true }]);
    }
    words.into_iter().map(pair).collect()
}

fn pair(word: Part<'_>) -> Result<Pair, Fault> {
    let Some((key, value)) = word.text.split_once('=') else {
        let quoted = go_quoted(word.text);
        let message =
            format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
        return Err(fault("arguments", message).at(&word.to_word()));
    };
    let key = Part::new(key, word.at);
    Ok(Pair { key: key.to_word(), value: word.tail(value).to_word(), legacy: false })
}
