//! `StageNameCasing`, `FromAsCasing`, `ConsistentInstructionCasing`.

use rbuild_types::{Diagnostic, Span};

use super::rules::{CONSISTENT_INSTRUCTION_CASING, FROM_AS_CASING, STAGE_NAME_CASING};
use crate::ast::Stage;

/// The case of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

fn case(word: &str) -> Case {
    match word {
        word if word == word.to_lowercase() => Case::Lower,
        word if word == word.to_uppercase() => Case::Upper,
        _ => Case::Mixed,
    }
}

/// Names of stages, and the `AS` before them.
pub(super) fn stages(stages: &[Stage]) -> Vec<Diagnostic> {
    stages.iter().flat_map(stage).collect()
}

fn stage(stage: &Stage) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut words = stage.text.split_whitespace().rev();
    // A stage that has a name ends in `AS NAME`, whatever else stands there.
    let (Some(known), Some(name), Some(word)) = (&stage.name, words.next(), words.next()) else {
        return found;
    };
    if case(name) != Case::Lower {
        let message = format!("Stage name '{name}' should be lowercase");
        found.push(STAGE_NAME_CASING.warning(known.span, message));
    }
    let from = &stage.keyword.value;
    // A mixed FROM is found by itself.
    if case(from) != Case::Mixed && case(word) != case(from) {
        let message = format!("'{word}' and '{from}' keywords' casing do not match");
        found.push(FROM_AS_CASING.warning(stage.keyword.span, message));
    }
    found
}

/// Keywords in another case than most.
pub(super) fn instructions(stages: &[Stage]) -> Vec<Diagnostic> {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let own = stage.instructions.iter().map(|instruction| &instruction.keyword);
            std::iter::once(&stage.keyword).chain(own)
        })
    };
    let count = |wanted| keywords().filter(|keyword| case(&keyword.value) == wanted).count();
    let (most, name) = match count(Case::Lower) > count(Case::Upper) {
        true => (Case::Lower, "lowercase"),
        false => (Case::Upper, "uppercase"),
    };
    let odd = keywords().filter(|keyword| case(&keyword.value) != most);
    odd.map(|keyword| warning(&keyword.value, name, keyword.span)).collect()
}

fn warning(keyword: &str, most: &str, span: Span) -> Diagnostic {
    let message =
        format!("Command '{keyword}' should match the case of the command majority ({most})");
    CONSISTENT_INSTRUCTION_CASING.warning(span, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn the_majority_decides_and_a_draw_is_for_capitals() {
        let messages = |text| -> Vec<String> {
            let (file, _) = parse(text);
            instructions(&file.stages).into_iter().map(|found| found.message).collect()
        };
        let odd = |word: &str, most: &str| {
            format!("Command '{word}' should match the case of the command majority ({most})")
        };
        assert_eq!(messages("FROM a\ncopy a b\n"), [odd("copy", "uppercase")]);
        assert_eq!(messages("from a\ncopy a b\nRUN a\n"), [odd("RUN", "lowercase")]);
        assert_eq!(messages("From a\n"), [odd("From", "uppercase")]);
    }

    #[test]
    fn as_is_written_like_from() {
        let codes = |text| -> Vec<&str> {
            let (file, _) = parse(text);
            stages(&file.stages).into_iter().map(|found| found.code).collect()
        };
        assert_eq!(codes("FROM a as b\n"), ["FromAsCasing"]);
        assert_eq!(codes("FROM \\\n a As \\\n B\n"), ["StageNameCasing", "FromAsCasing"]);
        assert_eq!(codes("from a as b\nFrom a as c\nFROM a\n"), [""; 0]);
    }
}
