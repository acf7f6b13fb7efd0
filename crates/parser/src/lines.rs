//! Physical lines joined into logical ones, with a map back to the bytes they came from.
//!
//! A logical line is one instruction without its heredocs. Comments and blank lines inside a
//! continuation are left out of it, which is why an offset in the logical text says nothing about
//! the source until [`Line::span`] has looked it up.

use std::ops::Range;

use rbuild_types::{Diagnostic, Span};

use crate::directives;

/// An instruction's text with continuation lines joined.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The text, blanks at its end included.
    pub text: String,
    /// Source offset of the first byte, which BuildKit names in its errors.
    pub start: usize,
    /// Comment lines above.
    pub comments: Vec<String>,
    /// The last blank line inside the continuation.
    pub blank: Option<Span>,
    /// Where each joined part begins, in the text and in the source; ascending.
    parts: Vec<(usize, usize)>,
}

impl Line {
    /// A line that is its own source.
    pub(crate) fn plain(text: &str) -> Self {
        let mut line = Self::default();
        line.push(text, 0);
        line
    }

    fn push(&mut self, text: &str, source: usize) {
        if !text.is_empty() {
            self.parts.push((self.text.len(), source));
            self.text.push_str(text);
        }
    }

    /// The source offset of a byte of the text.
    fn source(&self, at: usize) -> usize {
        let index = self.parts.partition_point(|(start, _)| *start <= at);
        match index.checked_sub(1).and_then(|index| self.parts.get(index)) {
            Some((start, source)) => source + (at - start),
            None => self.start,
        }
    }

    /// The source bytes of a part of the text, from its first to its last byte.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source(range.start);
        match range.end.checked_sub(1) {
            Some(last) if last >= range.start => Span::new(start, self.source(last) + 1),
            _ => Span::new(start, start),
        }
    }

    /// Whether a span lies on the line on which the instruction begins.
    pub(crate) fn begins_with(&self, span: Span) -> bool {
        // The first line may hold nothing but the continuation character.
        let begins_at_start = self.parts.first().is_some_and(|(_, source)| *source == self.start);
        begins_at_start && self.parts.get(1).is_none_or(|(_, second)| span.start < *second)
    }

    /// The source bytes of the last physical line that belongs to the text.
    pub(crate) fn last_part(&self) -> Span {
        let start = self.parts.last().map_or(0, |(start, _)| *start);
        self.span(start..self.text.len())
    }

    /// The source bytes of the whole text without blanks at its ends.
    pub(crate) fn whole(&self) -> Span {
        let trimmed = self.text.trim_end().len();
        let leading = self.text.len() - self.text.trim_start().len();
        self.span(leading.min(trimmed)..trimmed)
    }
}

/// Reads a source line by line.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: &'a str,
    at: usize,
    directives: directives::Reader,
    /// The escape character in force.
    pub escape: char,
}

impl<'a> Reader<'a> {
    /// Starts behind a byte order mark.
    pub(crate) fn new(source: &'a str) -> Self {
        let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { source, at, directives: directives::Reader::new(), escape: '\\' }
    }

    /// The next physical line with its line end, and its source offset.
    pub(crate) fn physical(&mut self) -> Option<(usize, &'a str)> {
        let start = self.at;
        let rest = self.source.get(start..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_inclusive('\n').next()?;
        self.at += line.len();
        Some((start, line))
    }

    /// The next logical line; nothing at the end of the source.
    pub(crate) fn logical(&mut self) -> Option<Result<Line, Diagnostic>> {
        let mut comments = Vec::new();
        while let Some((offset, line)) = self.physical() {
            let line = trim_line_end(line);
            let text = line.trim_start();
            let offset = offset + (line.len() - text.len());
            match self.directives.line(text, offset, &mut self.escape) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(problem) => return Some(Err(problem)),
            }
            if let Some(comment) = text.strip_prefix('#') {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
                continue;
            }
            let (part, goes_on) = strip_continuation(text, self.escape);
            if part.is_empty() && !goes_on {
                continue;
            }
            let mut joined = Line { start: offset, comments, ..Line::default() };
            joined.push(part, offset);
            if goes_on {
                self.continuation(&mut joined);
            }
            return Some(Ok(joined));
        }
        None
    }

    fn continuation(&mut self, joined: &mut Line) {
        while let Some((offset, line)) = self.physical() {
            let line = trim_line_end(line);
            let text = line.trim_start();
            if text.starts_with('#') {
                continue;
            }
            if text.is_empty() {
                joined.blank = Some(Span::new(offset, offset + line.len()));
                continue;
            }
            let (part, goes_on) = strip_continuation(line, self.escape);
            joined.push(part, offset);
            if !goes_on {
                return;
            }
        }
    }
}

/// The line without `\n` or `\r\n` (or several `\r`).
pub(crate) fn trim_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Cuts off the escape character at the end of a line and says whether it was there. One that is
/// itself escaped, as in `\\`, does not count; nor does the last of three, as in BuildKit.
pub(crate) fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Vec<Line> {
        let mut reader = Reader::new(source);
        std::iter::from_fn(|| reader.logical()).map(Result::unwrap).collect()
    }

    #[test]
    fn lines_are_joined_and_mapped_back() {
        let source = "RUN a \\\n# no\n\n  b \\\n  c\nCMD x\r\n";
        let lines = lines(source);
        let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["RUN a   b   c", "CMD x"]);
        let run = lines.first().unwrap();
        assert_eq!(run.span(8..9).text(source), "b");
        assert_eq!(run.span(4..9).text(source), "a \\\n# no\n\n  b");
        assert_eq!(run.span(13..13), Span::new(23, 23));
        assert!(run.blank.is_some());
        assert!(run.begins_with(run.span(0..3)));
        assert!(!run.begins_with(run.span(8..9)));
    }

    #[test]
    fn an_escaped_escape_character_does_not_continue() {
        let cut = |line| strip_continuation(line, '\\');
        assert_eq!(cut("a\\"), ("a", true));
        assert_eq!(cut("a \\ \t"), ("a ", true));
        assert_eq!(cut("\\"), ("", true));
        assert_eq!(cut("a\\\\"), ("a\\\\", false));
        assert_eq!(cut("a\\\\\\"), ("a\\\\\\", false));
        assert_eq!(strip_continuation("a`", '`'), ("a", true));
    }

    #[test]
    fn comments_belong_to_the_next_line_until_an_empty_one() {
        let lines = lines("# one\n#\n# two\n\n  #three \nFROM a\nRUN b\n");
        let comments: Vec<_> = lines.iter().map(|line| line.comments.clone()).collect();
        assert_eq!(comments, [vec!["two".to_owned(), "three".to_owned()], Vec::new()]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let source = "\u{feff}FROM a";
        assert_eq!(lines(source).first().unwrap().whole().text(source), "FROM a");
    }
}
