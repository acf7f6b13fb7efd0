//! `MultipleInstructionsDisallowed`.

use rbuild_types::{Diagnostic, Span};

use super::name_of;
use super::rules::MULTIPLE_INSTRUCTIONS_DISALLOWED;
use crate::ast::{Instruction, InstructionKind};

/// Each that is undone by a later one is pointed at, because it is the one without effect.
pub(super) fn check(instructions: &[Instruction]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut last: [Option<Span>; 3] = [None; 3];
    for instruction in instructions {
        let kind = match &instruction.kind {
            InstructionKind::Cmd { .. } => 0,
            InstructionKind::Entrypoint { .. } => 1,
            InstructionKind::Healthcheck(_) => 2,
            _ => continue,
        };
        let here = instruction.keyword.span;
        if let Some(undone) = last[kind].replace(here) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the \
                 last one will be used",
                name_of(instruction)
            );
            let warning = MULTIPLE_INSTRUCTIONS_DISALLOWED.warning(undone, message);
            found.push(warning.label(here, "takes its place"));
        }
    }
    found
}
