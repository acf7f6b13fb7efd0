//! `LegacyKeyValueFormat`.

use rbuild_types::Diagnostic;

use super::name_of;
use super::rules::LEGACY_KEY_VALUE_FORMAT;
use crate::ast::{Instruction, InstructionKind};

pub(super) fn check(instruction: &Instruction) -> Option<Diagnostic> {
    let (InstructionKind::Env { pairs } | InstructionKind::Label { pairs }) = &instruction.kind
    else {
        return None;
    };
    let pair = pairs.iter().find(|pair| pair.legacy)?;
    let name = name_of(instruction);
    let message = format!(
        "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
    );
    let warning = LEGACY_KEY_VALUE_FORMAT.warning(instruction.keyword.span, message);
    Some(warning.label(pair.key.span, ""))
}
