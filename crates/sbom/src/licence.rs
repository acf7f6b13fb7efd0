//! Licences as SPDX writes them.

use std::collections::BTreeMap;

use rbuild_types::Digest;

/// What is said where nobody knows.
pub(crate) const NO_ASSERTION: &str = "NOASSERTION";

/// The expression that says all of `licences`. What is no expression of known licences gets a name
/// of its own, under which its text is put into `others`.
pub(crate) fn declared(licences: &[String], others: &mut BTreeMap<String, String>) -> String {
    let known = licences.iter().map(|licence| licence.trim());
    let known = known.filter(|licence| !matches!(*licence, "" | "NONE" | NO_ASSERTION));
    let parts: Vec<_> = known.map(|licence| part(licence, others)).collect();
    match parts.as_slice() {
        [] => NO_ASSERTION.to_owned(),
        [one] => one.clone(),
        several => {
            let choice = |part: &String| match part.contains(" OR ") {
                true => format!("({part})"),
                false => part.clone(),
            };
            several.iter().map(choice).collect::<Vec<_>>().join(" AND ")
        }
    }
}

fn part(licence: &str, others: &mut BTreeMap<String, String>) -> String {
    // A reference would be to another document, which is not here.
    let is_reference = licence.contains("LicenseRef-") || licence.contains("DocumentRef-");
    if !is_reference {
        let candidates = [licence.to_owned(), in_right_case(licence)];
        let known = candidates.into_iter().find(|text| spdx::Expression::parse(text).is_ok());
        if let Some(expression) = known {
            return expression;
        }
    }
    let name: String = id(licence).chars().take(40).collect();
    let id = format!("LicenseRef-{name}-{}", &Digest::of(licence.as_bytes()).hex()[..8]);
    others.insert(id.clone(), licence.to_owned());
    id
}

/// Text in which identifiers of licences are written as in the list of SPDX, and operators large.
fn in_right_case(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let name = word.trim_matches(['(', ')']);
        let known = spdx::identifiers::LICENSES.iter().map(|licence| licence.name);
        let known = known.chain(["AND", "OR", "WITH"]);
        match known.into_iter().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(known) => word.replace(name, known),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Text with the letters that identifiers of SPDX may have.
pub(crate) fn id(text: &str) -> String {
    let letter = |letter: char| match letter {
        letter if letter.is_ascii_alphanumeric() => letter,
        '.' | '-' => letter,
        _ => '-',
    };
    text.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_expression_gets_a_name() {
        let mut others = BTreeMap::new();
        let mut of = |licences: &[&str]| {
            let licences: Vec<_> = licences.iter().map(ToString::to_string).collect();
            declared(&licences, &mut others)
        };
        assert_eq!(of(&[]), "NOASSERTION");
        assert_eq!(of(&["MIT"]), "MIT");
        assert_eq!(of(&["MIT OR Apache-2.0", "Zlib"]), "(MIT OR Apache-2.0) AND Zlib");
        assert_eq!(of(&["(bsd-3-clause or MIT)"]), "(BSD-3-Clause OR MIT)");
        let named = of(&["GPLv2+ and Artistic"]);
        assert!(named.starts_with("LicenseRef-GPLv2--and-Artistic-"), "{named}");
        assert!(of(&["LicenseRef-mine"]).starts_with("LicenseRef-LicenseRef-mine-"));
        assert!(of(&["AND"]).starts_with("LicenseRef-"));
        assert_eq!(others[&named], "GPLv2+ and Artistic");
    }
}
