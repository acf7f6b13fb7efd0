//! `rbuild why`: arguments.

use clap::Args;

use crate::failure::Failure;

/// Say why steps of the last build ran.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A step by its number in the list, or a part of its name: everything that differed
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// `json` for one document with everything
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

impl WhyArgs {
    /// Whether JSON is asked for.
    pub fn is_json(&self) -> Result<bool, Failure> {
        match self.format.as_deref() {
            None => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(Failure::usage_hint(
                format!("--format {other} is not supported"),
                "there is --format json",
            )),
        }
    }
}
