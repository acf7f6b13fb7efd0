//! `InvalidDefinitionDescription`.

use rbuild_types::{Diagnostic, Span};

use super::Settings;
use super::rules::INVALID_DEFINITION_DESCRIPTION;
use crate::ast::{Dockerfile, InstructionKind};

/// The last comment above a stage with a name, or above `ARG`, begins with a name that is defined
/// there. One with settings for checks describes nothing and is passed over.
pub(super) fn check(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in dockerfile.global_args.iter().chain(in_stages) {
        if let InstructionKind::Arg { args } = &instruction.kind {
            let names: Vec<&str> = args.iter().map(|arg| arg.name.value.as_str()).collect();
            found.extend(of(&instruction.comments, "ARG", &names, instruction.keyword.span));
        }
    }
    for stage in &dockerfile.stages {
        let names: Vec<&str> = stage.name.iter().map(|name| name.value.as_str()).collect();
        found.extend(of(&stage.comments, "FROM", &names, stage.keyword.span));
    }
    found
}

fn of(comments: &[String], keyword: &str, names: &[&str], span: Span) -> Option<Diagnostic> {
    let mut describing = comments.iter().filter(|text| Settings::of_comment(text).is_none());
    let word = describing.next_back()?.split(' ').next().unwrap_or_default();
    let example = match names {
        [] => return None,
        names if names.contains(&word) => return None,
        [name] => name,
        _ => "<arg_key>",
    };
    let message =
        format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    Some(INVALID_DEFINITION_DESCRIPTION.warning(span, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn comments_with_settings_describe_nothing() {
        let text = "FROM a\n# b is good\n# check=skip=all\nARG b\n# c is other\nARG d\n";
        let messages: Vec<_> = check(&parse(text).0).into_iter().map(|one| one.message).collect();
        assert_eq!(messages, ["Comment for ARG should follow the format: `# d <description>`"]);
    }
}
