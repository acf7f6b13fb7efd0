//! `COPY` and `ADD`.

use std::collections::{HashMap, VecDeque};

use super::flags::{Flags, Takes};
use super::words::Word;
use super::{Fault, Node, Notes, fault};
use crate::ast::{Copy, CopyFlags, Heredoc, InstructionKind, Spanned};
use crate::expand::{NoVariables, expand_word};
use crate::heredoc;
use crate::lines::Line;

const COPY_FLAGS: [(&str, Takes); 6] = [
    ("chown", Takes::Value),
    ("from", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("exclude", Takes::Values),
    ("parents", Takes::Bool),
];

const ADD_FLAGS: [(&str, Takes); 7] = [
    ("chown", Takes::Value),
    ("chmod", Takes::Value),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Value),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Values),
];

pub(super) fn parse_copy(
    node: &Node<'_>,
    line: &Line,
    heredocs: &[Heredoc],
    escape: char,
    notes: &mut Notes,
) -> Result<InstructionKind, Fault> {
    let copy = parse(node, line, heredocs, "COPY", &COPY_FLAGS)?;
    notes.late.extend(variable_in_from(node, &copy, escape));
    Ok(InstructionKind::Copy(copy))
}

pub(super) fn parse_add(
    node: &Node<'_>,
    line: &Line,
    heredocs: &[Heredoc],
) -> Result<InstructionKind, Fault> {
    parse(node, line, heredocs, "ADD", &ADD_FLAGS).map(InstructionKind::Add)
}

fn parse(
    node: &Node<'_>,
    line: &Line,
    heredocs: &[Heredoc],
    name: &str,
    defined: &[(&'static str, Takes)],
) -> Result<Copy, Fault> {
    let (destination, sources) = match node.words().split_last() {
        Some((destination, sources)) if !sources.is_empty() => (destination, sources),
        _ => {
            return Err(fault(
                "arguments",
                format!(
                    "{name} requires at least two arguments, but only one was provided. \
                     Destination could not be determined"
                ),
            ));
        }
    };
    let flags = Flags::read(line, &node.flags, defined)?;
    let is_heredoc = |word: &Word| heredoc::word(&word.text).ok().flatten();
    if is_heredoc(destination).is_some() {
        let message = format!("{name} cannot accept a heredoc as a destination");
        return Err(fault("heredoc", message).at(destination));
    }
    let mut copy = Copy {
        sources: Vec::new(),
        heredocs: Vec::new(),
        destination: destination.spanned(line),
        flags: copy_flags(&flags),
    };
    let mut bodies = Bodies::new(heredocs);
    for source in sources {
        match is_heredoc(source) {
            Some(word) => copy.heredocs.push(bodies.take(word, source, line)),
            None => copy.sources.push(source.spanned(line)),
        }
    }
    Ok(copy)
}

/// The heredocs of a line by name. Of several with one name each word gets its own; in BuildKit
/// all get the last, which comes to the same, because they write one file one after the other.
struct Bodies<'a>(HashMap<&'a str, VecDeque<&'a Heredoc>>);

impl<'a> Bodies<'a> {
    fn new(heredocs: &'a [Heredoc]) -> Self {
        let mut named: HashMap<&str, VecDeque<&Heredoc>> = HashMap::new();
        for heredoc in heredocs {
            named.entry(&heredoc.name).or_default().push_back(heredoc);
        }
        Self(named)
    }

    /// The heredoc that a word names. In the JSON form there are none, and the file is empty.
    fn take(&mut self, word: heredoc::Word, source: &Word, line: &Line) -> Heredoc {
        let heredoc::Word { name, expand, chomp, descriptor } = word;
        let found = self.0.get_mut(name.as_str()).and_then(VecDeque::pop_front);
        let word = source.spanned(line);
        let empty = || Spanned::new(String::new(), word.span);
        let body = found.map_or_else(empty, |heredoc| heredoc.body.clone());
        Heredoc { name, word, expand, chomp, descriptor, body }
    }
}

fn copy_flags(flags: &Flags<'_>) -> CopyFlags {
    CopyFlags {
        // An empty value is as good as none, as in BuildKit.
        from: flags.value("from").filter(|from| !from.value.is_empty()),
        chown: flags.value("chown").filter(|chown| !chown.value.is_empty()),
        chmod: flags.value("chmod").filter(|chmod| !chmod.value.is_empty()),
        link: flags.boolean("link"),
        parents: flags.boolean("parents"),
        exclude: flags.values("exclude"),
        checksum: flags.value("checksum").filter(|checksum| !checksum.value.is_empty()),
        keep_git_dir: flags.boolean("keep-git-dir"),
        unpack: flags.boolean("unpack"),
    }
}

/// `--from` must expand to itself. BuildKit looks at this once all stages are known.
fn variable_in_from(node: &Node<'_>, copy: &Copy, escape: char) -> Option<Fault> {
    let from = &copy.flags.from.as_ref()?.value;
    let flag = node.flags.iter().find(|flag| flag.text.starts_with("--from="))?;
    match expand_word(from, escape, &NoVariables) {
        Ok(expanded) if expanded.text == *from => None,
        Ok(_) => Some(
            fault(
                "from-variable",
                "variable expansion is not supported for --from, define a new stage with FROM \
                 using ARG from global scope as a workaround",
            )
            .at(flag),
        ),
        Err(error) => Some(fault("from-variable", error.message).at(flag)),
    }
}
