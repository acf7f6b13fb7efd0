//! How the rest of a line is cut into words. There are three ways, and each instruction has its
//! own: at blanks whatever they stand in, at blanks outside quotes, or as a JSON array.

use nom::branch::alt;
use nom::bytes::complete::{take_till, take_while};
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{opt, recognize};
use nom::multi::{many0_count, many1_count};
use nom::{IResult, Parser};

use crate::ast::{Spanned, Text};
use crate::lines::Line;

/// A piece of a logical line and where it begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub text: &'a str,
    pub at: usize,
}

impl<'a> Part<'a> {
    pub(crate) fn new(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub(crate) fn end(self) -> usize {
        self.at + self.text.len()
    }

    pub(crate) fn trim(self) -> Self {
        let text = self.text.trim_start();
        Self { text: text.trim_end(), at: self.at + (self.text.len() - text.len()) }
    }

    /// The piece of this one that is `text`, which must be a tail of it.
    pub(crate) fn tail(self, text: &'a str) -> Self {
        Self { text, at: self.at + (self.text.len() - text.len()) }
    }

    pub(crate) fn to_word(self) -> Word {
        Word { text: self.text.to_owned(), at: self.at, end: self.end() }
    }
}

/// A word as it counts, which need not be how it was written, and where it stands in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub text: String,
    pub at: usize,
    pub end: usize,
}

impl Word {
    pub(crate) fn spanned(&self, line: &Line) -> Text {
        Spanned::new(self.text.clone(), line.span(self.at..self.end))
    }
}

/// The blanks that separate words; other Unicode blanks do not.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Cuts off the first word.
pub(crate) fn first_word(part: Part<'_>) -> (Part<'_>, Option<Part<'_>>) {
    let parsed: IResult<&str, &str> = take_till(is_blank)(part.text);
    let Ok((rest, word)) = parsed else { return (part, None) };
    let after = part.tail(rest.trim_start_matches(is_blank));
    (Part::new(word, part.at), (!rest.is_empty()).then_some(after))
}

/// Words between blanks; quotes mean nothing.
pub(crate) fn blank_words(part: Part<'_>) -> Vec<Part<'_>> {
    let mut words = Vec::new();
    let mut rest = (!part.text.is_empty()).then_some(part);
    while let Some(part) = rest {
        let (word, after) = first_word(part);
        words.push(word);
        rest = after;
    }
    words
}

/// Words between blanks that are neither quoted nor escaped. Quotes and escape characters stay.
pub(crate) fn quoted_words(part: Part<'_>, escape: char) -> Vec<Part<'_>> {
    let mut words = Vec::new();
    let mut rest = part.text.trim_start();
    while let Ok((after, word)) = quoted_word(rest, escape) {
        words.push(Part::new(word, part.tail(rest).at));
        rest = after.trim_start();
    }
    // All that can be left is a lone escape character at the very end, which is dropped.
    words
}

fn quoted_word(text: &str, escape: char) -> IResult<&str, &str> {
    let escaped = || recognize((char(escape), anychar));
    let double = recognize((
        char('"'),
        many0_count(alt((escaped(), recognize(satisfy(|next| next != '"' && next != escape))))),
        opt(char('"')),
    ));
    let single = recognize((char('\''), take_while(|next| next != '\''), opt(char('\''))));
    let plain = recognize(satisfy(|next| !next.is_whitespace() && next != escape));
    recognize(many1_count(alt((escaped(), double, single, plain)))).parse(text)
}

/// What a text that may be a JSON array is.
pub(crate) enum Json {
    /// An array of strings.
    Array(Vec<Word>),
    /// An array of other things, which is an error.
    NotStrings,
    /// No JSON array, so it counts as plain text.
    Not,
}

/// Reads a JSON array. It must be the whole text.
pub(crate) fn json_array(part: Part<'_>) -> Json {
    let part = part.trim();
    if !part.text.starts_with('[') {
        return Json::Not;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(part.text) else {
        return Json::Not;
    };
    let mut words = Vec::new();
    let mut places = json_strings(part.text);
    for value in values {
        let serde_json::Value::String(text) = value else { return Json::NotStrings };
        let (at, end) = places.next().unwrap_or((0, part.text.len()));
        words.push(Word { text, at: part.at + at, end: part.at + end });
    }
    Json::Array(words)
}

/// Where the string literals of a valid JSON array of strings begin and end.
fn json_strings(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut opened = None;
    let mut escaped = false;
    text.bytes().enumerate().filter_map(move |(at, byte)| match (byte, opened) {
        _ if escaped => {
            escaped = false;
            None
        }
        (b'\\', Some(_)) => {
            escaped = true;
            None
        }
        (b'"', Some(start)) => {
            opened = None;
            Some((start, at + 1))
        }
        (b'"', None) => {
            opened = Some(at);
            None
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(words: &[Part<'a>]) -> Vec<&'a str> {
        words.iter().map(|word| word.text).collect()
    }

    #[test]
    fn blank_words_know_no_quotes() {
        let words = blank_words(Part::new("a\t\"b  c\"", 5));
        assert_eq!(texts(&words), ["a", "\"b", "c\""]);
        assert_eq!(words.last().unwrap().at, 11);
        assert!(blank_words(Part::new("", 0)).is_empty());
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        let words = |text| texts(&quoted_words(Part::new(text, 0), '\\'));
        assert_eq!(words("foo bar"), ["foo", "bar"]);
        assert_eq!(words("foo\\ bar"), ["foo\\ bar"]);
        assert_eq!(words("foo bar 'abc xyz'"), ["foo", "bar", "'abc xyz'"]);
        assert_eq!(words("föo bàr \"âbc xÿz\""), ["föo", "bàr", "\"âbc xÿz\""]);
        assert_eq!(words("a=\"b\\\" c\" d"), ["a=\"b\\\" c\"", "d"]);
        assert_eq!(words("a='b\\' c"), ["a='b\\'", "c"]);
        assert_eq!(words("a=\"open b"), ["a=\"open b"]);
        assert_eq!(words("a \\"), ["a"]);
        assert_eq!(words("a\\"), ["a"]);
        assert_eq!(words(" "), [""; 0]);
    }

    #[test]
    fn json_arrays_of_strings_only() {
        let Json::Array(words) = json_array(Part::new("\t[\t\"a\",\"b\\\"]\" ] ", 3)) else {
            panic!("not an array")
        };
        let texts: Vec<_> =
            words.iter().map(|word| (word.text.as_str(), word.at, word.end)).collect();
        assert_eq!(texts, [("a", 6, 9), ("b\"]", 10, 16)]);
        assert!(matches!(json_array(Part::new("[1]", 0)), Json::NotStrings));
        for text in ["[\"a\"] x", "['a']", "{}", "", "[\"a\"", "null"] {
            assert!(matches!(json_array(Part::new(text, 0)), Json::Not), "{text}");
        }
    }
}
