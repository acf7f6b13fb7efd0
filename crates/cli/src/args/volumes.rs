//! Arguments of `rbuild volume`.

use clap::{Args, Subcommand};

use super::flag_tables::OfVolumeCreate;
use super::other_flags::OtherFlags;

/// Volumes, which outlive the containers that use them.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "The cache mounts of builds are volumes too, named cache:ID; `rbuild cache` does \
                  more with them. Volumes without a name lie beside their container and go with it."
)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything about volumes as JSON
    Inspect(InspectArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove volumes that no container uses
    Prune(PruneArgs),
}

/// Make a volume.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name; a random one when not given
    #[arg(value_name = "NAME", conflicts_with = "old_name")]
    pub name: Option<String>,
    /// The name, as older scripts have it
    #[arg(long = "name", value_name = "NAME", hide = true)]
    pub old_name: Option<String>,
    /// Label; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// `local` is all there is
    #[arg(short, long, value_name = "DRIVER", default_value = "local", hide = true)]
    pub driver: String,
    /// Known, and not honoured.
    #[command(flatten)]
    pub other: OtherFlags<OfVolumeCreate>,
}

/// List volumes.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
    /// `json`, or text with fields such as {{.Name}} {{.Mountpoint}}
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// One JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Show only volumes with name=TEXT, label=NAME[=VALUE], driver=local|cache or
    /// dangling=true|false (whether no container uses it; never a cache mount); may be repeated
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Show everything about volumes as JSON.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
    /// Text with fields such as {{.Mountpoint}}
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Remove volumes.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
    /// A missing one is no error
    #[arg(short, long)]
    pub force: bool,
}

/// Remove volumes that no container uses.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Also those that have a name of their own; cache mounts stay
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only volumes with label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}
