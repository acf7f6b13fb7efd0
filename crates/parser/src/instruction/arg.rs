//! `ARG`.

use super::words::Word;
use super::{Fault, Node, Notes, at_least_one, doc_of, fault, ignored_flags};
use crate::ast::{Arg, InstructionKind};
use crate::lines::Line;

pub(super) fn parse(
    node: &Node<'_>,
    line: &Line,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    if node.words().is_empty() {
        return Err(at_least_one("ARG"));
    }
    let args: Result<Vec<Arg>, Fault> = node.words().iter().map(|word| arg(word, line)).collect();
    ignored_flags(node, line, "ARG", notes);
    Ok(InstructionKind::Arg { args: args? })
}

fn arg(word: &Word, line: &Line) -> Result<Arg, Fault> {
    let (name, default) = match word.text.split_once('=') {
        Some(("", _)) => return Err(fault("arguments", "ARG names can not be blank").at(word)),
        Some((name, default)) => (name, Some(default)),
        None => (word.text.as_str(), None),
    };
    let name = Word { text: name.to_owned(), at: word.at, end: word.at + name.len() };
    let default = default.map(|default| {
        Word { text: default.to_owned(), at: name.end + 1, end: word.end }.spanned(line)
    });
    Ok(Arg { doc: doc_of(&line.comments, &name.text), name: name.spanned(line), default })
}
