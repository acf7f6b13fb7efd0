//! Build checks that need values of global arguments: those about `FROM`.

use rbuild_parser::ast::{Dockerfile, Stage, Text};
use rbuild_parser::lint::rules::{
    FROM_PLATFORM_FLAG_CONST_DISALLOWED, INVALID_DEFAULT_ARG_IN_FROM, REDUNDANT_TARGET_PLATFORM,
};
use rbuild_types::{Diagnostic, Platform, Reference};

use super::environment::{self, Globals};
use crate::options::Options;

const TARGETPLATFORM: &str = "TARGETPLATFORM";

/// `FROM --platform`: what says what is so anyway, and what says one platform for ever.
pub(super) fn platform(stage: &Stage, escape: char, globals: &Globals) -> Option<Diagnostic> {
    let text = stage.platform.as_ref()?;
    let value = globals.expand(text, escape).ok()?.text;
    let names = environment::names_in(&text.value, escape, &globals.variables);
    if names.is_empty() {
        return constant(stage, text, &value);
    }
    let only_target = names.len() == 1 && names.contains(TARGETPLATFORM);
    if !only_target || globals.variables.get(TARGETPLATFORM) != Some(value.as_str()) {
        return None;
    }
    let message = format!(
        "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
        text.value
    );
    Some(REDUNDANT_TARGET_PLATFORM.warning(text.span, message))
}

/// A stage whose name holds its system or processor is meant to be for that one.
fn constant(stage: &Stage, text: &Text, value: &str) -> Option<Diagnostic> {
    let platform: Platform = value.parse().ok()?;
    let name = stage.name.as_ref().map_or("", |name| name.value.as_str());
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return None;
    }
    let message = format!("FROM --platform flag should not use constant value {value:?}");
    Some(FROM_PLATFORM_FLAG_CONST_DISALLOWED.warning(text.span, message))
}

/// Base names that are none when no build argument is given.
pub(super) fn defaults(
    dockerfile: &Dockerfile,
    options: &Options,
    platform: &Platform,
    target: usize,
) -> Vec<Diagnostic> {
    let plain = Options { build_args: Default::default(), ..options.clone() };
    // What is wrong here is wrong with build arguments too, and told of there.
    let Ok(globals) = Globals::new(dockerfile, &plain, platform, target) else { return Vec::new() };
    let mut found = Vec::new();
    for stage in &dockerfile.stages {
        let Ok(name) = globals.expand(&stage.base, dockerfile.directives.escape) else { break };
        if name.text.parse::<Reference>().is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base.value
            );
            found.push(INVALID_DEFAULT_ARG_IN_FROM.warning(stage.base.span, message));
        }
    }
    found
}
