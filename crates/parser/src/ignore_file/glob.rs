//! Go's `filepath.Match`, and the character classes that ignore patterns share with it.

/// A wildcard pattern that cannot be read, such as an open `[`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern;

/// One piece of a wildcard pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Literal(char),
    /// `?`: one character but a slash.
    Any,
    /// `*`: any number of characters but slashes.
    Star,
    Class(Class),
}

/// `[a-z]` or `[^a-z]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// A slash is a character like others here, as in Go.
    pub(super) fn holds(&self, character: char) -> bool {
        let inside = self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
        inside != self.negated
    }
}

impl Token {
    /// Whether a single character fits; a star is not a single character.
    pub(super) fn fits(&self, character: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == character,
            Self::Any => character != '/',
            Self::Star => false,
            Self::Class(class) => class.holds(character),
        }
    }
}

/// Go's `filepath.Match`, as COPY's wildcards use it: `*`, `?`, `[a-z]`, `\`; never across `/`.
///
/// Fails when the pattern cannot be read, whatever the name is.
pub fn glob_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = tokens(pattern)?;
    let name: Vec<char> = name.chars().collect();
    let (mut token, mut at) = (0, 0);
    // Where to go on when what follows the last star does not fit: the token after the star, and
    // the place up to which the star has taken characters.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (tokens.get(token), name.get(at)) {
            (None, None) => return Ok(true),
            (Some(Token::Star), _) => {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            (Some(next), Some(character)) if next.fits(*character) => {
                token += 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, taken)) = retry else { return Ok(false) };
        if name.get(taken).is_none_or(|character| *character == '/') {
            return Ok(false);
        }
        retry = Some((after, taken + 1));
        (token, at) = (after, taken + 1);
    }
}

/// Reads a pattern.
pub(super) fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => Token::Class(class(&mut characters)?),
            '\\' => Token::Literal(characters.next().ok_or(BadPattern)?),
            literal => Token::Literal(literal),
        });
    }
    Ok(tokens)
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// What follows `[`, the closing bracket included. At least one range must stand in it.
pub(super) fn class(characters: &mut Characters<'_>) -> Result<Class, BadPattern> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || characters.next_if_eq(&']').is_none() {
        let low = bound(characters)?;
        let high = match characters.next_if_eq(&'-') {
            Some(_) => bound(characters)?,
            None => low,
        };
        ranges.push((low, high));
    }
    Ok(Class { negated, ranges })
}

/// One end of a range; `-` and `]` need a backslash.
fn bound(characters: &mut Characters<'_>) -> Result<char, BadPattern> {
    let bound = match characters.next() {
        None | Some('-' | ']') => return Err(BadPattern),
        Some('\\') => characters.next().ok_or(BadPattern)?,
        Some(character) => character,
    };
    // Something must follow, if only the bracket.
    characters.peek().map(|_| bound).ok_or(BadPattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_do_not_cross_slashes() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a?b", "a☺b", true),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("[^a]", "/", true),
        ] {
            assert_eq!(glob_match(pattern, name), Ok(expected), "{pattern} {name}");
        }
    }

    #[test]
    fn bad_patterns_are_told_whatever_the_name() {
        for pattern in
            ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "x*["]
        {
            assert_eq!(glob_match(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }
}
