//! `--progress`.

use clap::ValueEnum;

use crate::environment::Environment;
use crate::failure::Failure;

/// How a build tells what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// Running steps with their last lines
    Tty,
    /// Every line of every step
    Plain,
    /// The image id only
    Quiet,
    /// Nothing
    None,
    /// One JSON document a line
    Rawjson,
}

impl ProgressMode {
    /// The choice of the command line, else of `BUILDKIT_PROGRESS`.
    pub fn settle(given: Option<Self>, environment: &Environment) -> Result<Self, Failure> {
        match (given, environment.progress()) {
            (Some(mode), _) => Ok(mode),
            (None, None) => Ok(Self::Auto),
            (None, Some(text)) => Self::from_str(text, false).map_err(|_| {
                Failure::usage_hint(
                    format!("BUILDKIT_PROGRESS={text} is no way to show progress"),
                    "there are auto, tty, plain, quiet, none and rawjson",
                )
            }),
        }
    }
}
