//! What is said of names in a request that the Dockerfile does not have.

use std::collections::BTreeMap;

use rbuild_parser::ast::{Dockerfile, InstructionKind};
use rbuild_parser::{foreign_frontend, suggest};
use rbuild_plan::NoCache;
use rbuild_types::{Diagnostic, Severity};

/// Stages that `--no-cache-filter` names and that there are not.
pub(crate) fn no_cache(no_cache: &NoCache, dockerfile: &Dockerfile) -> Option<Diagnostic> {
    let NoCache::Stages(wanted) = no_cache else { return None };
    let stages = dockerfile.stages.iter().enumerate();
    let stages: Vec<String> = stages
        .map(|(index, stage)| match &stage.name {
            Some(name) => name.value.clone(),
            None => format!("stage-{index}"),
        })
        .collect();
    let is_there = |name: &String| stages.iter().any(|stage| stage.eq_ignore_ascii_case(name));
    let unknown: Vec<&String> = wanted.iter().filter(|name| !is_there(name)).collect();
    let first = unknown.first()?;
    let names: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("no stage to run without cache is called {}", names.join(" or "));
    let warning = placeless("unknown-stage", message);
    Some(match suggest(first, stages.iter().map(String::as_str)) {
        Some(near) => warning.help(format!("did you mean `{near}`?")),
        None => warning,
    })
}

/// Named contexts that stand for nothing in the Dockerfile.
pub(crate) fn contexts(unused: &[String], dockerfile: &Dockerfile) -> Option<Diagnostic> {
    let first = unused.first()?;
    let names: Vec<String> = unused.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("nothing was taken from the build context {}", names.join(" or "));
    let warning = placeless("unused-build-context", message);
    let stages = dockerfile.stages.iter();
    let known = stages.flat_map(|stage| stage.name.iter().chain([&stage.base]));
    let known = known.map(|text| text.value.as_str());
    let from = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let from = from.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Copy(copy) => copy.flags.from.as_ref().map(|from| from.value.as_str()),
        _ => None,
    });
    Some(match suggest(first, known.chain(from)) {
        Some(near) => warning.help(format!("did you mean `{near}`?")),
        None => warning,
    })
}

/// A frontend that `BUILDKIT_SYNTAX` asks for.
pub(crate) fn frontend(build_args: &BTreeMap<String, String>) -> Option<Diagnostic> {
    let message = foreign_frontend(build_args.get("BUILDKIT_SYNTAX")?)?;
    Some(placeless("foreign-syntax", message))
}

fn placeless(code: &'static str, message: String) -> Diagnostic {
    Diagnostic {
        code,
        severity: Severity::Warning,
        message,
        labels: Vec::new(),
        help: None,
        url: None,
    }
}

/// Build arguments that no `ARG` takes: in BuildKit's words, with those that may have been meant.
pub(crate) fn build_args(
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
    let message = format!("one or more build-args [{names}] were not consumed");
    let warning = placeless("unused-build-arg", message);
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
        let warning = build_args(&unused, &given, &dockerfile);
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

    #[test]
    fn a_frontend_that_is_not_fetched_is_named() {
        let warned = |value: &str| frontend(&[("BUILDKIT_SYNTAX".into(), value.into())].into());
        assert_eq!(warned("docker/dockerfile:1"), None);
        assert_eq!(warned("dockerfile.v0"), None);
        let message = warned("example.com/frontend").unwrap().message;
        assert!(message.contains("\"example.com/frontend\" is not fetched"), "{message}");
        assert_eq!(frontend(&BTreeMap::new()), None);
    }

    #[test]
    fn stages_that_are_not_there_are_named() {
        let (dockerfile, _) = rbuild_parser::parse("FROM x AS Build\nFROM x\n");
        let warned = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            no_cache(&NoCache::Stages(names), &dockerfile)
        };
        assert_eq!(warned(&["build", "BUILD", "stage-1"]), None);
        let warning = warned(&["build", "biuld", "x"]).unwrap();
        assert!(warning.message.ends_with("called `biuld` or `x`"), "{warning:?}");
        assert_eq!(warning.help.unwrap(), "did you mean `build`?");
        assert_eq!(no_cache(&NoCache::All, &dockerfile), None);
    }
}
