//! `SOURCE_DATE_EPOCH`.

use rbuild_parser::ast::{Dockerfile, InstructionKind, Stage};
use rbuild_types::{Diagnostic, Span};

use super::environment::Globals;
use super::unsupported;
use crate::options::Options;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The time in seconds, from `--build-arg` or the default of a global `ARG`.
///
/// `context` is the time of a context that has one (git, http, tar): a local one has none.
pub(super) fn source_date_epoch(
    dockerfile: &Dockerfile,
    options: &Options,
    globals: &Globals,
) -> Result<Option<i64>, Diagnostic> {
    let given = options.build_args.get(NAME).map(String::as_str);
    let Some(value) = given.or_else(|| globals.variables.get(NAME)) else { return Ok(None) };
    if value.is_empty() || value == "context" {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse::<i64>() {
        return Ok(Some(seconds));
    }
    let named = |stage: &&Stage| {
        stage.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(value))
    };
    if let Some(stage) = dockerfile.stages.iter().rev().find(named) {
        return Err(of_stage(stage));
    }
    let message = format!("invalid {NAME}: {value}");
    Err(Diagnostic::error("source-date-epoch", span(dockerfile), message)
        .help("a whole number of seconds since 1970, or nothing"))
}

/// Only a stage that is one remote `ADD` has a time, and remote `ADD` is not there yet.
fn of_stage(stage: &Stage) -> Diagnostic {
    let message = format!("{NAME} stage does not meet source-only requirements");
    if stage.base.value != "scratch" {
        let message = format!("{message}: stage must be FROM scratch");
        return Diagnostic::error("source-date-epoch", stage.base.span, message);
    }
    let other = stage.instructions.iter().find(|instruction| {
        !matches!(instruction.kind, InstructionKind::Add(_) | InstructionKind::Arg { .. })
    });
    match other {
        Some(instruction) => {
            let keyword = instruction.keyword.value.to_uppercase();
            let message = format!("{message}: unsupported {keyword} instruction");
            Diagnostic::error("source-date-epoch", instruction.span, message)
        }
        None => unsupported(stage.span, "SOURCE_DATE_EPOCH taken from a stage"),
    }
}

/// The `ARG` that names it, or the start of the file.
fn span(dockerfile: &Dockerfile) -> Span {
    let args = dockerfile.global_args.iter().filter_map(|one| match &one.kind {
        InstructionKind::Arg { args } => Some(args),
        _ => None,
    });
    let arg = args.flatten().find(|arg| arg.name.value == NAME);
    arg.map_or(Span::default(), |arg| arg.name.span)
}
