//! Arguments of `fsck`.

use clap::Args;

/// Read everything in the store and compare it with what was recorded.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 when something is damaged, also when it was repaired. Cache that is \
                  damaged is made anew by the next build; of an image that is damaged, the words \
                  behind it say how to get it back."
)]
pub struct FsckArgs {
    /// Remove damaged cache and put records right; images stay as they are
    #[arg(long)]
    pub repair: bool,
    /// `json`, or text with fields such as {{.Subject}}: {{.Problem}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}
