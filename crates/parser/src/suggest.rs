//! "Did you mean": the known word nearest to one that is not known.

/// Words that differ by more edits are no typing slips. BuildKit and HCL draw the same line.
const MAX_EDITS: usize = 2;

/// Stands for every distance above [`MAX_EDITS`].
const FAR: usize = MAX_EDITS + 1;

/// How many candidates are looked at. No file that a person reads has more names, and one that a
/// stranger wrote may ask at every word.
const MAX_CANDIDATES: usize = 1000;

/// Finds the candidate nearest to `word` by edit distance, the first of equally near ones.
///
/// Nothing is suggested when `word` is itself a candidate, because then the word is not what is
/// wrong, and nothing when the nearest one is more than two edits away. Case counts. Of very many
/// candidates only the first thousand are looked at.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.into_iter().take(MAX_CANDIDATES) {
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
///
/// Only places at most that far from the diagonal can lie on the way to a small distance, so no
/// others are looked at: the time grows with the words, which may be a stranger's.
fn edit_distance(left: &str, right: &str) -> Option<usize> {
    // A character has at most four bytes, so this cheap test refuses no near pair.
    if left.len().abs_diff(right.len()) > 4 * MAX_EDITS {
        return None;
    }
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > MAX_EDITS {
        return None;
    }
    // A row is the diagonal and `MAX_EDITS` places to either side of it: the place `at` in it
    // stands for `index + at - MAX_EDITS` characters of the right word.
    let mut row = [FAR; 2 * MAX_EDITS + 1];
    for (at, edits) in row.iter_mut().enumerate() {
        *edits = at.checked_sub(MAX_EDITS).unwrap_or(FAR);
    }
    for (index, from) in (1..).zip(&left) {
        let mut next = [FAR; 2 * MAX_EDITS + 1];
        let mut before = FAR;
        for (at, edits) in next.iter_mut().enumerate() {
            let Some(length) = (index + at).checked_sub(MAX_EDITS) else { continue };
            let replaced = match length.checked_sub(1).map(|last| right.get(last)) {
                // All of the left word is taken away.
                None => index,
                Some(None) => break,
                Some(Some(to)) => row[at] + usize::from(from != to),
            };
            let above = row.get(at + 1).copied().unwrap_or(FAR);
            *edits = replaced.min(above + 1).min(before + 1).min(FAR);
            before = *edits;
        }
        row = next;
        if row.iter().min() == Some(&FAR) {
            return None;
        }
    }
    let last = (right.len() + MAX_EDITS).checked_sub(left.len())?;
    row.get(last).copied().filter(|edits| *edits <= MAX_EDITS)
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
