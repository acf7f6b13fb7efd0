//! The table of rules: names, descriptions and pages are BuildKit's.

use rbuild_types::{Diagnostic, Span};

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name that settings and messages use.
    pub name: &'static str,
    /// What it is about, in one sentence.
    pub description: &'static str,
    /// The last part of its page's address; one rule has no page.
    page: Option<&'static str>,
    /// Whether it is off unless asked for.
    pub experimental: bool,
}

/// Where the pages are.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

impl Rule {
    const fn new(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Self { name, description, page: Some(page), experimental: false }
    }

    /// The address of its page.
    pub fn url(&self) -> Option<String> {
        self.page.map(|page| format!("{PAGES}{page}/"))
    }

    /// The rule of that name.
    pub fn named(name: &str) -> Option<&'static Rule> {
        ALL.iter().copied().find(|rule| rule.name == name)
    }

    /// A finding.
    pub fn warning(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        let mut warning = Diagnostic::warning(self.name, span, message);
        warning.url = self.url();
        warning
    }
}

/// All of them, in BuildKit's order.
pub const ALL: [&Rule; 22] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &INVALID_DEFINITION_DESCRIPTION,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
];

/// Warnings that are no rules of BuildKit's. They can be switched off by name too, and never make
/// a build fail.
pub const OWN: [&str; 3] = ["foreign-syntax", "ignored-flag", "onbuild-trigger"];

/// A stage name holds capitals.
pub static STAGE_NAME_CASING: Rule =
    Rule::new("StageNameCasing", "stage-name-casing", "Stage names should be lowercase");
/// `FROM x as y`.
pub static FROM_AS_CASING: Rule = Rule::new(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
);
/// An empty line inside an instruction.
pub static NO_EMPTY_CONTINUATION: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);
/// `run` among `RUN`s.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);
/// Two stages of one name.
pub static DUPLICATE_STAGE_NAME: Rule =
    Rule::new("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");
/// A stage called `scratch` or `context`.
pub static RESERVED_STAGE_NAME: Rule = Rule::new(
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names",
);
/// The shell form of `CMD` and `ENTRYPOINT`.
pub static JSON_ARGS_RECOMMENDED: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS \
     signals",
);
/// `MAINTAINER`.
pub static MAINTAINER_DEPRECATED: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);
/// A variable in `FROM` that no global `ARG` declares.
pub static UNDEFINED_ARG_IN_FROM: Rule =
    Rule::new("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs");
/// A relative `WORKDIR` upon a base image's.
pub static WORKDIR_RELATIVE_PATH: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected \
     results if the base image changes",
);
/// A variable that nothing sets.
pub static UNDEFINED_VAR: Rule =
    Rule::new("UndefinedVar", "undefined-var", "Variables should be defined before their use");
/// Several `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in one stage.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);
/// `ENV key value`.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);
/// A base image of another platform than the stage's.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    page: None,
    ..Rule::new(
        "InvalidBaseImagePlatform",
        "",
        "Base image platform does not match expected target platform",
    )
};
/// `FROM --platform=$TARGETPLATFORM`.
pub static REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default \
     behavior",
);
/// An `ARG` or `ENV` with a secret's name.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);
/// A base name that is none unless a build argument is given.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);
/// `FROM --platform=linux/amd64`.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);
/// `COPY` of what the ignore file leaves out.
pub static COPY_IGNORED_FILE: Rule = Rule::new(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
);
/// A comment above a stage or an `ARG` that describes something else.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    experimental: true,
    ..Rule::new(
        "InvalidDefinitionDescription",
        "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> \
         <description>`. If this is not intended to be a description comment, add an empty line \
         or comment between the instruction and the comment.",
    )
};
/// `EXPOSE 80/TCP`.
pub static EXPOSE_PROTO_CASING: Rule = Rule::new(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
);
/// `EXPOSE 127.0.0.1:80:80`.
pub static EXPOSE_INVALID_FORMAT: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become \
     an error in a future release",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_rule_is_its_name_in_kebab_case() {
        for rule in ALL {
            let Some(page) = rule.page else { continue };
            let plain = page.replace('-', "");
            assert_eq!(plain, rule.name.to_lowercase());
            assert_eq!(Rule::named(rule.name), Some(rule));
        }
        let url = JSON_ARGS_RECOMMENDED.url().unwrap();
        assert_eq!(url, "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
        assert_eq!(INVALID_BASE_IMAGE_PLATFORM.url(), None);
        assert_eq!(ALL.iter().filter(|rule| rule.experimental).count(), 1);
    }
}
