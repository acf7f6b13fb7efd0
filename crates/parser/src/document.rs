//! The whole file: lines into instructions, instructions into stages, problems into order.

use rbuild_types::{Diagnostic, Span};

use crate::ast::{Dockerfile, Instruction, InstructionKind};
use crate::directives;
use crate::instruction::{Fault, Notes, Parsed, fault, finish, shape};
use crate::lines::{Line, Reader};
use crate::lint::rules::NO_EMPTY_CONTINUATION;
use crate::{heredoc, instruction};

/// Problems, kept apart by when BuildKit would find them. It stops at the first, so the one to
/// fix first is the first of the earliest kind, wherever in the file that is.
#[derive(Debug, Default)]
struct Problems {
    lines: Vec<Diagnostic>,
    instructions: Vec<Diagnostic>,
    late: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    /// There was a `FROM` that could not be read, so instructions without a stage are no news.
    lost_stage: bool,
}

impl Problems {
    fn into_list(self) -> Vec<Diagnostic> {
        let Self { lines, instructions, late, warnings, lost_stage: _ } = self;
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
    problems.warnings.extend(empty_continuation(line));
    let mut notes = Notes::default();
    match read_instruction(line, reader, &mut notes) {
        Ok(Parsed::Stage(stage)) => file.stages.push(*stage),
        Ok(Parsed::Instruction(instruction)) => {
            let added = add_instruction(*instruction, file);
            let told = added.err().filter(|_| !problems.lost_stage);
            problems.instructions.extend(told.map(|problem| problem.diagnostic(line)));
        }
        Err(Problem::Line(problem)) => problems.lines.push(problem.diagnostic(line)),
        Err(Problem::Instruction(problem)) => {
            problems.lost_stage |= is_from(line);
            problems.instructions.push(problem.diagnostic(line));
        }
    }
    problems.warnings.extend(notes.warnings);
    problems.late.extend(notes.late.into_iter().map(|problem| problem.diagnostic(line)));
}

/// The lint rule that only the lines can tell. BuildKit names the instruction's last line.
fn empty_continuation(line: &Line) -> Option<Diagnostic> {
    let blank = line.blank?;
    let warning = NO_EMPTY_CONTINUATION
        .warning(line.last_part(), "Empty continuation line")
        .label(blank, "this line is empty")
        .help("empty continuation lines will become errors in a future release");
    Some(warning)
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

fn is_from(line: &Line) -> bool {
    line.text.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("FROM"))
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

#[cfg(test)]
mod tests {
    use rbuild_types::LineIndex;

    use super::*;

    fn lines(source: &str) -> Vec<(usize, String)> {
        let index = LineIndex::new(source);
        let (_, problems) = parse(source);
        let line = |problem: &Diagnostic| index.line(problem.span().unwrap().start);
        problems.iter().map(|problem| (line(problem), problem.message.clone())).collect()
    }

    #[test]
    fn errors_come_in_the_order_in_which_buildkit_finds_them() {
        let source =
            "FROM a\nCOPY --from=$x a b\nFOO\nENV x\nSTOPSIGNAL --x 9\nRUN --mount=a=b c\n";
        let found: Vec<usize> = lines(source).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [4, 3, 2, 6, 5]);
    }

    #[test]
    fn an_error_is_on_the_line_where_the_instruction_begins() {
        let source = "FROM a\n# comment\n\n  RUN \\\n  # more\n  --mont=x y\n\\\nFOO";
        let found: Vec<usize> = lines(source).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [4, 7]);
        let (_, problems) = parse(source);
        let exact = problems.first().and_then(|problem| problem.labels.get(1)).unwrap();
        assert_eq!(exact.span.text(source), "--mont=x");
    }

    #[test]
    fn a_from_that_cannot_be_read_is_told_once() {
        let found: Vec<usize> = lines("FROM a b\nRUN x\n").into_iter().map(|(at, _)| at).collect();
        assert_eq!(found, [1]);
    }

    #[test]
    fn an_empty_continuation_line_is_told_on_the_last_line() {
        let source = "FROM scratch\nCOPY Dockerfile \\\n\n.\n";
        assert_eq!(lines(source), [(4, "Empty continuation line".to_owned())]);
    }

    #[test]
    fn comments_document_what_they_name() {
        let source = "# foo sets foo\nARG foo=bar\n\n# base defines first stage\nFROM busybox AS \
                      base\n# this is irrelevant\nARG foo\n# bar defines bar\n# baz is something \
                      else\nARG bar baz=123\n";
        let (file, _) = parse(source);
        let docs = |instruction: &Instruction| match &instruction.kind {
            InstructionKind::Arg { args } => args.iter().map(|arg| arg.doc.clone()).collect(),
            _ => Vec::new(),
        };
        let stage = file.stages.first().unwrap();
        assert_eq!(stage.doc.as_deref(), Some("defines first stage"));
        assert_eq!(docs(file.global_args.first().unwrap()), [Some("sets foo".to_owned())]);
        let inner: Vec<_> = stage.instructions.iter().flat_map(docs).collect();
        let wanted = [None, Some("defines bar"), Some("is something else")];
        assert_eq!(inner, wanted.map(|doc| doc.map(str::to_owned)));
    }

    #[test]
    fn triggers_are_single_instructions() {
        let (file, problems) =
            parse("# escape=`\nFROM a\nONBUILD RUN <<-EOF cat \n\techo $x\n\tEOF\nRUN x\n");
        assert!(problems.is_empty(), "{problems:?}");
        let stage = file.stages.first().unwrap();
        let InstructionKind::Onbuild { trigger } = &stage.instructions.first().unwrap().kind else {
            panic!("no trigger")
        };
        assert_eq!(trigger.value, "RUN <<-EOF cat \n\techo $x\nEOF");
        let instruction = parse_trigger(&trigger.value).unwrap();
        let InstructionKind::Run(run) = instruction.kind else { panic!("no RUN") };
        assert_eq!(run.heredocs.first().unwrap().content(), "echo $x\n");

        let message = |text| parse_trigger(text).unwrap_err().remove(0).message;
        assert_eq!(message("FROM a"), "FROM isn't allowed as an ONBUILD trigger");
        assert_eq!(message("RUN a\nRUN b"), "onbuild trigger should be a single expression");
        assert_eq!(message(""), "the Dockerfile cannot be empty");
        assert_eq!(message("FOO"), "unknown instruction: FOO (did you mean FROM?)");
    }
}
