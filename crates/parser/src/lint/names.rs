//! `DuplicateStageName` and `ReservedStageName`.

use std::collections::HashMap;

use rbuild_types::{Diagnostic, Span};

use super::rules::{DUPLICATE_STAGE_NAME, RESERVED_STAGE_NAME};
use crate::ast::Stage;

/// Names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

pub(super) fn check(stages: &[Stage]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut first: HashMap<&str, Span> = HashMap::new();
    for name in stages.iter().filter_map(|stage| stage.name.as_ref()) {
        let text = name.value.as_str();
        if RESERVED.contains(&text) {
            let message =
                format!("Stage name should not use the same name as reserved stage {text:?}");
            found.push(RESERVED_STAGE_NAME.warning(name.span, message));
        }
        match first.get(text) {
            Some(span) => {
                let message =
                    format!("Duplicate stage name {text:?}, stage names should be unique");
                let warning = DUPLICATE_STAGE_NAME.warning(name.span, message);
                found.push(warning.label(*span, "the first of that name"));
            }
            None => {
                first.insert(text, name.span);
            }
        }
    }
    found
}
