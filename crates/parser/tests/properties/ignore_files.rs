//! Ignore rules and wildcards, beside what moby does: a pattern is turned into a regular
//! expression, and the rules are asked about every directory on the way down to a path.

use proptest::prelude::*;
use rbuild_parser::ignore_file::{MatchedAbove, Patterns, glob_match};
use rbuild_testkit::property::holds;
use regex::Regex;

/// How moby matches a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// One pattern in `patternmatcher`.
struct Matcher<'a> {
    pattern: &'a str,
    kind: Kind,
    expression: Regex,
}

impl<'a> Matcher<'a> {
    /// The translation of `patternmatcher`, one character after the other. Knows the patterns that
    /// [`pattern`] makes: classes hold letters only, and a backslash stands before no letter.
    fn new(pattern: &'a str) -> Self {
        let (mut expression, mut kind) = (String::from("^"), Kind::Exact);
        let mut rest = pattern.char_indices().peekable();
        while let Some((at, character)) = rest.next() {
            match character {
                '*' if rest.next_if(|(_, next)| *next == '*').is_some() => {
                    rest.next_if(|(_, next)| *next == '/');
                    if rest.peek().is_some() {
                        expression.push_str("(.*/)?");
                        kind = Kind::Expression;
                    } else if kind == Kind::Exact {
                        kind = Kind::Prefix;
                    } else {
                        expression.push_str(".*");
                        kind = Kind::Expression;
                    }
                    if at == 0 {
                        kind = Kind::Suffix;
                    }
                    continue;
                }
                '*' => expression.push_str("[^/]*"),
                '?' => expression.push_str("[^/]"),
                '\\' => {
                    let next = rest.next().map(|(_, next)| next.to_string());
                    expression.push_str(&regex::escape(&next.unwrap_or_default()));
                }
                '[' | ']' => expression.push(character),
                plain => {
                    match plain {
                        '^' | '-' => expression.push(plain),
                        _ => expression.push_str(&regex::escape(&plain.to_string())),
                    }
                    continue;
                }
            }
            kind = Kind::Expression;
        }
        Self { pattern, kind, expression: Regex::new(&format!("{expression}$")).unwrap() }
    }

    fn matches(&self, path: &str) -> bool {
        match self.kind {
            Kind::Exact => path == self.pattern,
            Kind::Prefix => path.starts_with(&self.pattern[..self.pattern.len() - 2]),
            Kind::Suffix => {
                let suffix = &self.pattern[2..];
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Kind::Expression => self.expression.is_match(path),
        }
    }
}

/// `MatchesUsingParentResults`, asked of every directory on the way down.
fn excluded(rules: &[String], path: &str) -> bool {
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| match rule.strip_prefix('!') {
            Some(pattern) => (true, Matcher::new(pattern)),
            None => (false, Matcher::new(rule)),
        })
        .collect();
    let mut above = vec![false; rules.len()];
    let mut is_excluded = false;
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let mut matched = vec![false; rules.len()];
        is_excluded = false;
        for (index, (is_exception, matcher)) in rules.iter().enumerate() {
            // A rule that could change nothing is not asked, and forgotten further down.
            if !above[index] && *is_exception != is_excluded {
                continue;
            }
            matched[index] = above[index] || matcher.matches(&path[..end]);
            if matched[index] {
                is_excluded = !is_exception;
            }
        }
        above = matched;
    }
    is_excluded
}

/// One name of a pattern.
fn name() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[ab.]{1,2}",
        2 => Just("*".to_owned()),
        2 => Just("?".to_owned()),
        1 => Just("**".to_owned()),
        1 => "\\[[ab]{1,2}\\]",
        1 => "\\[\\^[ab]{1,2}\\]",
        1 => Just("[a-b]".to_owned()),
        1 => "\\\\[*?.\\[\\]\\\\]",
    ];
    prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat())
}

/// A pattern that its own cleaning leaves as it is.
fn pattern() -> impl Strategy<Value = String> {
    let name = prop_oneof![5 => name(), 2 => Just("**".to_owned())];
    let names = prop::collection::vec(name, 1..5);
    let is_clean = |names: &Vec<String>| names.iter().all(|name| name != "." && name != "..");
    names.prop_filter("names that cleaning takes", is_clean).prop_map(|names| names.join("/"))
}

fn path() -> impl Strategy<Value = String> {
    let path = "[ab.*]{1,3}(/[ab.?]{1,3}){0,4}";
    let is_clean = |path: &String| path.split('/').all(|name| name != "." && name != "..");
    path.prop_filter("names that are no names", is_clean)
}

/// Asks coming down from the root.
fn walked(patterns: &Patterns, path: &str) -> Option<rbuild_parser::ignore_file::Verdict> {
    let mut above = MatchedAbove::default();
    let mut last = None;
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let (verdict, matched) = patterns.matches_below(&path[..end], &above);
        (last, above) = (Some(verdict), matched);
    }
    last
}

#[test]
fn rules_judge_as_mobys_do() {
    let rule = (prop::bool::weighted(0.3), pattern())
        .prop_map(|(is_exception, rule)| format!("{}{rule}", if is_exception { "!" } else { "" }));
    let rules = prop::collection::vec(rule, 0..6);
    holds("ignore rules, beside moby's", &(rules, path()), |(rules, path)| {
        let patterns = Patterns::from_list(&rules).unwrap();
        assert_eq!(patterns.matches(&path).excluded, excluded(&rules, &path));
        assert_eq!(walked(&patterns, &path), Some(patterns.matches(&path)));
    });
}

#[test]
fn ignore_files_match_both_ways_alike() {
    let rules = "([!a-c*?/\\[\\]\\\\^. -]{1,8}\n){0,6}";
    let paths = "[a-c.]{1,3}(/[a-c.]{1,3}){0,4}";
    holds("ignore files, both ways", &(rules, paths), |(rules, path)| {
        let (patterns, _) = Patterns::parse(&rules);
        assert_eq!(walked(&patterns, &path), Some(patterns.matches(&path)));
    });
}

#[test]
fn any_pattern_is_matched_without_panic() {
    holds("ignore files, any text", &any::<(String, String)>(), |(pattern, name)| {
        let _ = glob_match(&pattern, &name);
        let (patterns, problems) = Patterns::parse(&pattern);
        for problem in problems {
            assert!(problem.span().unwrap().end <= pattern.len());
        }
        patterns.matches(&name);
    });
}

#[test]
fn a_name_matches_itself_escaped() {
    holds("wildcards, escaped", &"[a-z*?\\[\\]\\\\/^-]{0,12}", |name| {
        let escaped: String = name.chars().flat_map(|next| ['\\', next]).collect();
        assert_eq!(glob_match(&escaped, &name), Ok(true));
    });
}

/// Without `**`, a wildcard is the same in the names of sources. Classes that take a slash are not:
/// Go settles what a star took before it looks at what follows the next one.
#[test]
fn wildcards_match_as_their_expressions() {
    let is_known = |pattern: &String| !pattern.contains("**") && !pattern.contains("[^");
    let pattern = pattern().prop_filter("stars twice, classes of all others", is_known);
    holds("wildcards, beside Go's", &(pattern, path()), |(pattern, path)| {
        assert_eq!(glob_match(&pattern, &path), Ok(Matcher::new(&pattern).matches(&path)));
    });
}
