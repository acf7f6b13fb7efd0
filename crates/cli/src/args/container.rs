//! Arguments of the commands that act on containers.

use clap::Args;
use rbuild::ContainerUpdate;

use crate::args::flag_tables::OfUpdate;
use crate::args::limits::{CountArgs, ResourceArgs};
use crate::args::other_flags::OtherFlags;
use crate::args::run;
use crate::failure::Failure;

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
    /// Keys that leave the container alone, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
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
    /// Keys that leave the container alone, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
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

/// Change what containers may use, now if they run, and when they are started again.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// What may be used.
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// What else may be used.
    #[command(flatten)]
    pub counts: CountArgs,
    /// When they are started again when they end: no, on-failure[:COUNT], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfUpdate>,
}

impl UpdateArgs {
    /// The arguments as the engine wants them.
    pub fn changes(&self) -> Result<ContainerUpdate, Failure> {
        self.other.settle()?;
        let resources = self.counts.add_to(self.resources.given()?)?;
        // What is written for a limit cannot say that there is none.
        if self.counts.pids_limit.is_some_and(|limit| limit <= 0) {
            return Err(Failure::usage_hint(
                "--pids-limit: a limit can be changed, and not be taken away",
                "give a large one",
            ));
        }
        let restart = self.restart.as_deref().map(run::restart).transpose()?;
        Ok(ContainerUpdate { resources, restart })
    }
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

/// Show the processes of a running container, with their numbers on the host.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Options of ps(1), of which there are -ef and -o COLUMN[,…] with columns such as pid, ppid,
    /// user, pcpu, rss, time, comm and args
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// Show what containers use, again and again.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Names or ids; all that run when not given
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Only once
    #[arg(long)]
    pub no_stream: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// `json`, or text with fields such as {{.Name}} {{.CPUPerc}}
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Hold all processes of containers, or let them go on.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

/// Make an image of a container and what it changed.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// What the image is called
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Who made it
    #[arg(short, long, value_name = "AUTHOR", default_value = "", hide_default_value = true)]
    pub author: String,
    /// Whether it is paused meanwhile
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", hide_default_value = true,
          action = clap::ArgAction::Set, value_parser = super::switch::parse)]
    pub pause: bool,
    /// Do not pause it
    #[arg(long)]
    pub no_pause: bool,
    /// What changes for containers of it.
    #[command(flatten)]
    pub words: ChangeArgs,
}

/// What is said of an image that is made by hand.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Instruction of a Dockerfile for the image's config, such as CMD ["x"]; may be repeated
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// What is said of it in the history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
}

/// Write a container's root filesystem as a tar.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The file; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<std::path::PathBuf>,
}

/// Make an image of a root filesystem in a tar.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The tar, compressed or not; `-` is standard input
    #[arg(value_name = "FILE|-")]
    pub file: String,
    /// What the image is called
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// What the image is for; this machine's platform when not given
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// What the image's config says.
    #[command(flatten)]
    pub words: ChangeArgs,
}
