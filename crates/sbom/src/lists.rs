//! What text lists have in common.

/// Text of bytes; what is no UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The stanzas of a file in the form of Debian's control files: `Name: value` lines, divided by
/// empty ones. What continues on indented lines is left out.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = impl Iterator<Item = (&str, &str)>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").unwrap_or(rest.len());
        let (stanza, after) = rest.split_at(end);
        rest = after;
        Some(fields(stanza))
    })
}

/// The `Name: value` lines of a text.
pub(crate) fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with([' ', '\t']));
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_divided_by_empty_lines() {
        let text = "\nA: 1\nB:2\n more\n\n\nA: 3\n";
        let read: Vec<Vec<_>> = stanzas(text).map(Iterator::collect).collect();
        assert_eq!(read, [vec![("A", "1"), ("B", "2")], vec![("A", "3")]]);
    }
}
