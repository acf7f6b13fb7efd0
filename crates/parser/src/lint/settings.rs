//! `skip=A,B;error=true;experimental=all`: which rules count, and whether a finding is an error.

use std::collections::BTreeSet;

use rbuild_types::{Diagnostic, Span};

use super::rules::{self, Rule};
use crate::suggest::suggest;

/// Which rules count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Findings make the build fail.
    pub error: bool,
    skip: Names,
    experimental: Names,
}

/// Names, or all there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    all: bool,
    some: BTreeSet<String>,
}

/// Why settings cannot be read, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// One sentence in lower case.
    pub message: String,
}

impl Settings {
    /// Reads settings; an empty text has none.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        if text.trim().is_empty() {
            return Ok(settings);
        }
        for part in text.trim().split(';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(wrong(format!("invalid check option {part:?}")));
            };
            match key.trim() {
                "skip" => settings.skip = Names::parse(value),
                "experimental" => settings.experimental = Names::parse(value),
                "error" => {
                    settings.error = boolean(value.trim()).ok_or_else(|| {
                        wrong(format!(
                            "failed to parse check option {part:?}: neither true nor false"
                        ))
                    })?;
                }
                key => {
                    let message = format!("invalid check option {key:?}");
                    let known = ["skip", "error", "experimental"];
                    return Err(wrong(match suggest(key, known) {
                        Some(near) => format!("{message} (did you mean {near}?)"),
                        None => message,
                    }));
                }
            }
        }
        Ok(settings)
    }

    /// The settings of a comment above an instruction, if it is one of `check=`. What follows the
    /// first blank is a remark, and settings that cannot be read are none, as in BuildKit.
    pub(super) fn of_comment(comment: &str) -> Option<Self> {
        let (name, value) = comment.split_once('=')?;
        if !name.trim_end().eq_ignore_ascii_case("check") {
            return None;
        }
        Self::parse(value.split_whitespace().next().unwrap_or_default()).ok()
    }

    /// Whether a warning of that code counts. What is experimental must be asked for, and then
    /// nothing skips it, as in BuildKit.
    pub fn allow(&self, code: &str) -> bool {
        match Rule::named(code) {
            Some(rule) if rule.experimental => self.experimental.contains(code),
            Some(_) => !self.skip.contains(code),
            None => !rules::OWN.contains(&code) || !self.skip.contains(code),
        }
    }

    /// Warns of names that no rule has.
    pub fn unknown_names(&self, span: Span) -> Vec<Diagnostic> {
        let known = || rules::ALL.iter().map(|rule| rule.name).chain(rules::OWN);
        let names = self.skip.some.iter().chain(&self.experimental.some);
        let unknown = names.filter(|name| !known().any(|known| known == name.as_str()));
        unknown
            .map(|name| {
                let warning = Diagnostic::warning(
                    "unknown-rule",
                    span,
                    format!("there is no check called {name:?}"),
                );
                let lower = name.to_lowercase();
                let same = known().find(|known| known.to_lowercase() == lower);
                match same.or_else(|| suggest(name, known())) {
                    Some(near) => warning.help(format!("did you mean `{near}`?")),
                    None => warning,
                }
            })
            .collect()
    }
}

impl Names {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self { all: true, some: BTreeSet::new() },
            value => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                Self { all: false, some: names.map(str::to_owned).collect() }
            }
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.all || self.some.contains(name)
    }
}

fn wrong(message: String) -> SettingsError {
    SettingsError { message }
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn rules_are_skipped_by_name_or_all_at_once() {
        let some = settings("skip=UndefinedVar, FromAsCasing;error=true");
        assert!(some.error && !some.allow("UndefinedVar") && !some.allow("FromAsCasing"));
        assert!(some.allow("StageNameCasing") && !settings("skip=all").allow("StageNameCasing"));
        assert!(settings("").allow("StageNameCasing") && !settings("").error);
        // What is no check cannot be switched off.
        assert!(settings("skip=all").allow("unused-build-arg"));
        assert!(!settings("skip=ignored-flag").allow("ignored-flag"));
    }

    #[test]
    fn what_is_experimental_is_asked_for() {
        let name = "InvalidDefinitionDescription";
        assert!(!settings("").allow(name));
        assert!(settings("skip=all;experimental=all").allow(name));
        assert!(settings(&format!("experimental={name}")).allow(name));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let error = |text| Settings::parse(text).unwrap_err().message;
        assert_eq!(error("skip"), "invalid check option \"skip\"");
        assert_eq!(error("skp=all"), "invalid check option \"skp\" (did you mean skip?)");
        assert!(error("error=perhaps").starts_with("failed to parse check option"));
    }

    #[test]
    fn unknown_names_are_told_with_the_one_that_was_meant() {
        let found = settings("skip=UndefinedVra,undefinedvar;experimental=Nonsense")
            .unknown_names(Span::default());
        let helps: Vec<_> = found.iter().map(|one| one.help.as_deref()).collect();
        let meant = Some("did you mean `UndefinedVar`?");
        assert_eq!(helps, [meant, meant, None]);
        assert!(settings("skip=all;experimental=all").unknown_names(Span::default()).is_empty());
    }

    #[test]
    fn comments_have_settings_too() {
        let skipped = Settings::of_comment("check=skip=UndefinedVar // it is there at run time");
        assert!(!skipped.unwrap().allow("UndefinedVar"));
        assert_eq!(Settings::of_comment("checks the thing = a"), None);
        assert_eq!(Settings::of_comment("check=nonsense"), None);
    }
}
