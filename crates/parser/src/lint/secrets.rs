//! `SecretsUsedInArgOrEnv`.

use rbuild_types::{Diagnostic, Span};

use super::name_of;
use super::rules::SECRETS_USED_IN_ARG_OR_ENV;
use crate::ast::{Instruction, InstructionKind};

/// Words of names that hold secrets.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words of names that do not, whatever else is in them.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

pub(super) fn check(instruction: &Instruction) -> Vec<Diagnostic> {
    let names: Vec<(&str, Span)> = match &instruction.kind {
        InstructionKind::Arg { args } => {
            args.iter().map(|arg| (arg.name.value.as_str(), arg.name.span)).collect()
        }
        InstructionKind::Env { pairs } => {
            pairs.iter().map(|pair| (pair.key.value.as_str(), pair.key.span)).collect()
        }
        _ => return Vec::new(),
    };
    let secrets = names.into_iter().filter(|(name, _)| is_secret(name));
    let found = secrets.map(|(name, span)| {
        let keyword = name_of(instruction);
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        let warning = SECRETS_USED_IN_ARG_OR_ENV.warning(instruction.keyword.span, message);
        warning.label(span, "").help("give it to the step that needs it: RUN --mount=type=secret")
    });
    found.collect()
}

/// Whether a variable of this name probably holds a secret, which nobody is to be shown.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_count() {
        for secret in ["password", "DATABASE_PASSWORD", "api_Key", "AUTH_x", "apikey", "GIT_TOKEN"]
        {
            assert!(is_secret(secret), "{secret}");
        }
        for harmless in ["PUBLIC_KEY", "key_file", "AUTH_VERSION", "KEYBOARD", "monkey", "a", ""] {
            assert!(!is_secret(harmless), "{harmless}");
        }
    }
}
