//! Here-documents: finding their words in a line, and reading their bodies.
//!
//! A heredoc word is a shell word of the form `fd?<<-?name`. Finding it needs the shell's quotes,
//! because `'<<EOF'` is none, so the expansion's scanner splits the line. A line that it cannot
//! split (an open quote) has no heredocs, as in BuildKit.

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, digit0};
use nom::combinator::opt;
use nom::{IResult, Parser};
use rbuild_types::Span;

use crate::ast::{Heredoc, Spanned};
use crate::expand::{ExpandError, Lexer, Mode, NoVariables};
use crate::lines::{Line, Reader, trim_line_end};

/// The parts of a heredoc word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub name: String,
    pub expand: bool,
    pub chomp: bool,
    pub descriptor: u32,
}

/// Heredocs always use a backslash, whatever the escape directive says.
const MODE: Mode = Mode {
    escape: '\\',
    plain_quotes: false,
    keep_quotes: false,
    keep_escapes: false,
    keep_unset: true,
    join_heredoc: true,
};

/// Reads one word; `Ok(None)` when it is no heredoc word.
pub(crate) fn word(text: &str) -> Result<Option<Word>, ExpandError> {
    let Ok(("", (descriptor, chomp, rest))) = operator(text) else { return Ok(None) };
    let unquoted = split(rest, MODE)?;
    let [name] = unquoted.as_slice() else { return Ok(None) };
    let raw = split(rest, Mode { keep_quotes: true, ..MODE })?;
    let raw = raw.first().map(|word| word.0.as_str()).unwrap_or_default();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(Word {
        expand: quotes(&name.0) == quotes(raw),
        name: name.0.clone(),
        chomp,
        descriptor: descriptor.parse().unwrap_or(0),
    }))
}

/// `descriptor<<-  name`, the name not yet unquoted and without `<`.
fn operator(text: &str) -> IResult<&str, (&str, bool, &str)> {
    let blanks = take_while(|next: char| matches!(next, '\t' | '\n' | '\x0c' | '\r' | ' '));
    (digit0, tag("<<"), opt(char('-')), blanks, take_while(|next| next != '<'))
        .map(|(descriptor, _, chomp, _, name)| (descriptor, chomp.is_some(), name))
        .parse(text)
}

fn split(text: &str, mode: Mode) -> Result<Vec<(String, usize, usize)>, ExpandError> {
    let output = Lexer::new(text, mode, &NoVariables).run()?;
    Ok(output.words.into_iter().map(|word| (word.text, word.start, word.end)).collect())
}

/// The heredocs that a line asks for; bodies are still empty.
pub(crate) fn words_of(line: &Line) -> Result<Vec<Heredoc>, ExpandError> {
    if !line.text.contains("<<") {
        return Ok(Vec::new());
    }
    let raw = Mode { keep_quotes: true, keep_escapes: true, ..MODE };
    let mut found = Vec::new();
    for (text, start, end) in split(&line.text, raw).unwrap_or_default() {
        let Some(Word { name, expand, chomp, descriptor }) = word(&text)? else { continue };
        let word = Spanned::new(text, line.span(start..end));
        let body = Spanned::new(String::new(), Span::new(word.span.end, word.span.end));
        found.push(Heredoc { name, word, expand, chomp, descriptor, body });
    }
    Ok(found)
}

/// Reads the bodies from the lines that follow. Returns the offset after the last terminator, or
/// nothing when one is missing.
pub(crate) fn read_bodies(heredocs: &mut [Heredoc], reader: &mut Reader<'_>) -> Option<usize> {
    let mut end = 0;
    for heredoc in heredocs {
        let mut body: Option<(usize, usize)> = None;
        loop {
            let (offset, line) = reader.physical()?;
            let trimmed = trim_line_end(line);
            let candidate = if heredoc.chomp { trimmed.trim_start_matches('\t') } else { trimmed };
            let (start, before) = body.unwrap_or((offset, offset));
            if candidate == heredoc.name {
                heredoc.body.span = Span::new(start, before);
                end = offset + trimmed.len();
                break;
            }
            heredoc.body.value.push_str(line);
            body = Some((start, before + line.len()));
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_and_without_quotes() {
        for text in [
            "<<EOF",
            "<<'EOF'",
            "<<\"EOF\"",
            "<<-EOF",
            "<<-'EOF'",
            "<<EO\"F\"",
            "<< EOF",
            "<<- EOF",
        ] {
            let found = word(text).unwrap().unwrap();
            assert_eq!(found.name, "EOF", "{text}");
            assert_eq!(found.expand, !text.contains(['\'', '"']), "{text}");
            assert_eq!(found.chomp, text.contains('-'), "{text}");
        }
        assert_eq!(word("3<<A").unwrap().unwrap().descriptor, 3);
        for text in ["<<'EOF", "<<\"EOF", "<<EOF'", "<<EOF\""] {
            assert!(word(text).is_err(), "{text}");
        }
        for text in ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh", "<<''"] {
            assert_eq!(word(text).unwrap(), None, "{text}");
        }
    }

    #[test]
    fn odd_names_end_their_bodies() {
        let rows = [
            ("RUN cat <<'one two'", "one two", false),
            ("RUN cat <<\"eo'f\"", "eo'f", false),
            ("RUN cat <<eo\\'f", "eo'f", true),
            ("RUN cat <<$EOF", "$EOF", true),
            ("RUN <<'e'of", "eof", false),
            ("RUN cat <<file.txt > x", "file.txt", true),
        ];
        for (line, name, expand) in rows {
            let source = format!("body\n{name}\nafter");
            let mut found = words_of(&Line::plain(line)).unwrap();
            let mut reader = Reader::new(&source);
            assert_eq!(read_bodies(&mut found, &mut reader), Some(5 + name.len()), "{line}");
            let heredoc = found.first().unwrap();
            assert_eq!((heredoc.name.as_str(), heredoc.expand), (name, expand), "{line}");
            assert_eq!(heredoc.body.value, "body\n");
            assert_eq!(heredoc.body.span.text(&source), "body\n");
        }
    }

    #[test]
    fn carriage_returns_stay_in_the_body() {
        let source = "a\r\n\r\nEOF\r\n";
        let mut found = words_of(&Line::plain("RUN <<EOF")).unwrap();
        assert!(read_bodies(&mut found, &mut Reader::new(source)).is_some());
        assert_eq!(found.first().unwrap().body.value, "a\r\n\r\n");
    }
}
