//! What is said of build arguments that no `ARG` takes.

use std::collections::BTreeMap;

use rbuild_parser::ast::{Dockerfile, InstructionKind};
use rbuild_parser::suggest;
use rbuild_types::Diagnostic;

/// A warning without a place, in BuildKit's words, with those `ARG`s that may have been meant.
pub(crate) fn warning(
    unused: &[String],
    given: &BTreeMap<String, String>,
    dockerfile: &Dockerfile,
) -> Diagnostic {
    let names = unused.join(" ");
    let declared: Vec<&str> = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.instructions)
        .chain(&dockerfile.global_args)
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::Arg { args } => Some(args),
            _ => None,
        })
        .flatten()
        .map(|arg| arg.name.value.as_str())
        .filter(|name| !given.contains_key(*name))
        .collect();
    let meant: Vec<String> = unused
        .iter()
        .filter_map(|name| {
            let same = declared.iter().find(|declared| declared.eq_ignore_ascii_case(name));
            let near = same.copied().or_else(|| suggest(name, declared.iter().copied()))?;
            Some(match unused.len() {
                1 => format!("`{near}`"),
                _ => format!("`{near}` instead of `{name}`"),
            })
        })
        .collect();
    let warning = Diagnostic {
        code: "unused-build-arg",
        severity: rbuild_types::Severity::Warning,
        message: format!("one or more build-args [{names}] were not consumed"),
        labels: Vec::new(),
        help: None,
        url: None,
    };
    match meant.is_empty() {
        true => warning,
        false => warning.help(format!("did you mean {}?", meant.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(unused: &[&str], given: &[&str]) -> (String, Option<String>) {
        let text = "ARG BASE=x\nFROM $BASE\nARG VERSION COMMIT\n";
        let (dockerfile, _) = rbuild_parser::parse(text);
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let unused: Vec<String> = owned(unused);
        let given: Vec<String> = owned(given);
        let given = given.into_iter().map(|name| (name, String::new())).collect();
        let warning = warning(&unused, &given, &dockerfile);
        assert!(!warning.is_error() && warning.span().is_none());
        (warning.message, warning.help)
    }

    #[test]
    fn near_names_are_suggested() {
        let (message, help) = warned(&["NOPE"], &["NOPE"]);
        assert_eq!(message, "one or more build-args [NOPE] were not consumed");
        assert_eq!(help, None);
        assert_eq!(warned(&["VERSOIN"], &[]).1.unwrap(), "did you mean `VERSION`?");
        assert_eq!(warned(&["version"], &[]).1.unwrap(), "did you mean `VERSION`?");
        assert_eq!(warned(&["BASF"], &["BASE"]).1, None);
        let (message, help) = warned(&["BASS", "COMIT", "NOPE"], &[]);
        assert!(message.contains("[BASS COMIT NOPE]"));
        let expected = "did you mean `BASE` instead of `BASS`, `COMMIT` instead of `COMIT`?";
        assert_eq!(help.unwrap(), expected);
    }
}
