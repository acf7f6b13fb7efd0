//! `ENV` and `LABEL`.

use super::flags::Flags;
use super::shape::Arguments;
use super::words::Word;
use super::{Fault, Node, at_least_one, fault};
use crate::ast::{InstructionKind, KeyValue};
use crate::lines::Line;

pub(super) fn parse_env(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::Env { pairs: pairs(node, line, "ENV")? })
}

pub(super) fn parse_label(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::Label { pairs: pairs(node, line, "LABEL")? })
}

fn pairs(node: &Node<'_>, line: &Line, name: &str) -> Result<Vec<KeyValue>, Fault> {
    Flags::none(line, &node.flags)?;
    let pairs = match &node.arguments {
        Arguments::Pairs(pairs) if !pairs.is_empty() => pairs,
        _ => return Err(at_least_one(name)),
    };
    let checked = pairs.iter().map(|pair| {
        if pair.key.text.is_empty() {
            let place = Word { at: pair.key.at, ..pair.value.clone() };
            return Err(fault("arguments", format!("{name} names can not be blank")).at(&place));
        }
        let (key, value) = (pair.key.spanned(line), pair.value.spanned(line));
        Ok(KeyValue { key, value, legacy: pair.legacy })
    });
    checked.collect()
}
