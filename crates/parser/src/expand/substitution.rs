//! `${name}` and its modifiers.

use super::ExpandError;
use super::lexer::Lexer;
use super::pattern::Pattern;

impl<'a> Lexer<'a> {
    /// Reads on after `${`; `start` is the offset of the `$`.
    pub(super) fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        match self.peek() {
            None => return self.fail("syntax error: missing '}'"),
            Some('{' | '}' | ':') => return self.fail("syntax error: bad substitution"),
            Some(_) => {}
        }
        let name = self.name();
        let modifier_at = self.at;
        match self.next() {
            Some('}') => {
                Ok(self.lookup(name).map_or_else(|| self.when_unset(start), str::to_owned))
            }
            Some(':') => match self.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.default(name, modifier, true, start),
                modifier => {
                    let modifier = modifier.map(String::from).unwrap_or_default();
                    // BuildKit reads on to the brace before it looks at an unknown modifier.
                    if !matches!(modifier.as_str(), "#" | "%") {
                        self.operand('}', false)?;
                    }
                    self.at = modifier_at;
                    self.fail(format!("unsupported modifier (:{modifier}) in substitution"))
                }
            },
            Some(modifier @ ('-' | '+' | '?')) => self.default(name, modifier, false, start),
            Some(end @ ('#' | '%')) => self.trimmed(name, end, start),
            Some('/') => self.replaced(name, start),
            Some(modifier) => {
                self.at = modifier_at;
                self.fail(format!("unsupported modifier ({modifier}) in substitution"))
            }
            None => self.fail("syntax error: missing '}'"),
        }
    }

    /// `${v:-w}`, `${v:+w}`, `${v:?w}` and the same without colon, for which empty is set.
    fn default(
        &mut self,
        name: &'a str,
        modifier: char,
        empty_is_unset: bool,
        start: usize,
    ) -> Result<String, ExpandError> {
        let word = self.operand('}', false)?;
        let value = self.lookup(name);
        if value.is_none() && self.mode.keep_unset {
            return Ok(self.when_unset(start));
        }
        let usable = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match modifier {
            '-' => Ok(usable.map_or(word, str::to_owned)),
            '+' => Ok(if usable.is_some() { word } else { String::new() }),
            _ => match usable {
                Some(value) => Ok(value.to_owned()),
                None => {
                    let state = if value.is_some() { "empty" } else { "unset" };
                    let usual = format!("is not allowed to be {state}");
                    let message = if word.is_empty() { usual } else { word };
                    Err(ExpandError { message: format!("{name}: {message}"), at: start })
                }
            },
        }
    }

    /// `${v#p}` and `${v%p}`; doubled for the longest match.
    fn trimmed(&mut self, name: &'a str, end: char, start: usize) -> Result<String, ExpandError> {
        let word = self.operand('}', true)?;
        let Some(value) = self.lookup(name) else {
            if self.mode.keep_unset {
                return Ok(self.when_unset(start));
            }
            return self.pattern(word.strip_prefix(end).unwrap_or(&word)).map(|_| String::new());
        };
        let (word, longest) = match word.strip_prefix(end) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let pattern = self.pattern(word)?;
        Ok(match end {
            '#' => pattern.trim_prefix(value, longest),
            _ => pattern.trim_suffix(value, longest),
        })
    }

    /// `${v/p/r}` and `${v//p/r}`.
    fn replaced(&mut self, name: &'a str, start: usize) -> Result<String, ExpandError> {
        let everywhere = self.take_if('/');
        let word = self.operand('/', true)?;
        let replacement = self.operand('}', true)?;
        let Some(value) = self.lookup(name) else {
            if self.mode.keep_unset {
                return Ok(self.when_unset(start));
            }
            self.pattern(&word)?;
            // An empty value can still match, so the replacement may yet show.
            return self.replace(&word, "", &replacement, everywhere);
        };
        self.replace(&word, value, &replacement, everywhere)
    }

    fn replace(
        &self,
        word: &str,
        value: &str,
        replacement: &str,
        everywhere: bool,
    ) -> Result<String, ExpandError> {
        let pattern = self.pattern(word)?;
        match pattern.replace(value, replacement, everywhere, self.limit) {
            Some(text) => Ok(text),
            None => self.check_length(usize::MAX).map(|()| String::new()),
        }
    }

    fn pattern(&self, word: &str) -> Result<Pattern, ExpandError> {
        Pattern::parse(word).or_else(|problem| {
            self.fail(format!("invalid pattern ({word}) in substitution: {problem}"))
        })
    }

    /// The text after a modifier, itself expanded.
    fn operand(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.mode.keep_escapes, keep_escapes);
        let result = self.until(Some(stop));
        self.mode.keep_escapes = outer;
        match result {
            Ok(output) => Ok(output.text),
            Err(_) if self.at >= self.text.len() => self.fail(match stop {
                '/' => "syntax error: missing '/' in ${}",
                _ => "syntax error: missing '}'",
            }),
            Err(error) => Err(error),
        }
    }
}
