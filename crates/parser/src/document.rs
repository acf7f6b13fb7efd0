//! The whole file: lines into instructions, instructions into stages, problems into order.

use rbuild_types::{Diagnostic, Span};

use crate::ast::{Dockerfile, Instruction, InstructionKind};
use crate::directives;
use crate::instruction::{Fault, Notes, Parsed, fault, finish, shape};
use crate::lines::{Line, Reader};
use crate::{heredoc, instruction};

/// Problems, kept apart by when BuildKit would find them. It stops at the first, so the one to
/// fix first is the first of the earliest kind, wherever in the file that is.
#[derive(Debug, Default)]
struct Problems {
    lines: Vec<Diagnostic>,
    instructions: Vec<Diagnostic>,
    late: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Problems {
    fn into_list(self) -> Vec<Diagnostic> {
        let Self { lines, instructions, late, warnings } = self;
        [lines, instructions, late, warnings].into_iter().flatten().collect()
    }
}

/// See [`crate::parse`].
pub(crate) fn parse(source: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut problems = Problems::default();
    let mut reader = Reader::new(source);
    let body = source.strip_prefix('\u{feff}').unwrap_or(source);
    let directives = directives::detect(body, source.len() - body.len());
    let mut file = Dockerfile { directives, global_args: Vec::new(), stages: Vec::new() };
    problems.warnings.extend(file.directives.syntax.as_ref().and_then(directives::foreign_syntax));

    let mut found_line = false;
    while let Some(line) = reader.logical() {
        found_line = true;
        match line {
            Ok(line) => add_line(&line, &mut reader, &mut file, &mut problems),
            Err(problem) => problems.lines.push(problem),
        }
    }
    file.directives.escape = reader.escape;

    if !found_line {
        problems.lines.push(nothing(source));
    } else if file.stages.is_empty()
        && problems.lines.is_empty()
        && problems.instructions.is_empty()
    {
        let end = last_line(source);
        let message = "dockerfile contains no stages to build";
        problems.instructions.push(Diagnostic::error("no-stage", end, message));
    }
    (file, problems.into_list())
}

fn add_line(line: &Line, reader: &mut Reader<'_>, file: &mut Dockerfile, problems: &mut Problems) {
    if let Some(blank) = line.blank {
        let message = format!("Empty continuation line found in: {}", line.text);
        problems.warnings.push(
            Diagnostic::warning("NoEmptyContinuation", blank, message)
                .help("empty continuation lines will become errors in a future release"),
        );
    }
    let mut notes = Notes::default();
    match read_instruction(line, reader, &mut notes) {
        Ok(Parsed::Stage(stage)) => file.stages.push(*stage),
        Ok(Parsed::Instruction(instruction)) => {
            if let Err(problem) = add_instruction(*instruction, file) {
                problems.instructions.push(problem.diagnostic(line));
            }
        }
        Err(Problem::Line(problem)) => problems.lines.push(problem.diagnostic(line)),
        Err(Problem::Instruction(problem)) => {
            problems.instructions.push(problem.diagnostic(line));
        }
    }
    problems.warnings.extend(notes.warnings);
    problems.late.extend(notes.late.into_iter().map(|problem| problem.diagnostic(line)));
}

/// A fault and when BuildKit would find it.
pub(crate) enum Problem {
    Line(Fault),
    Instruction(Fault),
}

/// Reads an instruction and the heredocs that follow its line.
fn read_instruction(
    line: &Line,
    reader: &mut Reader<'_>,
    notes: &mut Notes,
) -> Result<Parsed, Problem> {
    let node = shape(line, reader.escape).map_err(Problem::Line)?;
    let mut heredocs = Vec::new();
    let mut end = None;
    if node.takes_heredocs() {
        heredocs = heredoc::words_of(line)
            .map_err(|error| Problem::Line(fault("heredoc", error.message)))?;
        if !heredocs.is_empty() {
            end = heredoc::read_bodies(&mut heredocs, reader);
            if end.is_none() {
                return Err(Problem::Line(fault("heredoc", "unterminated heredoc")));
            }
        }
    }
    finish(&node, line, heredocs, end, reader.escape, notes).map_err(Problem::Instruction)
}

fn add_instruction(instruction: Instruction, file: &mut Dockerfile) -> Result<(), Fault> {
    match file.stages.last_mut() {
        Some(stage) => stage.instructions.push(instruction),
        None if matches!(instruction.kind, InstructionKind::Arg { .. }) => {
            file.global_args.push(instruction);
        }
        None => {
            let problem = fault("no-stage", "no build stage in current context");
            return Err(problem.help("only ARG may stand before the first FROM"));
        }
    }
    Ok(())
}

/// The error for a file without any instruction.
pub(crate) fn nothing(source: &str) -> Diagnostic {
    match source.is_empty() {
        true => Diagnostic::error("empty", Span::new(0, 0), "the Dockerfile cannot be empty"),
        false => Diagnostic::error("empty", last_line(source), "file with no instructions"),
    }
}

fn last_line(source: &str) -> Span {
    let text = source.trim_end();
    let start = text.rfind('\n').map_or(0, |found| found + 1);
    Span::new(start, text.len().max(start))
}

/// See [`crate::parse_trigger`].
pub(crate) fn parse_trigger(text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut reader = Reader::new(text);
    let mut notes = Notes::default();
    let line = match reader.logical() {
        Some(Ok(line)) => line,
        Some(Err(problem)) => return Err(vec![problem]),
        None => return Err(vec![nothing(text)]),
    };
    let located = |problem: Fault| vec![problem.diagnostic(&line)];
    let node = shape(&line, reader.escape).map_err(located)?;
    if let Some(problem) = instruction::refused_trigger(&node) {
        return Err(located(problem));
    }
    let parsed = read_instruction(&line, &mut reader, &mut notes).map_err(|problem| {
        let (Problem::Line(problem) | Problem::Instruction(problem)) = problem;
        located(problem)
    })?;
    if reader.logical().is_some() {
        return Err(located(fault("onbuild", "onbuild trigger should be a single expression")));
    }
    let late: Vec<_> = notes.late.into_iter().map(|late| late.diagnostic(&line)).collect();
    match parsed {
        Parsed::Instruction(instruction) if late.is_empty() => Ok(*instruction),
        Parsed::Instruction(_) => Err(late),
        Parsed::Stage(_) => {
            Err(located(fault("onbuild", "FROM isn't allowed as an ONBUILD trigger")))
        }
    }
}
