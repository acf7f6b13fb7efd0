//! `--filter KEY=VALUE` of `images`, `du` and `prune`.

use std::collections::BTreeMap;

use rbuild::{ImageRecord, Reference};

use crate::failure::Failure;
use crate::human;

/// Key and value of one filter.
pub fn pair(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()))
        .ok_or_else(|| Failure::usage(format!("--filter {text}: not of the form KEY=VALUE")))
}

/// A key that is not there, beside those that are.
pub fn unknown(key: &str, known: &str) -> Failure {
    Failure::usage_hint(
        format!("--filter {key}=… is not supported yet"),
        format!("there are {known}"),
    )
}

/// Whether a label is there that `NAME` or `NAME=VALUE` stands for.
pub fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|it| it == value),
        None => labels.contains_key(wanted),
    }
}

/// Whether labels are taken by `label=NAME[=VALUE]` or `label!=NAME[=VALUE]`.
pub type TakesLabels = Box<dyn Fn(&BTreeMap<String, String>) -> bool>;

/// Reads a filter by labels, the only ones there are where this is asked.
pub fn label(text: &str) -> Result<TakesLabels, Failure> {
    if let Some(label) = text.strip_prefix("label!=") {
        let label = label.to_owned();
        return Ok(Box::new(move |labels| !has_label(labels, &label)));
    }
    match pair(text)? {
        ("label", label) => {
            let label = label.to_owned();
            Ok(Box::new(move |labels| has_label(labels, &label)))
        }
        (key, _) => Err(unknown(key, "label and label!")),
    }
}

/// Milliseconds since 1970 of a date, a time by RFC 3339, seconds since 1970, or how long ago it
/// was: `24h`, `1h30m`, `7d`.
pub fn time(text: &str, now: i64) -> Result<i64, Failure> {
    let of_day = || human::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let of_epoch = || text.parse::<i64>().ok()?.checked_mul(1000);
    milliseconds(text)
        .map(|ago| now.saturating_sub(ago))
        .or_else(of_epoch)
        .or_else(|| human::parse_rfc3339(text))
        .or_else(of_day)
        .ok_or_else(|| {
            Failure::usage_hint(
                format!("--filter {text}: not a time"),
                "for example 24h, 2026-01-31 or 2026-01-31T12:00:00Z",
            )
        })
}

/// Milliseconds of a duration as Go writes them, and days.
pub fn milliseconds(text: &str) -> Option<i64> {
    i64::try_from(rbuild::duration(text)?.as_millis()).ok()
}

/// What `images` shows.
#[derive(Debug, Default, PartialEq)]
pub struct ImageFilters {
    /// Patterns of names, of which one is enough.
    references: Vec<String>,
    /// Whether images without a name are wanted, or those with one.
    pub dangling: Option<bool>,
    /// An image that is newer.
    pub before: Option<String>,
    /// An image that is older.
    pub since: Option<String>,
    /// Older than this, milliseconds since 1970.
    pub until: Option<i64>,
    /// Labels that all must be there, with a value or any.
    pub labels: Vec<(String, Option<String>)>,
}

impl ImageFilters {
    /// Reads the values of `--filter`. `now` is in milliseconds since 1970.
    pub fn parse(texts: &[String], now: i64) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let (key, value) = pair(text)?;
            match key {
                "reference" => filters.references.push(value.to_owned()),
                "dangling" => {
                    let value = super::switch::parse(value)
                        .map_err(|why| Failure::usage(format!("--filter {text}: {why}")))?;
                    filters.dangling = Some(value);
                }
                "before" => filters.before = Some(value.to_owned()),
                "since" => filters.since = Some(value.to_owned()),
                "until" => filters.until = Some(time(value, now)?),
                "label" => {
                    let label = match value.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (value.to_owned(), None),
                    };
                    filters.labels.push(label);
                }
                _ => {
                    let known = "reference, dangling, label, before, since and until";
                    return Err(unknown(key, known));
                }
            }
        }
        Ok(filters)
    }

    /// What can be told of an image without looking at others or into it.
    pub fn take(&self, record: &ImageRecord) -> bool {
        let name = record.reference.as_ref();
        self.dangling.is_none_or(|dangling| dangling == name.is_none())
            && self.until.is_none_or(|until| record.created < until)
            && (self.references.is_empty()
                || name.is_some_and(|name| {
                    self.references.iter().any(|pattern| is_like(name, pattern))
                }))
    }
}

/// Whether a pattern stands for a name: with its tag or without.
pub fn is_like(name: &Reference, pattern: &str) -> bool {
    let matches = |text: &str| {
        let (pattern, text): (Vec<char>, Vec<char>) =
            (pattern.chars().collect(), text.chars().collect());
        glob(&pattern, &text)
    };
    matches(&name.familiar()) || matches(&name.familiar_name())
}

/// Go's `path.Match`: `*` and `?` stop at slashes, `[a-z]` and `[^a-z]` are sets, a backslash
/// takes what follows as it is. A pattern that is none matches nothing.
///
/// Only the last star is ever tried again, because one that took fewer letters leaves those after
/// it at least as many: the time is that of the product of the lengths.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at == pattern.len() && here == text.len() {
            return true;
        }
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, here));
            at += 1;
            continue;
        }
        let one = text.get(here).and_then(|letter| one(&pattern[at..], *letter));
        if let Some(used) = one {
            at += used;
            here += 1;
            continue;
        }
        match star {
            Some((behind, from)) if text.get(from).is_some_and(|letter| *letter != '/') => {
                star = Some((behind, from + 1));
                (at, here) = (behind, from + 1);
            }
            _ => return false,
        }
    }
}

/// How much of the pattern stands for this letter; nothing if none does.
fn one(pattern: &[char], letter: char) -> Option<usize> {
    match *pattern {
        ['?', ..] => (letter != '/').then_some(1),
        ['\\', meant, ..] => (meant == letter).then_some(2),
        ['[', ref set @ ..] => {
            let (negated, set) = match *set {
                ['^', ref set @ ..] => (true, set),
                _ => (false, set),
            };
            let end = set.iter().position(|c| *c == ']')?;
            let (mut found, mut rest) = (false, &set[..end]);
            while let [first, tail @ ..] = rest {
                (found, rest) = match tail {
                    ['-', last, tail @ ..] => (found || (*first..=*last).contains(&letter), tail),
                    _ => (found || *first == letter, tail),
                };
            }
            (found != negated).then_some(end + 2 + usize::from(negated))
        }
        [meant, ..] => (meant == letter).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_or_ago() {
        let now = 10_000_000_000;
        let at = |text: &str| time(text, now).unwrap();
        assert_eq!(at("24h"), now - 86_400_000);
        assert_eq!(at("1h30m"), now - 5_400_000);
        assert_eq!(at("1.5s"), now - 1500);
        assert_eq!(at("60"), 60_000);
        assert_eq!(at("1970-01-02"), 86_400_000);
        assert_eq!(at("1970-01-01T01:00:00+01:00"), 0);
        let too_long = "99999999999999999999d";
        for bad in ["", "h", "1x", "yesterday", "1970-13-01", "..h", "1000000000000d", too_long] {
            assert!(time(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_are_those_of_go() {
        let is = |pattern: &str, text: &str| {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            glob(&letters(pattern), &letters(text))
        };
        for (pattern, text) in
            [("", ""), ("*", ""), ("a*c", "abbc"), ("a*b*c", "aXbXbXc"), ("?b", "ab")]
        {
            assert!(is(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a/*", "a/b"), ("[a-c]x", "bx"), ("[^a]", "b"), (r"\*", "*")] {
            assert!(is(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", ""), ("", "a"), ("*", "a/b"), ("?", "/"), ("[a", "a"), ("[^a]", "a")]
        {
            assert!(!is(pattern, text), "{pattern} {text}");
        }
        assert!(!is(&"*a".repeat(200), &"a".repeat(150)));
    }

    proptest::proptest! {
        #[test]
        fn no_filter_panics(pattern in r"[ab/*?\[\]^\-\\é]{0,12}", text in "[ab/é]{0,12}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let _ = glob(&letters(&pattern), &letters(&text));
            let _ = time(&pattern, 0);
        }

        #[test]
        fn durations_never_overflow(text in "[0-9.]{0,30}[smhd]{0,2}") {
            let _ = time(&text, i64::MIN);
        }
    }

    #[test]
    fn names_are_like_patterns_with_or_without_tag() {
        let name: Reference = "team/app:1.2".parse().unwrap();
        for good in ["team/app", "team/app:1.2", "team/app:*", "*/app", "team/a??:1.*"] {
            assert!(is_like(&name, good), "{good}");
        }
        for bad in ["app", "*", "team/app:2", "team/*:2"] {
            assert!(!is_like(&name, bad), "{bad}");
        }
    }

    #[test]
    fn filters_of_images() {
        let parse = |text: &str| ImageFilters::parse(&[text.to_owned()], 0);
        assert_eq!(parse("dangling=1").unwrap().dangling, Some(true));
        assert_eq!(parse("label=a=b").unwrap().labels, [("a".into(), Some("b".into()))]);
        assert_eq!(parse("before=x").unwrap().before.as_deref(), Some("x"));
        for bad in ["dangling=maybe", "x", "is-official=true", "until=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
