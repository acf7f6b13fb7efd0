//! "Did you mean": the known word nearest to one that is not known.

/// Words that differ by more edits are no typing slips. BuildKit and HCL draw the same line.
const MAX_EDITS: usize = 2;

/// Finds the candidate nearest to `word` by edit distance, the first of equally near ones.
///
/// Nothing is suggested when `word` is itself a candidate, because then the word is not what is
/// wrong, and nothing when the nearest one is more than two edits away. Case counts.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        match edit_distance(word, candidate) {
            Some(0) => return None,
            Some(edits) if best.is_none_or(|(fewest, _)| edits < fewest) => {
                best = Some((edits, candidate));
            }
            _ => {}
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// As [`suggest`], but case does not count, and the answer is in the case of `word`.
pub(crate) fn suggest_in_case_of<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let upper: Vec<&str> = candidates.into_iter().collect();
    let lower: Vec<String> = upper.iter().map(|candidate| candidate.to_lowercase()).collect();
    let found = suggest(&word.to_lowercase(), lower.iter().map(String::as_str))?;
    let is_upper = word.to_uppercase() == word && word.to_lowercase() != word;
    Some(if is_upper { found.to_uppercase() } else { found.to_owned() })
}

/// Appends BuildKit's ` (did you mean X?)` to a message.
pub(crate) fn did_you_mean(message: String, suggestion: Option<&str>) -> String {
    match suggestion {
        Some(word) => format!("{message} (did you mean {word}?)"),
        None => message,
    }
}

/// The Levenshtein distance, or nothing when it is above [`MAX_EDITS`].
fn edit_distance(left: &str, right: &str) -> Option<usize> {
    // A character has at most four bytes, so this cheap test refuses no near pair; it keeps the
    // table below small whatever the length of the word.
    if left.len().abs_diff(right.len()) > 4 * MAX_EDITS {
        return None;
    }
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > MAX_EDITS {
        return None;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.iter().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (to, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(from != to);
            before = replaced.min(above + 1).min(before + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
        if row.iter().min().is_some_and(|fewest| *fewest > MAX_EDITS) {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits <= MAX_EDITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_wins() {
        assert_eq!(suggest("mont", ["chown", "mount", "month"]), Some("mount"));
        assert_eq!(suggest("tmp", ["bind", "tmpfs", "ssh"]), Some("tmpfs"));
        assert_eq!(suggest("biuld", ["build", "release"]), Some("build"));
    }

    #[test]
    fn a_known_word_and_a_far_word_have_none() {
        assert_eq!(suggest("build", ["build", "builds"]), None);
        assert_eq!(suggest("nothing", ["build", "release"]), None);
        assert_eq!(suggest(&"x".repeat(1 << 20), ["build"]), None);
    }

    #[test]
    fn the_case_of_the_word_is_kept() {
        assert_eq!(suggest_in_case_of("FORM", ["FROM", "RUN"]).as_deref(), Some("FROM"));
        assert_eq!(suggest_in_case_of("rnu", ["FROM", "RUN"]).as_deref(), Some("run"));
        assert_eq!(suggest_in_case_of("Rnu", ["FROM", "RUN"]).as_deref(), Some("run"));
    }
}
