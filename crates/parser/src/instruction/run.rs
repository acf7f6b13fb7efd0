//! `RUN`, and the commands of `CMD` and `ENTRYPOINT`, which have the same two forms.

use super::flags::{Flags, Takes};
use super::words::Word;
use super::{Fault, Node, Notes, fault, go_quoted, mount};
use crate::ast::{CommandLine, Heredoc, InstructionKind, Run};
use crate::lines::Line;

const RUN_FLAGS: [(&str, Takes); 4] = [
    ("mount", Takes::Values),
    ("network", Takes::Value),
    ("security", Takes::Value),
    ("device", Takes::Values),
];

pub(super) fn parse_run(
    node: &Node<'_>,
    line: &Line,
    heredocs: Vec<Heredoc>,
    escape: char,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    let flags = Flags::read(line, &node.flags, &RUN_FLAGS)?;
    let mut devices = Vec::new();
    for (text, word) in flags.each("device") {
        devices.push(mount::device(text).map_err(|message| fault("device", message).at(word))?);
    }
    let mut mounts = Vec::new();
    for (text, word) in flags.each("mount") {
        let read = mount::parse(text).map_err(|message| fault("mount", message).at(word))?;
        // BuildKit looks at the fields only when it reaches the stage.
        let late = mount::check(&read, escape).err();
        notes.late.extend(late.map(|message| fault("mount-field", message).at(word)));
        mounts.push(read);
    }
    let network = flags.value("network");
    if let Some(network) = &network
        && !["default", "none", "host"].contains(&network.value.as_str())
    {
        let message = format!("invalid network mode {}", go_quoted(&network.value));
        return Err(fault("network", message)
            .at(flag(node, "network"))
            .help("the modes are default, none and host"));
    }
    let security = flags.value("security");
    if let Some(security) = &security
        && !["sandbox", "insecure"].contains(&security.value.as_str())
    {
        let message = format!("security {} is not valid", go_quoted(&security.value));
        return Err(fault("security", message)
            .at(flag(node, "security"))
            .help("the modes are sandbox and insecure"));
    }
    let command = command(node, line);
    Ok(InstructionKind::Run(Run { command, mounts, network, security, devices, heredocs }))
}

/// The first flag of that name as written.
pub(super) fn flag<'a>(node: &'a Node<'_>, name: &str) -> &'a Word {
    const NONE: &Word = &Word { text: String::new(), at: 0, end: 0 };
    let named = |word: &&Word| {
        word.text.strip_prefix("--").is_some_and(|rest| rest.split('=').next() == Some(name))
    };
    node.flags.iter().find(named).unwrap_or(NONE)
}

pub(super) fn parse_cmd(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Flags::none(line, &node.flags)?;
    Ok(InstructionKind::Cmd { command: command(node, line) })
}

pub(super) fn parse_entrypoint(node: &Node<'_>, line: &Line) -> Result<InstructionKind, Fault> {
    Flags::none(line, &node.flags)?;
    Ok(InstructionKind::Entrypoint { command: command(node, line) })
}

fn command(node: &Node<'_>, line: &Line) -> CommandLine {
    command_of(node.words(), node, line)
}

/// The command that `words` hold: the array's strings, or one word with the whole text.
pub(super) fn command_of(words: &[Word], node: &Node<'_>, line: &Line) -> CommandLine {
    let span = match (words.first(), words.last()) {
        (Some(first), Some(last)) if !node.json => line.span(first.at..last.end),
        _ => line.span(node.rest.at..node.rest.end()),
    };
    let texts = || words.iter().map(|word| word.text.clone());
    match node.json {
        true => CommandLine::Exec { argv: texts().collect(), span },
        false => CommandLine::Shell { text: texts().collect::<Vec<_>>().join(" "), span },
    }
}
