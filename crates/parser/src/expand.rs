//! Variable expansion: `$name`, `${name}` and the modifiers, with the shell's quotes.
//!
//! Filled in by the parser's author; these are the signatures that the plan is written against.

/// Looks variables up.
pub trait Environment {
    /// The value of `name`, or `None` when it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// What a text expanded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The text with variables replaced and quotes removed.
    pub text: String,
    /// Names that were looked up and not set, in order, each once.
    pub unset: Vec<String>,
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandError {
    /// BuildKit's words, such as `syntax error: missing '}'`.
    pub message: String,
    /// Byte offset in the text.
    pub at: usize,
}

/// Expands one word: the result is one word whatever it holds.
pub fn expand_word(
    text: &str,
    escape: char,
    environment: &dyn Environment,
) -> Result<Expanded, ExpandError> {
    let _ = (escape, environment);
    Ok(Expanded { text: text.to_owned(), unset: Vec::new() })
}

/// Expands a text and splits the result into words at unquoted blanks (`EXPOSE`).
pub fn expand_words(
    text: &str,
    escape: char,
    environment: &dyn Environment,
) -> Result<(Vec<String>, Vec<String>), ExpandError> {
    let _ = (escape, environment);
    Ok((vec![text.to_owned()], Vec::new()))
}

/// Expands a heredoc body: quotes are kept, `$` and backslash are processed.
pub fn expand_heredoc(
    text: &str,
    environment: &dyn Environment,
) -> Result<Expanded, ExpandError> {
    let _ = environment;
    Ok(Expanded { text: text.to_owned(), unset: Vec::new() })
}
