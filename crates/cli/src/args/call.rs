//! `--call` and `--check`: what is done with the Dockerfile.

use crate::failure::Failure;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which of them.
    pub method: Method,
    /// Whether the answer is a JSON document.
    pub json: bool,
    /// Whether findings leave the exit code alone.
    pub ignore_status: bool,
}

/// The ways to use a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Build it.
    Build,
    /// Say what is wrong with it.
    Check,
    /// Print the graph of its steps.
    Dot,
    /// List these methods.
    Describe,
    /// List what the target takes.
    Outline,
    /// List the stages.
    Targets,
}

/// The methods by name, and what they are for. `lint` is what the frontend calls `check`.
pub const METHODS: [(&str, Method, &str); 7] = [
    ("build", Method::Build, "Build the target"),
    ("check", Method::Check, "Lint a Dockerfile"),
    ("dot", Method::Dot, "Print the graph of a build"),
    ("lint", Method::Check, "Lint a Dockerfile"),
    ("outline", Method::Outline, "List all parameters current build target supports"),
    ("subrequests.describe", Method::Describe, "List available subrequest types"),
    ("targets", Method::Targets, "List all targets current build supports"),
];

impl Call {
    /// Reads `METHOD[,format=json|text][,ignorestatus=BOOL]`; `check` is the flag of that name.
    pub fn parse(text: &str, check: bool) -> Result<Self, Failure> {
        let (mut name, mut json, mut ignore_status) = (None, false, false);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("format", "json")) => json = true,
                Some(("format", "text" | "")) => json = false,
                Some(("format", other)) => {
                    let message = format!("--call: there is no format {other:?}");
                    return Err(Failure::usage_hint(message, "there are text and json"));
                }
                Some(("ignorestatus", value)) => {
                    ignore_status = super::switch::TRUE.contains(&value);
                    if !ignore_status && !super::switch::FALSE.contains(&value) {
                        let message = format!(
                            "--call: ignorestatus={value} is neither true nor \
                                               false"
                        );
                        return Err(Failure::usage(message));
                    }
                }
                Some((key, _)) => {
                    let message = format!("--call: there is no option {key:?}");
                    let hint = "there are format=json and ignorestatus=true";
                    return Err(Failure::usage_hint(message, hint));
                }
                None if name.is_none() => name = Some(field),
                None => return Err(Failure::usage(format!("--call={text} names two methods"))),
            }
        }
        let name = name.unwrap_or("build");
        let found = METHODS.iter().find(|(known, ..)| *known == name);
        let Some((_, mut method, _)) = found.copied() else {
            let known: Vec<&str> = METHODS.iter().map(|(known, ..)| *known).collect();
            let hint = format!("there are {}", known.join(", "));
            return Err(Failure::usage_hint(format!("--call={name} is not supported yet"), hint));
        };
        if check {
            if !matches!(method, Method::Build | Method::Check) {
                let message = format!("--check and --call={name} contradict each other");
                return Err(Failure::usage(message));
            }
            method = Method::Check;
        }
        if json && matches!(method, Method::Build | Method::Dot) {
            return Err(Failure::usage(format!("--call={name} has no format=json")));
        }
        Ok(Self { method, json, ignore_status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, check: bool) -> Call {
        Call::parse(text, check).unwrap()
    }

    fn refused(text: &str, check: bool) -> String {
        match Call::parse(text, check) {
            Err(Failure::Usage { message, .. }) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn check_has_three_spellings() {
        for (text, check) in [("build", true), ("check", false), ("lint", false), ("check", true)] {
            assert_eq!(call(text, check).method, Method::Check);
        }
        assert!(call("check,format=json", false).json);
        assert!(call("format=json", true).json);
        assert!(call("lint,ignorestatus=true", false).ignore_status);
        assert_eq!(call("build", false).method, Method::Build);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(refused("foo", false), "--call=foo is not supported yet");
        assert_eq!(refused("outline", true), "--check and --call=outline contradict each other");
        assert_eq!(refused("check,format=yaml", false), "--call: there is no format \"yaml\"");
        assert_eq!(refused("check,fromat=json", false), "--call: there is no option \"fromat\"");
        assert_eq!(refused("check,targets", false), "--call=check,targets names two methods");
        assert_eq!(refused("dot,format=json", false), "--call=dot has no format=json");
        assert!(refused("check,ignorestatus=maybe", false).ends_with("neither true nor false"));
    }
}
