//! Arguments of the commands that act on containers.

use clap::Args;

/// Start containers that were made, or that have ended.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// Stay, and show what it writes
    #[arg(short, long)]
    pub attach: bool,
    /// Stay, and pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
}

/// Stop running containers.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// Seconds before they are killed; -1 is never
    #[arg(short = 't', long = "timeout", visible_alias = "time", value_name = "SECONDS")]
    #[arg(allow_negative_numbers = true)]
    pub timeout: Option<i64>,
    /// The signal
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
}

/// Send a signal to running containers.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// The signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}

/// Remove containers.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// Kill those that run; a missing one is no error
    #[arg(short, long)]
    pub force: bool,
    /// Remove their anonymous volumes too, which happens in any case
    #[arg(short, long)]
    pub volumes: bool,
}

/// List containers.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// The newest one only, whether it runs or not
    #[arg(short, long)]
    pub latest: bool,
    /// So many of the newest ones, whether they run or not
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub last: Option<usize>,
    /// `json`, or text with fields such as {{.Names}} {{.Status}}
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// One JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Show only containers with name=TEXT, id=TEXT, status=STATUS, health=HEALTH,
    /// label=NAME[=VALUE], ancestor=IMAGE, exited=CODE, before=CONTAINER or since=CONTAINER; may be
    /// repeated
    #[arg(short, long, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Show what a container, or a step of a past build, wrote.
#[derive(Debug, Args)]
#[command(after_help = super::step::STEPS)]
pub struct LogsArgs {
    /// Name or id of a container, or a step of a past build such as @failed
    #[arg(value_name = "CONTAINER|STEP")]
    pub container: String,
    /// Go on until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the last lines; `all` for all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all")]
    pub tail: String,
    /// Not from before this: 10m, 2026-01-31, 2026-01-31T12:00:00Z or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Not from after this
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Show when
    #[arg(short, long)]
    pub timestamps: bool,
}

/// Wait until containers have ended, and print their exit codes.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

/// Attach to a running container.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Pass no standard input on
    #[arg(long)]
    pub no_stdin: bool,
}

/// Give a container another name.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The new name
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Remove all containers that do not run.
#[derive(Debug, Args)]
#[command(override_usage = "rbuild container prune [OPTIONS]")]
pub struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only containers with until=TIME, label=NAME[=VALUE] or label!=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
}
