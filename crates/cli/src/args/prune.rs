//! Arguments of `du` and `prune`.

use clap::Args;

/// Show what takes space in the store.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Also each snapshot, record and blob
    #[arg(short, long)]
    pub verbose: bool,
}

/// Remove build cache that no image uses.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also images without a name, and everything that can be had again
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}
