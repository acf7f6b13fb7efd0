//! Trees back to text: [`std::fmt::Display`] writes a Dockerfile that parses to the same tree
//! (but for the spans), and [`dump`] writes what BuildKit's own dumper does.
//!
//! Instructions are written as their logical lines, so continuation lines come out joined and
//! the comments between them are gone.

use std::fmt;

use rbuild_types::Diagnostic;

use crate::ast::{Dockerfile, Heredoc, Instruction, InstructionKind};
use crate::heredoc;
use crate::instruction::{Arguments, Node, go_quoted, shape};
use crate::lines::{Line, Reader, strip_continuation};

impl fmt::Display for Dockerfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = self.directives.escape;
        if let Some(syntax) = &self.directives.syntax {
            writeln!(f, "# syntax={}", syntax.value)?;
        }
        if escape != '\\' {
            writeln!(f, "# escape={escape}")?;
        }
        if let Some(check) = &self.directives.check {
            writeln!(f, "# check={}", check.value)?;
        }
        // A comment right below, or at the very top, could look like a directive.
        writeln!(f)?;
        for instruction in &self.global_args {
            write_instruction(f, instruction, escape)?;
        }
        for stage in &self.stages {
            write_comments(f, &stage.comments)?;
            write_line(f, &stage.text, escape)?;
            for instruction in &stage.instructions {
                write_instruction(f, instruction, escape)?;
            }
        }
        Ok(())
    }
}

fn write_comments(f: &mut fmt::Formatter<'_>, comments: &[String]) -> fmt::Result {
    comments.iter().try_for_each(|comment| writeln!(f, "# {comment}"))
}

fn write_line(f: &mut fmt::Formatter<'_>, text: &str, escape: char) -> fmt::Result {
    // A blank that is no space or tab keeps a last escape character from joining lines, and is
    // cut off with other blanks when the line is read.
    let guard = if strip_continuation(text, escape).1 { "\x0c" } else { "" };
    writeln!(f, "{text}{guard}")
}

fn write_instruction(
    f: &mut fmt::Formatter<'_>,
    instruction: &Instruction,
    escape: char,
) -> fmt::Result {
    write_comments(f, &instruction.comments)?;
    let heredocs = match &instruction.kind {
        InstructionKind::Onbuild { trigger } => {
            return write_onbuild(f, &instruction.text, &trigger.value, escape);
        }
        InstructionKind::Run(run) => &run.heredocs,
        InstructionKind::Copy(copy) | InstructionKind::Add(copy) => &copy.heredocs,
        _ => return write_line(f, &instruction.text, escape),
    };
    write_line(f, &instruction.text, escape)?;
    write_heredocs(f, &instruction.text, heredocs, escape)
}

/// Writes a body for each heredoc word of the line, also for one that names no file.
fn write_heredocs(
    f: &mut fmt::Formatter<'_>,
    text: &str,
    heredocs: &[Heredoc],
    escape: char,
) -> fmt::Result {
    let line = Line::plain(text);
    if !shape(&line, escape).is_ok_and(|node| node.takes_heredocs()) {
        return Ok(());
    }
    for (index, word) in heredoc::words_of(&line).unwrap_or_default().iter().enumerate() {
        let at_its_place = heredocs.get(index).filter(|heredoc| heredoc.name == word.name);
        let anywhere = || heredocs.iter().find(|heredoc| heredoc.name == word.name);
        if let Some(heredoc) = at_its_place.or_else(anywhere) {
            f.write_str(&heredoc.body.value)?;
        }
        writeln!(f, "{}", word.name)?;
    }
    Ok(())
}

/// The trigger holds its heredocs and the blanks at the end of its line.
fn write_onbuild(
    f: &mut fmt::Formatter<'_>,
    text: &str,
    trigger: &str,
    escape: char,
) -> fmt::Result {
    let (first, bodies) = match trigger.split_once('\n') {
        Some((first, bodies)) => (first, Some(bodies)),
        None => (trigger, None),
    };
    let keyword = text.strip_suffix(first.trim_end()).unwrap_or("ONBUILD ");
    write!(f, "{keyword}{first}")?;
    if strip_continuation(first, escape).1 {
        // Only the end of the file can have ended such a line, so this is its end too.
        write!(f, "{escape}")?;
    }
    writeln!(f)?;
    bodies.map_or(Ok(()), |bodies| writeln!(f, "{bodies}"))
}

/// Writes the syntax as BuildKit's dumper does: one `(keyword ["--flag"] "word" …)` per line.
///
/// Only what is wrong with lines is an error here; keywords, flags and the number of arguments
/// are not looked at. For tests and debugging.
pub fn dump(text: &str) -> Result<String, Vec<Diagnostic>> {
    let mut reader = Reader::new(text);
    let mut dumped = Vec::new();
    while let Some(line) = reader.logical() {
        let line = line.map_err(|problem| vec![problem])?;
        let escape = reader.escape;
        let node = shape(&line, escape).map_err(|problem| vec![problem.diagnostic(&line)])?;
        if node.takes_heredocs() {
            let mut heredocs = heredoc::words_of(&line).unwrap_or_default();
            heredoc::read_bodies(&mut heredocs, &mut reader);
        }
        dumped.push(format!("({})", dump_node(&node)));
    }
    if dumped.is_empty() {
        return Err(vec![crate::document::nothing(text)]);
    }
    Ok(dumped.join("\n"))
}

fn dump_node(node: &Node<'_>) -> String {
    let mut parts = vec![node.keyword.text.to_lowercase()];
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| go_quoted(&flag.text)).collect();
        parts.push(format!("[{}]", flags.join(" ")));
    }
    match &node.arguments {
        Arguments::Words(words) => parts.extend(words.iter().map(|word| go_quoted(&word.text))),
        Arguments::Pairs(pairs) => parts.extend(pairs.iter().flat_map(|pair| {
            let separator = if pair.legacy { "" } else { "=" };
            [&pair.key.text, &pair.value.text, separator].map(go_quoted)
        })),
        Arguments::Trigger(trigger) => {
            parts.extend(trigger.iter().map(|trigger| format!("({})", dump_node(trigger))));
        }
    }
    parts.join(" ")
}
