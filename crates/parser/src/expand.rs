//! Variable expansion: `$name`, `${name}` and the modifiers, with the shell's quotes.
//!
//! The rules are BuildKit's (`frontend/dockerfile/shell`), which differ from a shell's: nothing
//! is split but by [`expand_words`], unset names are empty, `$$` is a name. Three of its faults
//! are not copied: `$1` in the replacement of `${v//p/r}` is plain text, a word in front of
//! `${v:-w}` is not lost when words are split, and nesting and size have bounds
//! ([`MAX_NESTING`], [`MAX_EXPANDED`]) because the text may be a stranger's.

mod lexer;
mod pattern;
mod substitution;

pub(crate) use lexer::{Lexer, Mode};

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

/// How deep `${a:-${b:-…}}` may nest: far beyond use, and well within a thread's stack.
pub const MAX_NESTING: usize = 128;

/// How long a result may become, in bytes, unless the text itself is longer. `ENV a=$a$a` doubles
/// at each line; the kernel takes no variable above 128 KiB anyway.
pub const MAX_EXPANDED: usize = 16 << 20;

/// Expands one word: the result is one word whatever it holds.
///
/// `escape` is the Dockerfile's escape character. Fails on an open quote or brace, an unknown
/// modifier, a bad pattern and `${name:?message}` of an unset name.
pub fn expand_word(
    text: &str,
    escape: char,
    environment: &dyn Environment,
) -> Result<Expanded, ExpandError> {
    run(text, Mode::new(escape), environment)
}

/// Expands a text and splits the result into words at unquoted blanks (`EXPOSE`).
///
/// Returns the words and the names that were not set; fails as [`expand_word`] does.
pub fn expand_words(
    text: &str,
    escape: char,
    environment: &dyn Environment,
) -> Result<(Vec<String>, Vec<String>), ExpandError> {
    let mut lexer = Lexer::new(text, Mode::new(escape), environment);
    let output = lexer.run()?;
    let words = output.words.into_iter().map(|word| word.text).collect();
    Ok((words, lexer.into_unset()))
}

/// Expands a heredoc body: quotes are kept, `$` and backslash are processed.
///
/// The escape character is always a backslash here, whatever the Dockerfile's directive says.
/// Fails as [`expand_word`] does, but not on quotes.
pub fn expand_heredoc(text: &str, environment: &dyn Environment) -> Result<Expanded, ExpandError> {
    run(text, Mode { plain_quotes: true, ..Mode::new('\\') }, environment)
}

fn run(text: &str, mode: Mode, environment: &dyn Environment) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(text, mode, environment);
    let output = lexer.run()?;
    Ok(Expanded { text: output.text, unset: lexer.into_unset() })
}

/// An environment in which nothing is set.
pub(crate) struct NoVariables;

impl Environment for NoVariables {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Map(&'static [(&'static str, &'static str)]);

    impl Environment for Map {
        fn get(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        }
    }

    const VALUES: Map =
        Map(&[("v", "a.b.tar.gz"), ("empty", ""), ("ports", "80 443/tcp"), ("lines", "one\ntwo")]);

    fn word(text: &str) -> String {
        expand_word(text, '\\', &VALUES).map_or_else(|error| error.message, |found| found.text)
    }

    #[test]
    fn errors_use_buildkits_words() {
        let rows = [
            ("${v", "syntax error: missing '}'"),
            ("${", "syntax error: missing '}'"),
            ("${v:-x", "syntax error: missing '}'"),
            ("${v/x", "syntax error: missing '/' in ${}"),
            ("${v/x/y", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${:x}", "syntax error: bad substitution"),
            ("${{v}", "syntax error: bad substitution"),
            ("${v:=x}", "unsupported modifier (:=) in substitution"),
            ("${v=x}", "unsupported modifier (=) in substitution"),
            ("${v:#x}", "unsupported modifier (:#) in substitution"),
            ("${none?}", "none: is not allowed to be unset"),
            ("${empty:?}", "empty: is not allowed to be empty"),
            ("${none:?must be given}", "none: must be given"),
            ("${v#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
            ("\"x", "unexpected end of statement while looking for matching double-quote"),
            ("'x", "unexpected end of statement while looking for matching single-quote"),
        ];
        for (text, message) in rows {
            assert_eq!(word(text), message, "{text}");
        }
    }

    #[test]
    fn patterns_cut_and_replace() {
        let rows = [
            ("${v#*.}", "b.tar.gz"),
            ("${v##*.}", "gz"),
            ("${v%.*}", "a.b.tar"),
            ("${v%%.*}", "a"),
            ("${v/./-}", "a-b.tar.gz"),
            ("${v//./-}", "a-b-tar-gz"),
            ("${v/t*r/x}", "a.b.x.gz"),
            ("${v//[a]/x}", "a.b.tar.gz"),
            // Go's regular expressions would put a group in here.
            ("${v//tar/$1\\$1}", "a.b.\\$1.gz"),
            ("${v#?}", ".b.tar.gz"),
            ("${lines%*}", "one\ntwo"),
            ("${lines%%*}", "one\n"),
            ("${empty/*/x}", "x"),
        ];
        for (text, expected) in rows {
            assert_eq!(word(text), expected, "{text}");
        }
    }

    #[test]
    fn unset_names_are_told_once() {
        let found = expand_word("$a ${b:-$c} $a ${v} ${d+$e}", '\\', &VALUES).unwrap();
        assert_eq!(found.unset, ["a", "c", "b", "e", "d"]);
    }

    #[test]
    fn only_words_are_split() {
        let split = |text| expand_words(text, '\\', &VALUES).unwrap().0;
        assert_eq!(split("$ports 1"), ["80", "443/tcp", "1"]);
        assert_eq!(split("x\"$ports\" 'a b'"), ["x80 443/tcp", "a b"]);
        assert_eq!(split("8${none:-0}/udp"), ["80/udp"]);
        assert_eq!(split(" "), [""; 0]);
        assert_eq!(word("$ports 1"), "80 443/tcp 1");
    }

    #[test]
    fn heredocs_keep_quotes_and_always_use_a_backslash() {
        let text = "\"$empty\" '${none-x}' \\$v `$empty\n";
        let found = expand_heredoc(text, &VALUES).unwrap();
        assert_eq!(found.text, "\"\" 'x' $v `\n");
    }

    #[test]
    fn the_escape_character_can_be_a_backtick() {
        let found = expand_word("c:\\$empty`$v \"`$v\"", '`', &VALUES).unwrap();
        assert_eq!(found.text, "c:\\$v $v");
    }
}
