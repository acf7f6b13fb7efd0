//! Makes text from strangers fit for a terminal and a log.

/// Longest piece of a registry's own words that an error repeats, in characters.
const MAX_QUOTED: usize = 500;

/// `text` with control characters escaped and its length bounded.
///
/// Bidirectional overrides are escaped too: they reorder what a terminal shows.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (count, letter) in text.trim().chars().enumerate() {
        if count == MAX_QUOTED {
            out.push('…');
            break;
        }
        match letter {
            '\n' | '\t' => out.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(letter.escape_unicode());
            }
            letter if letter.is_control() => out.extend(letter.escape_unicode()),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        let text = printable("a\u{1b}[31m\u{202e}b\r\n\u{9b}1m");
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.contains("\\u{1b}") && text.contains("\\u{202e}"), "{text}");
        assert!(printable(&"x".repeat(10_000)).chars().count() <= MAX_QUOTED + 1);
    }
}
