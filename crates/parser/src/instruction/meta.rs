//! The instructions that only change the image's configuration, and `ONBUILD`.

use rbuild_types::{Diagnostic, Span};

use super::flags::{Flags, Takes};
use super::words::{Part, Word};
use super::{
    Fault, Node, Notes, at_least_one, duration, exactly_one, fault, finish, go_quoted,
    ignored_flags, run,
};
use crate::ast::{Healthcheck, Heredoc, InstructionKind, Spanned, Text};
use crate::lines::Line;

const HEALTHCHECK_FLAGS: [(&str, Takes); 5] = [
    ("interval", Takes::Value),
    ("timeout", Takes::Value),
    ("start-period", Takes::Value),
    ("start-interval", Takes::Value),
    ("retries", Takes::Value),
];

pub(super) fn parse_expose(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::Expose { ports: some_words(node, line, "EXPOSE")? })
}

pub(super) fn parse_volume(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    let mut paths = some_words(node, line, "VOLUME")?;
    for path in &mut paths {
        path.value = path.value.trim().to_owned();
    }
    if let Some(index) = paths.iter().position(|path| path.value.is_empty()) {
        let problem = fault("arguments", "VOLUME specified can not be an empty string");
        return Err(match node.words().get(index) {
            Some(word) => problem.at(word),
            None => problem,
        });
    }
    Ok(InstructionKind::Volume { paths })
}

pub(super) fn parse_user(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::User { user: one_word(node, line, "USER")? })
}

pub(super) fn parse_workdir(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::Workdir { path: one_word(node, line, "WORKDIR")? })
}

pub(super) fn parse_maintainer(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Ok(InstructionKind::Maintainer { name: one_word(node, line, "MAINTAINER")? })
}

pub(super) fn parse_stopsignal(
    node: &Node<'_>,
    line: &Line,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    let [signal] = node.words() else { return Err(exactly_one("STOPSIGNAL")) };
    ignored_flags(node, line, "STOPSIGNAL", notes);
    Ok(InstructionKind::Stopsignal { signal: signal.spanned(line) })
}

pub(super) fn parse_shell(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Flags::none(line, &node.flags)?;
    if node.words().is_empty() {
        return Err(at_least_one("SHELL"));
    }
    if !node.json {
        let message = "SHELL requires the arguments to be in JSON form";
        return Err(fault("json", message).at(&node.rest.to_word()));
    }
    Ok(InstructionKind::Shell { argv: all(node.words(), line) })
}

pub(super) fn parse_healthcheck(
    node: &Node<'_>,
    line: &Line,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    let Some((kind, command)) = node.words().split_first() else {
        return Err(at_least_one("HEALTHCHECK"));
    };
    let name = kind.text.to_uppercase();
    if name == "NONE" {
        if let Some(word) = command.first() {
            let message = "HEALTHCHECK NONE takes no arguments";
            return Err(fault("arguments", message).at(word));
        }
        ignored_flags(node, line, "HEALTHCHECK NONE", notes);
        return Ok(InstructionKind::Healthcheck(Healthcheck {
            command: None,
            interval: 0,
            timeout: 0,
            start_period: 0,
            start_interval: 0,
            retries: 0,
        }));
    }
    let flags = Flags::read(line, &node.flags, &HEALTHCHECK_FLAGS)?;
    if name != "CMD" {
        let quoted = go_quoted(&name);
        let message = format!("Unknown type {quoted} in HEALTHCHECK (try CMD)");
        return Err(fault("arguments", message).at(kind));
    }
    if command.is_empty() {
        return Err(fault("arguments", "Missing command after HEALTHCHECK CMD").at(kind));
    }
    let interval = |name: &str| match flags.value(name) {
        Some(text) => duration::interval(name, &text.value)
            .map_err(|message| fault("duration", message).at(run::flag(node, name))),
        None => Ok(0),
    };
    Ok(InstructionKind::Healthcheck(Healthcheck {
        command: Some(run::command_of(command, node, line)),
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries: flags.value("retries").map_or(Ok(0), |text| {
            duration::retries(&text.value)
                .map_err(|message| fault("retries", message).at(run::flag(node, "retries")))
        })?,
    }))
}

/// Keeps the text of the trigger. BuildKit does not look at the instruction in it until it is
/// triggered, so what is wrong with it is only a warning, but for the three that never may be.
pub(super) fn parse_onbuild(
    node: &Node<'_>,
    line: &Line,
    heredocs: &[Heredoc],
    escape: char,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    let Some(trigger) = node.trigger() else { return Err(at_least_one("ONBUILD")) };
    Flags::none(line, &node.flags)?;
    if let Some(problem) = refused_trigger(trigger) {
        return Err(problem);
    }
    let mut inner = Notes::default();
    let checked = finish(trigger, line, heredocs.to_vec(), None, escape, &mut inner);
    notes.warnings.extend(inner.warnings);
    for problem in checked.err().into_iter().chain(inner.late) {
        let span = problem.at.map_or_else(|| line.whole(), |(at, end)| line.span(at..end));
        let message = format!("the ONBUILD trigger will fail: {}", problem.message);
        notes.warnings.push(Diagnostic::warning("onbuild-trigger", span, message));
    }
    let after = Part::new(&line.text, 0).tail(line.text.trim_start());
    let after = after.tail(after.text.get(node.keyword.text.len()..).unwrap_or_default());
    let after = after.tail(after.text.trim_start());
    let mut text = after.text.to_owned();
    for heredoc in heredocs {
        text.extend(["\n", &heredoc.body.value, &heredoc.name]);
    }
    let span = line.span(after.at..after.at + after.text.trim_end().len());
    let end = heredocs.last().map_or(span.end, |heredoc| heredoc.body.span.end);
    let trigger = Spanned::new(text, Span::new(span.start, end.max(span.end)));
    Ok(InstructionKind::Onbuild { trigger })
}

/// Why an instruction may not be triggered.
pub(crate) fn refused_trigger(trigger: &Node<'_>) -> Option<Fault> {
    let name = trigger.name();
    let message = match name.as_str() {
        "ONBUILD" => "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned(),
        "MAINTAINER" | "FROM" => format!("{name} isn't allowed as an ONBUILD trigger"),
        _ => return None,
    };
    Some(fault("onbuild", message).at(&trigger.keyword.to_word()))
}

fn one_word(node: &Node<'_>, line: &Line, name: &str) -> Result<Text, Fault> {
    let [word] = node.words() else { return Err(exactly_one(name)) };
    Flags::none(line, &node.flags)?;
    Ok(word.spanned(line))
}

fn some_words(node: &Node<'_>, line: &Line, name: &str) -> Result<Vec<Text>, Fault> {
    if node.words().is_empty() {
        return Err(at_least_one(name));
    }
    Flags::none(line, &node.flags)?;
    Ok(all(node.words(), line))
}

fn all(words: &[Word], line: &Line) -> Vec<Text> {
    words.iter().map(|word| word.spanned(line)).collect()
}
