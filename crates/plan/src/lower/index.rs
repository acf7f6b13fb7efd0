//! Whether a build makes an index, and how its steps then say which platform they are for.

use rbuild_types::{Diagnostic, Platform, Span};

use super::environment::Variables;
use crate::options::Options;

/// The build argument that asks for an index around a single image too.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// Several platforms make an index, and so does one when the build argument says so.
pub(super) fn is_index(options: &Options) -> Result<bool, Diagnostic> {
    let several = super::platforms(options).len() > 1;
    let given = options.build_args.get(MULTI_PLATFORM).filter(|value| !value.is_empty());
    let error = |message: String| Diagnostic::error("multi-platform", Span::default(), message);
    match given.map(|value| (value, truth(value))) {
        None => Ok(several),
        Some((_, Some(false))) if several => {
            let message = "conflicting config: returning multiple target platforms is not allowed";
            Err(error(message.to_owned())
                .help(format!("ask for one platform, or leave {MULTI_PLATFORM} out")))
        }
        Some((_, Some(asked))) => Ok(asked),
        Some((value, None)) => {
            Err(error(format!("invalid boolean value for multi-platform: {value}"))
                .help(format!("{MULTI_PLATFORM} is 1 or 0")))
        }
    }
}

/// Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What stands in front of a step's stage: the platform that the stage is for, and behind an arrow
/// the one that it makes programs for, as far as its variables tell: `linux/amd64->arm64 `.
pub(super) fn prefix(platform: &Platform, variables: &Variables) -> String {
    let made_for = match target_of(platform, variables) {
        Some(target) if target.os != platform.os => format!("->{target}"),
        Some(target) if target.architecture != platform.architecture => {
            let variant = target.variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("->{}{variant}", target.architecture)
        }
        _ => String::new(),
    };
    format!("{platform}{made_for} ")
}

/// The target that a stage knows of because it declared one of its variables.
fn target_of(platform: &Platform, variables: &Variables) -> Option<Platform> {
    let get = |name: &str| variables.get(name);
    if let Some(target) = get("TARGETPLATFORM").and_then(|text| text.parse().ok()) {
        return Some(target);
    }
    let (os, architecture, variant) = (get("TARGETOS"), get("TARGETARCH"), get("TARGETVARIANT"));
    os.or(architecture).or(variant)?;
    let or = |given: Option<&str>, own: &str| {
        given.filter(|text| !text.is_empty()).unwrap_or(own).to_owned()
    };
    let (os, architecture) = (or(os, &platform.os), or(architecture, &platform.architecture));
    Some(Platform::normalised(&os, &architecture, variant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_say_what_they_run_on_and_what_they_make() {
        let shown = |platform: &str, variables: &[(&str, &str)]| {
            let mut known = Variables::default();
            for (name, value) in variables {
                known.set(name, value);
            }
            prefix(&platform.parse().unwrap(), &known)
        };
        assert_eq!(shown("linux/arm/v7", &[]), "linux/arm/v7 ");
        assert_eq!(shown("linux/amd64", &[("TARGETARCH", "arm64")]), "linux/amd64->arm64 ");
        assert_eq!(shown("linux/amd64", &[("TARGETARCH", "amd64")]), "linux/amd64 ");
        assert_eq!(
            shown("linux/amd64", &[("TARGETARCH", "arm"), ("TARGETVARIANT", "v6")]),
            "linux/amd64->arm/v6 "
        );
        assert_eq!(
            shown("linux/amd64", &[("TARGETPLATFORM", "windows/amd64")]),
            "linux/amd64->windows/amd64 "
        );
        assert_eq!(shown("linux/amd64", &[("TARGETOS", "darwin")]), "linux/amd64->darwin/amd64 ");
        assert_eq!(shown("linux/amd64", &[("TARGETOS", "")]), "linux/amd64 ");
    }
}
