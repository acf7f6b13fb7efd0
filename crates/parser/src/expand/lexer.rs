//! The scanner behind every expansion, and behind the search for heredoc words in a line.
//!
//! One pass builds two things at once: the text as one word, and the text split into words at
//! blanks that are not quoted. A variable's value is split too, a quoted part never is.

use std::collections::HashSet;

use super::{Environment, ExpandError, MAX_EXPANDED, MAX_NESTING};

/// What the scanner does with quotes, escapes and unset names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    /// Takes the next character literally.
    pub escape: char,
    /// Quotes are ordinary characters (heredoc bodies).
    pub plain_quotes: bool,
    /// Quotes group, but stay in the result.
    pub keep_quotes: bool,
    /// Escape characters work, but stay in the result.
    pub keep_escapes: bool,
    /// `$name` of an unset name stays as written.
    pub keep_unset: bool,
    /// Blanks after `<<` do not end a word.
    pub join_heredoc: bool,
}

impl Mode {
    /// The mode in which instructions are expanded.
    pub(crate) fn new(escape: char) -> Self {
        Self {
            escape,
            plain_quotes: false,
            keep_quotes: false,
            keep_escapes: false,
            keep_unset: false,
            join_heredoc: false,
        }
    }
}

/// A word and the bytes it was made from.
#[derive(Debug, Clone)]
pub(crate) struct LexWord {
    pub text: String,
    pub start: usize,
    pub end: usize,
}

/// A text as one word and as several.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub text: String,
    pub words: Vec<LexWord>,
    open: Option<LexWord>,
}

impl Output {
    /// Adds an unquoted character: a blank ends the word.
    fn split(&mut self, character: char, start: usize, end: usize) {
        if character.is_whitespace() {
            self.close();
        } else {
            self.word(start, end).push(character);
        }
    }

    /// Adds a text that is never split.
    fn whole(&mut self, text: &str, start: usize, end: usize) {
        self.word(start, end).push_str(text);
    }

    fn word(&mut self, start: usize, end: usize) -> &mut String {
        let word = self.open.get_or_insert_with(|| LexWord { text: String::new(), start, end });
        word.end = end;
        &mut word.text
    }

    /// Ends the word. An empty one, such as `""`, does not count, as in BuildKit.
    fn close(&mut self) {
        self.words.extend(self.open.take().filter(|word| !word.text.is_empty()));
    }
}

/// See the module.
pub(crate) struct Lexer<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) mode: Mode,
    environment: &'a dyn Environment,
    unset: Vec<&'a str>,
    known_unset: HashSet<&'a str>,
    depth: usize,
    pub(super) limit: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, mode: Mode, environment: &'a dyn Environment) -> Self {
        let limit = MAX_EXPANDED.max(text.len());
        Self {
            text,
            at: 0,
            mode,
            environment,
            unset: Vec::new(),
            known_unset: HashSet::new(),
            depth: 0,
            limit,
        }
    }

    /// Expands the whole text.
    pub(crate) fn run(&mut self) -> Result<Output, ExpandError> {
        self.until(None)
    }

    /// The names that were looked up and not set.
    pub(crate) fn into_unset(self) -> Vec<String> {
        self.unset.into_iter().map(str::to_owned).collect()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    pub(super) fn take_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Result<T, ExpandError> {
        Err(ExpandError { message: message.into(), at: self.at })
    }

    pub(super) fn check_length(&self, length: usize) -> Result<(), ExpandError> {
        if length > self.limit {
            return self.fail(format!("expanded text is longer than {} bytes", self.limit));
        }
        Ok(())
    }

    /// Reads up to `stop`, which is eaten, or up to the end when there is none.
    pub(super) fn until(&mut self, stop: Option<char>) -> Result<Output, ExpandError> {
        let mut output = Output::default();
        while let Some(character) = self.peek() {
            let start = self.at;
            if Some(character) == stop {
                self.next();
                output.close();
                return Ok(output);
            }
            self.check_length(output.text.len())?;
            match character {
                '$' => {
                    let value = self.dollar()?;
                    output.text.push_str(&value);
                    for part in value.chars() {
                        output.split(part, start, self.at);
                    }
                }
                '<' if self.mode.join_heredoc => {
                    let part = self.heredoc_operator();
                    output.text.push_str(part);
                    output.whole(part, start, self.at);
                }
                '\'' if !self.mode.plain_quotes => {
                    let part = self.single_quoted()?;
                    output.text.push_str(&part);
                    output.whole(&part, start, self.at);
                }
                '"' if !self.mode.plain_quotes => {
                    let part = self.double_quoted()?;
                    output.text.push_str(&part);
                    output.whole(&part, start, self.at);
                }
                _ if character == self.mode.escape => {
                    self.next();
                    if self.mode.keep_escapes {
                        output.text.push(character);
                        output.word(start, self.at).push(character);
                    }
                    // An escape character at the very end just goes.
                    if let Some(literal) = self.next() {
                        output.text.push(literal);
                        output.word(start, self.at).push(literal);
                    }
                }
                _ => {
                    self.next();
                    output.text.push(character);
                    output.split(character, start, self.at);
                }
            }
        }
        if let Some(stop) = stop {
            return self
                .fail(format!("unexpected end of statement while looking for matching {stop}"));
        }
        self.check_length(output.text.len())?;
        output.close();
        Ok(output)
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let opened = self.at;
        let mut result = String::new();
        result.extend(self.next().filter(|_| self.mode.keep_quotes));
        while let Some(character) = self.next() {
            if character != '\'' {
                result.push(character);
                continue;
            }
            if self.mode.keep_quotes {
                result.push(character);
            }
            return Ok(result);
        }
        self.at = self.text.len();
        let message = "unexpected end of statement while looking for matching single-quote";
        Err(ExpandError { message: message.to_owned(), at: opened })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let opened = self.at;
        let mut result = String::new();
        result.extend(self.next().filter(|_| self.mode.keep_quotes));
        while let Some(character) = self.peek() {
            self.check_length(result.len())?;
            match character {
                '"' => {
                    self.next();
                    if self.mode.keep_quotes {
                        result.push(character);
                    }
                    return Ok(result);
                }
                '$' => result.push_str(&self.dollar()?),
                _ if character == self.mode.escape => {
                    self.next();
                    if self.mode.keep_escapes {
                        result.push(character);
                    }
                    match self.peek() {
                        None => {}
                        Some(literal @ ('"' | '$')) => {
                            self.next();
                            result.push(literal);
                        }
                        Some(literal) if literal == self.mode.escape => {
                            self.next();
                            result.push(literal);
                        }
                        // Before anything else it is an ordinary character.
                        Some(_) => result.push(character),
                    }
                }
                _ => {
                    self.next();
                    result.push(character);
                }
            }
        }
        let message = "unexpected end of statement while looking for matching double-quote";
        Err(ExpandError { message: message.to_owned(), at: opened })
    }

    /// `<`, or `<<` with the blanks after it.
    fn heredoc_operator(&mut self) -> &'a str {
        let start = self.at;
        self.next();
        if self.take_if('<') {
            while self.peek().is_some_and(|next| matches!(next, '\t' | '\r' | '\n' | ' ')) {
                self.next();
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() == Some('{') {
            self.next();
            self.depth += 1;
            if self.depth > MAX_NESTING {
                return self.fail("substitution is nested too deeply");
            }
            let value = self.braced(start)?;
            self.depth -= 1;
            return Ok(value);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.lookup(name).map_or_else(|| self.when_unset(start), str::to_owned))
    }

    /// Letters, digits and `_`; all digits that lead; or one of the shell's special names.
    pub(super) fn name(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = match rest.chars().next() {
            Some(first) if is_digit(first) => rest.find(|next| !is_digit(next)),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => rest.find(|next: char| !(next.is_alphabetic() || is_digit(next) || next == '_')),
        };
        let name = rest.get(..length.unwrap_or(rest.len())).unwrap_or_default();
        self.at += name.len();
        name
    }

    pub(super) fn lookup(&mut self, name: &'a str) -> Option<&'a str> {
        let environment: &'a dyn Environment = self.environment;
        let value = environment.get(name);
        if value.is_none() && self.known_unset.insert(name) {
            self.unset.push(name);
        }
        value
    }

    pub(super) fn when_unset(&self, start: usize) -> String {
        match self.mode.keep_unset {
            true => self.text.get(start..self.at).unwrap_or_default().to_owned(),
            false => String::new(),
        }
    }
}

/// Decimal digits of any script, as Go's `unicode.IsDigit`; `char::is_numeric` takes more, which
/// never matters to a name that exists.
fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || (character.is_numeric() && !character.is_ascii())
}
