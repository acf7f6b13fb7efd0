//! `.dockerignore`: reading and matching, by moby's rules (`moby/patternmatcher`).
//!
//! Patterns are anchored at the root, unlike git's: `a` does not match `b/a`. A rule matches a
//! path when it matches the path or a directory above it, and the last rule that matches decides.
//!
//! The walk down to a path counts, as in BuildKit: at each directory only those rules are asked
//! that could change what holds there, and one that was not asked does not count below it either.
//! So `**/*.log` and `!src` leave out `src/x.log`: at `src` nothing was excluded that `!src` could
//! have brought back. [`Patterns::matches`] makes the whole walk, [`Patterns::matches_below`] one
//! step of it.

mod glob;
mod pattern;

pub use glob::{BadPattern, glob_match};

use rbuild_types::{Diagnostic, Span};

use pattern::Pattern;

/// The rules of one ignore file, or of the `--exclude` flags of one COPY.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Begins with `!`.
    exception: bool,
    text: String,
    pattern: Pattern,
    /// From 1.
    line: usize,
}

/// A rule as people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleText<'a> {
    /// The pattern as it was understood, `!` in front where it brings paths back.
    pub text: &'a str,
    /// Its line in the file, or its place in the list, from 1.
    pub line: usize,
}

/// What the rules say of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is left out.
    pub excluded: bool,
    /// The rule that decided, as an index into the rules in file order.
    pub rule: Option<usize>,
}

/// Which rules were found to match a directory or one above it. The default is the root's.
#[derive(Debug, Clone, Default)]
pub struct MatchedAbove {
    rules: Vec<bool>,
}

impl MatchedAbove {
    /// The rules that match, as indices in file order.
    pub fn matched(&self) -> impl Iterator<Item = usize> {
        self.rules.iter().enumerate().filter(|(_, matched)| **matched).map(|(index, _)| index)
    }
}

impl Patterns {
    /// Reads an ignore file; bad lines come back as diagnostics with their span.
    ///
    /// Lines that begin with `#` are comments, blanks around a pattern go, a leading slash too.
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut patterns = Self::default();
        let mut problems = Vec::new();
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut offset = text.len() - body.len();
        for (number, line) in body.split_inclusive('\n').enumerate() {
            let start = offset + (line.len() - line.trim_start().len());
            let span = Span::new(start, start + line.trim().len());
            offset += line.len();
            let Some(pattern) = normalized(line) else { continue };
            match Rule::new(&pattern, number + 1) {
                Ok(rule) => patterns.rules.extend(rule),
                Err(message) => problems.push(Diagnostic::error("ignore-pattern", span, message)),
            }
        }
        (patterns, problems)
    }

    /// Makes rules from a list, one pattern each. Fails on the first that cannot be read; the
    /// span of the diagnostic is empty, for the caller to replace.
    pub fn from_list<S: AsRef<str>>(patterns: &[S]) -> Result<Self, Diagnostic> {
        let mut rules = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let rule = Rule::new(pattern.as_ref(), number + 1).map_err(|message| {
                let message = format!("{message}: {:?}", pattern.as_ref());
                Diagnostic::error("ignore-pattern", Span::new(0, 0), message)
            })?;
            rules.extend(rule);
        }
        Ok(Self { rules })
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule begins with `!`, so that a walker must look into excluded directories.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Judges a path given without a leading slash, its directories included: `a/b` is excluded
    /// when `a` is and no later rule brings it back.
    pub fn matches(&self, path: &str) -> Verdict {
        let path = path.trim_end_matches('/');
        let mut above = MatchedAbove::default();
        for (end, _) in path.match_indices('/') {
            above = self.matches_below(path.get(..end).unwrap_or(path), &above).1;
        }
        self.matches_below(path, &above).0
    }

    /// Judges a path whose directory gave `above`, and says what to hand to what lies in it.
    pub fn matches_below(&self, path: &str, above: &MatchedAbove) -> (Verdict, MatchedAbove) {
        let path = path.trim_end_matches('/');
        let mut verdict = Verdict { excluded: false, rule: None };
        let mut matched = MatchedAbove { rules: vec![false; self.rules.len()] };
        if path == "." {
            return (verdict, matched);
        }
        for (index, (rule, matches)) in self.rules.iter().zip(&mut matched.rules).enumerate() {
            // A rule that says what holds already is not the one that decides.
            let could_decide = verdict.excluded == rule.exception;
            *matches =
                above.rules.get(index) == Some(&true) || could_decide && rule.pattern.matches(path);
            if *matches && could_decide {
                verdict = Verdict { excluded: !rule.exception, rule: Some(index) };
            }
        }
        (verdict, matched)
    }

    /// A rule, for messages.
    pub fn rule(&self, index: usize) -> Option<RuleText<'_>> {
        self.rules.get(index).map(|rule| RuleText { text: &rule.text, line: rule.line })
    }

    /// All rules in file order.
    pub fn rules(&self) -> impl Iterator<Item = RuleText<'_>> {
        self.rules.iter().map(|rule| RuleText { text: &rule.text, line: rule.line })
    }
}

/// The pattern of a line of an ignore file, `!` in front where it has one.
fn normalized(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (exception, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return Some(exception.to_owned());
    }
    let cleaned = clean(pattern);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty());
    Some(format!("{exception}{}", relative.unwrap_or(&cleaned)))
}

impl Rule {
    /// Nothing for a blank pattern.
    fn new(text: &str, line: usize) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(text);
        let (exception, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err("illegal exclusion pattern: \"!\"".to_owned()),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        // Go's words.
        let pattern = Pattern::parse(text).map_err(|BadPattern| "syntax error in pattern")?;
        Ok(Some(Self { exception, text: cleaned.clone(), pattern, line }))
    }
}

/// Go's `filepath.Clean`: the shortest name for the same path, by its text alone.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &[&str], path: &str) -> bool {
        Patterns::from_list(rules).unwrap().matches(path).excluded
    }

    #[test]
    fn the_last_rule_decides() {
        assert!(excluded(&["a"], "a/b/c"));
        assert!(!excluded(&["a"], "b/a"));
        assert!(!excluded(&["*", "!keep"], "keep"));
        assert!(!excluded(&["a", "!a/b"], "a/b/c"));
        assert!(excluded(&["a", "!a/b", "a/b/c"], "a/b/c"));
        assert!(excluded(&["*"], "a/b"));
        assert!(!excluded(&["."], "a"));
    }

    #[test]
    fn a_rule_that_could_decide_nothing_at_a_directory_is_not_handed_down() {
        let rules = ["**/*.log", "!src"];
        assert!(!excluded(&rules, "src"));
        assert!(excluded(&rules, "src/x.log"));
        assert!(!excluded(&["*", "!src"], "src/x.log"));
        let rules = ["**", "!**/*.txt", "x/y"];
        assert!(!excluded(&rules, "x/y/z/a.txt"));
        assert!(excluded(&rules, "x/y"));
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        let patterns = Patterns::from_list(&["a", "b", "!a/c", "**/c"]).unwrap();
        assert_eq!(patterns.matches("a/c").rule, Some(3));
        assert_eq!(patterns.matches("a/d").rule, Some(0));
        assert_eq!(patterns.matches("d").rule, None);
        assert_eq!(patterns.rule(2), Some(RuleText { text: "!a/c", line: 3 }));
        let patterns = Patterns::from_list(&["a", "!a/c"]).unwrap();
        assert_eq!(patterns.matches("a/c"), Verdict { excluded: false, rule: Some(1) });
        assert!(patterns.has_exceptions());
    }

    #[test]
    fn files_are_read_by_the_rules() {
        let text = "\u{feff}# no\n  # yes \n\n/rooted\n! a/../b \r\n./c/\nlast";
        let (patterns, problems) = Patterns::parse(text);
        assert!(problems.is_empty());
        assert_eq!(patterns.rules.len(), 5);
        let lines: Vec<_> = patterns.rules().map(|rule| (rule.line, rule.text)).collect();
        let expected = [(2, "# yes"), (4, "rooted"), (5, "!b"), (6, "c"), (7, "last")];
        assert_eq!(lines, expected);
        assert!(patterns.matches("# yes").excluded);
        assert!(patterns.matches("rooted/x").excluded);
        assert!(patterns.matches("c").excluded);
        assert!(patterns.has_exceptions());
        let text = "ok\n  !\n[\n";
        let (_, problems) = Patterns::parse(text);
        let found: Vec<_> = problems
            .iter()
            .map(|problem| (problem.message.as_str(), problem.span().unwrap().text(text)))
            .collect();
        let wanted = [("illegal exclusion pattern: \"!\"", "!"), ("syntax error in pattern", "[")];
        assert_eq!(found, wanted);
    }

    #[test]
    fn paths_are_cleaned_as_in_go() {
        let rows = [
            ("a/b/", "a/b"),
            ("./a", "a"),
            ("a//b/../c", "a/c"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("", "."),
            ("a/..", "."),
            ("!../x", "!../x"),
        ];
        for (path, cleaned) in rows {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
