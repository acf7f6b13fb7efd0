//! One pattern of an ignore file: wildcards as in `filepath.Match`, and `**`.
//!
//! moby turns a pattern into a regular expression. What it comes to is done here by following all
//! ways through the pattern at once, one path character after the other, so that the time is the
//! product of both lengths whatever the pattern. Kept from the translation: `a**` and `**a` are
//! prefixes and suffixes of the whole path, and a class may take a slash.

use super::glob::{self, BadPattern, Token};

/// A pattern that can be matched against paths.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// No wildcards.
    Exact(String),
    /// `a**` and `a/**`: the text before the stars.
    Prefix(String),
    /// `**a` and `**/a`: the text after the stars.
    Suffix(String),
    /// Everything else.
    Steps(Vec<Step>),
}

/// One step on the way through a pattern.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Takes one character that fits.
    One(Token),
    /// Takes characters but slashes.
    Star,
    /// Takes nothing, or as much as one likes up to and with a slash: `**` with more behind it.
    Directories,
    /// Takes all that is left: `**` at the end.
    Rest,
}

impl Pattern {
    /// Reads a cleaned pattern.
    pub(super) fn parse(text: &str) -> Result<Self, BadPattern> {
        // The syntax check knows no `**`; to it that is a star twice.
        glob::tokens(text)?;
        let has_wildcard = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        if !has_wildcard(text) {
            return Ok(Self::Exact(text.to_owned()));
        }
        if let Some(suffix) = text.strip_prefix("**")
            && !has_wildcard(suffix)
        {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**")
            && !has_wildcard(prefix)
        {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        steps(text).map(Self::Steps)
    }

    /// Whether the whole path fits; parents are the caller's business.
    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Self::Steps(steps) => walk(steps, path),
        }
    }
}

fn steps(text: &str) -> Result<Vec<Step>, BadPattern> {
    let mut steps = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        steps.push(match character {
            '*' if characters.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                characters.next_if_eq(&'/');
                match characters.peek() {
                    Some(_) => Step::Directories,
                    None => Step::Rest,
                }
            }
            '*' => Step::Star,
            '?' => Step::One(Token::Any),
            '[' => Step::One(Token::Class(glob::class(&mut characters)?)),
            '\\' => Step::One(Token::Literal(characters.next().ok_or(BadPattern)?)),
            literal => Step::One(Token::Literal(literal)),
        });
    }
    Ok(steps)
}

/// The steps that may come next, as a set. `Directories` has two states: before it is entered it
/// may be skipped, and once inside it only a slash leads out. The inner one is in `inside`.
#[derive(Debug, Clone)]
struct States {
    before: Vec<bool>,
    inside: Vec<bool>,
}

impl States {
    fn none(steps: &[Step]) -> Self {
        Self { before: vec![false; steps.len() + 1], inside: vec![false; steps.len()] }
    }

    /// Reaches step `index`, and those behind it that may be skipped.
    fn reach(&mut self, steps: &[Step], mut index: usize) {
        while let Some(state) = self.before.get_mut(index) {
            if std::mem::replace(state, true) {
                return;
            }
            match steps.get(index) {
                Some(Step::Star | Step::Directories | Step::Rest) => index += 1,
                _ => return,
            }
        }
    }
}

fn walk(steps: &[Step], path: &str) -> bool {
    let mut states = States::none(steps);
    states.reach(steps, 0);
    for character in path.chars() {
        let mut next = States::none(steps);
        let each = steps.iter().zip(&states.before).zip(&states.inside).enumerate();
        for (index, ((step, before), inside)) in each {
            match step {
                Step::One(token) if *before && token.fits(character) => {
                    next.reach(steps, index + 1);
                }
                Step::Star if *before && character != '/' => next.reach(steps, index),
                Step::Rest if *before => next.reach(steps, index),
                Step::Directories if *before || *inside => {
                    if let Some(state) = next.inside.get_mut(index) {
                        *state = true;
                    }
                    if character == '/' {
                        next.reach(steps, index + 1);
                    }
                }
                _ => {}
            }
        }
        states = next;
    }
    states.before.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn double_stars_take_any_depth_and_none() {
        for (pattern, path, expected) in [
            ("**", "a/b", true),
            ("**/foo", "foo", true),
            ("**/foo", "a/b/foo", true),
            ("**/foo", "afoo", false),
            ("**foo", "afoo", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/d/e", true),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a**/*.txt", "ab/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("**/**/*.txt", "file.txt", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/*.txt", "a/b.txtx", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("a[b-d]e", "ace", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            ("a\\*", "a*", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_time_does_not_explode() {
        let pattern = "**/*a".repeat(40);
        assert!(!matches(&pattern, &"a/".repeat(2000)));
    }
}
