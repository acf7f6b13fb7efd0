//! The wildcard patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and literals.
//!
//! A pattern is a list of segments between stars. Stars are matched without backtracking: the
//! segments in the middle at their first place, the last one at its first or last place. So the
//! time is that of searching texts, whatever the pattern.

/// One character of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`.
    Any,
}

impl Token {
    /// A wildcard never takes a line end, as in Go's regular expressions.
    fn matches(self, character: char) -> bool {
        match self {
            Self::Literal(literal) => literal == character,
            Self::Any => character != '\n',
        }
    }
}

/// A pattern, split at its stars: `a*b` has two segments.
#[derive(Debug)]
pub(super) struct Pattern {
    segments: Vec<Vec<Token>>,
}

impl Pattern {
    /// Reads a pattern. Only `* ? \ } /` may be escaped.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut segments = vec![Vec::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' => {
                    segments.push(Vec::new());
                    continue;
                }
                '?' => Token::Any,
                '\\' => match characters.next() {
                    Some(literal @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(literal),
                    other => {
                        let other = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                        return Err(format!("invalid escape '\\{other}'"));
                    }
                },
                literal => Token::Literal(literal),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(token);
            }
        }
        Ok(Self { segments })
    }

    /// `value` without the shortest or longest prefix that matches.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let value: Vec<char> = value.chars().collect();
        let end = self.match_at(&value, 0, longest).unwrap_or(0);
        value.iter().skip(end).collect()
    }

    /// `value` without the shortest or longest suffix that matches.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let reversed = |segment: &Vec<Token>| segment.iter().rev().copied().collect();
        let pattern = Self { segments: self.segments.iter().rev().map(reversed).collect() };
        let value: Vec<char> = value.chars().rev().collect();
        let end = pattern.match_at(&value, 0, longest).unwrap_or(0);
        value.iter().skip(end).rev().collect()
    }

    /// `value` with the first match or all of them replaced, or nothing when that is longer than
    /// `limit` bytes.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        everywhere: bool,
        limit: usize,
    ) -> Option<String> {
        let value: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut copied = 0;
        let mut from = 0;
        while let Some((start, end)) = self.find(&value, from) {
            result.extend(value.get(copied..start).unwrap_or_default());
            // An empty match directly behind another match does not count.
            if end > copied || start == 0 {
                result.push_str(replacement);
            }
            if result.len() > limit {
                return None;
            }
            copied = end;
            from = end.max(from + usize::from(start == end));
            if !everywhere || from > value.len() {
                break;
            }
        }
        result.extend(value.get(copied..).unwrap_or_default());
        (result.len() <= limit).then_some(result)
    }

    /// The first match at or after `from`: its start and its furthest end.
    fn find(&self, value: &[char], mut from: usize) -> Option<(usize, usize)> {
        let first = self.segments.first()?;
        loop {
            let start = find_segment(value, first, from, value.len())?;
            if let Some(end) = self.match_at(value, start, true) {
                return Some((start, end));
            }
            // What did not match from the first place on a line matches from no later one on it.
            from = line_end(value, start) + 1;
        }
    }

    /// The end of the match that starts at `start`.
    fn match_at(&self, value: &[char], start: usize, longest: bool) -> Option<usize> {
        let (first, rest) = self.segments.split_first()?;
        let mut at = starts_with(value, first, start).then_some(start + first.len())?;
        let Some((last, middle)) = rest.split_last() else {
            return Some(at);
        };
        for segment in middle {
            at = find_segment(value, segment, at, line_end(value, at))? + segment.len();
        }
        let end = line_end(value, at);
        let place = match longest {
            true => find_last_segment(value, last, at, end),
            false => find_segment(value, last, at, end),
        };
        Some(place? + last.len())
    }
}

/// The first line end at or after `from`, or the end of the text. A star reaches no further.
fn line_end(value: &[char], from: usize) -> usize {
    let rest = value.get(from..).unwrap_or_default();
    rest.iter().position(|character| *character == '\n').map_or(value.len(), |found| from + found)
}

fn starts_with(value: &[char], segment: &[Token], at: usize) -> bool {
    let Some(part) = value.get(at..at.saturating_add(segment.len())) else { return false };
    segment.iter().zip(part).all(|(token, character)| token.matches(*character))
}

fn find_segment(value: &[char], segment: &[Token], from: usize, to: usize) -> Option<usize> {
    (from..=to).find(|at| starts_with(value, segment, *at))
}

fn find_last_segment(value: &[char], segment: &[Token], from: usize, to: usize) -> Option<usize> {
    (from..=to).rev().find(|at| starts_with(value, segment, *at))
}
