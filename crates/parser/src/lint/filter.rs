//! Which findings count: the settings of the file, and those of the comments above instructions.

use rbuild_types::{Diagnostic, Span};

use super::Settings;
use super::rules::Rule;
use crate::ast::Dockerfile;

/// Says of each finding whether it counts.
#[derive(Debug)]
pub struct Filter {
    settings: Settings,
    /// Instructions with settings of their own, in the order of the file.
    own: Vec<(Span, Settings)>,
}

impl Filter {
    /// For the findings of one file. `given` stands in for the file's own settings, as the build
    /// argument `BUILDKIT_DOCKERFILE_CHECK` does.
    ///
    /// Settings that cannot be read are an error, and names that no rule has are warnings.
    pub fn new(
        dockerfile: &Dockerfile,
        given: Option<&str>,
    ) -> Result<(Self, Vec<Diagnostic>), Diagnostic> {
        let directive = dockerfile.directives.check.as_ref();
        let (text, span, what) = match (given, directive) {
            (Some(text), _) => (text, Span::default(), "BUILDKIT_DOCKERFILE_CHECK"),
            (None, Some(text)) => (text.value.as_str(), text.span, "check options"),
            (None, None) => ("", Span::default(), ""),
        };
        let settings = Settings::parse(text).map_err(|error| {
            let message = format!("failed to parse {what}: {}", error.message);
            let error = Diagnostic::error("check-options", span, message);
            error.help("write it as skip=RULE,RULE;error=true;experimental=RULE")
        })?;
        let mut warnings = settings.unknown_names(span);
        let mut own = Vec::new();
        for (span, comments) in commented(dockerfile) {
            // The first counts, as in BuildKit.
            if let Some(found) = comments.iter().find_map(|text| Settings::of_comment(text)) {
                warnings.extend(found.unknown_names(span));
                own.push((span, found));
            }
        }
        own.sort_by_key(|(span, _)| span.start);
        Ok((Self { settings, own }, warnings))
    }

    /// Whether a finding counts. Settings above any instruction that it points at are heard.
    pub fn allows(&self, finding: &Diagnostic) -> bool {
        let above = finding.labels.iter().filter_map(|label| self.above(label.span));
        let mut all = std::iter::once(&self.settings).chain(above);
        match Rule::named(finding.code).is_some_and(|rule| rule.experimental) {
            true => all.any(|settings| settings.allow(finding.code)),
            false => all.all(|settings| settings.allow(finding.code)),
        }
    }

    /// The names of the rules that make a build fail with these findings, in order, each once;
    /// none where findings are no errors.
    pub fn violations<'a>(&self, findings: &'a [Diagnostic]) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        if self.settings.error {
            for finding in findings {
                if Rule::named(finding.code).is_some() && !names.contains(&finding.code) {
                    names.push(finding.code);
                }
            }
        }
        names
    }

    /// The settings of the instruction at `span`, if it has some of its own.
    fn above(&self, span: Span) -> Option<&Settings> {
        let next = self.own.partition_point(|(own, _)| own.start <= span.start);
        let (own, settings) = self.own.get(next.checked_sub(1)?)?;
        (span.start < own.end).then_some(settings)
    }
}

/// Every instruction with the comments above it.
fn commented(dockerfile: &Dockerfile) -> impl Iterator<Item = (Span, &[String])> {
    let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let instructions = dockerfile.global_args.iter().chain(in_stages);
    let instructions = instructions.map(|one| (one.span, one.comments.as_slice()));
    instructions.chain(dockerfile.stages.iter().map(|one| (one.span, one.comments.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::check_stage;
    use crate::parse;

    fn kept(text: &str, given: Option<&str>) -> Vec<String> {
        let (file, _) = parse(text);
        let (filter, _) = Filter::new(&file, given).unwrap();
        let found = file.stages.iter().flat_map(check_stage).filter(|one| filter.allows(one));
        found.map(|one| one.message).collect()
    }

    #[test]
    fn a_comment_counts_for_the_instruction_below_it() {
        let text = "FROM a\n# check=skip=LegacyKeyValueFormat // old\nENV a b\nENV c d\n";
        assert_eq!(kept(text, None).len(), 1);
        assert_eq!(kept(text, Some("skip=all")), [""; 0]);
    }

    #[test]
    fn the_build_argument_stands_in_for_the_directive() {
        let text = "# check=skip=all\nFROM a\nENV a b\n";
        assert_eq!(kept(text, None), [""; 0]);
        assert_eq!(kept(text, Some("")).len(), 1);
    }

    #[test]
    fn both_places_of_a_finding_can_switch_it_off() {
        let text =
            "FROM a\nCMD [\"a\"]\n# check=skip=MultipleInstructionsDisallowed\nCMD [\"b\"]\n";
        assert_eq!(kept(text, None), [""; 0]);
    }

    #[test]
    fn settings_that_cannot_be_read_are_an_error_in_the_directive_only() {
        let (file, _) = parse("# check=nonsense\nFROM a\n");
        let error = Filter::new(&file, None).unwrap_err();
        assert_eq!(
            error.message,
            "failed to parse check options: invalid check option \"nonsense\""
        );
        let (file, _) = parse("FROM a\n# check=nonsense\nENV a b\n");
        assert!(Filter::new(&file, None).unwrap().1.is_empty());
        let (file, _) = parse("FROM a\n# check=skip=UndefinedVra\nENV a b\n");
        let (_, warnings) = Filter::new(&file, None).unwrap();
        assert_eq!(warnings[0].help.as_deref(), Some("did you mean `UndefinedVar`?"));
    }
}
