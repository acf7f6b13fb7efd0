//! `rbuild exec`: arguments, and their translation into [`ExecOptions`].

use std::path::PathBuf;

use clap::Args;
use rbuild::{EnterOptions, ExecOptions};

use crate::args::flag_tables::OfExec;
use crate::args::other_flags::OtherFlags;
use crate::args::{run, volume};
use crate::environment::Environment;
use crate::failure::Failure;

/// Run a program in a running container, or in a step of a past build.
#[derive(Debug, Args)]
#[command(
    override_usage = "rbuild exec [OPTIONS] CONTAINER|STEP COMMAND [ARGUMENT…]",
    after_help = "Without --detach the program ends with this command. What it started besides \
                  lives on in the container. In a step it is alone, with what `rbuild shell --help` \
                  says."
)]
pub struct ExecArgs {
    /// Leave the program behind in the container; nobody sees what it writes
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Variable, besides the container's; without `=` taken from the environment; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// File of variables, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// All capabilities, whatever the container has
    #[arg(long)]
    pub privileged: bool,
    /// User, `name|uid[:group|gid]`, instead of the container's
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Working directory instead of the container's
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfExec>,
    /// Name or id of a container, or a step of a past build such as @failed
    #[arg(value_name = "CONTAINER|STEP")]
    pub container: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true)]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

impl ExecArgs {
    /// The same for a step of a past build.
    pub fn step_options(&self, environment: &Environment) -> Result<EnterOptions, Failure> {
        if self.detach || self.privileged {
            return Err(Failure::usage_hint(
                "a step can be entered neither with --detach nor with --privileged",
                "those are for containers that run",
            ));
        }
        let ExecOptions { argv, env, cwd, user, .. } = self.options(environment)?;
        Ok(EnterOptions { argv, env, cwd, user, ..EnterOptions::default() })
    }

    /// The arguments as the engine wants them. Reads the files of variables.
    pub fn options(&self, environment: &Environment) -> Result<ExecOptions, Failure> {
        self.other.settle()?;
        Ok(ExecOptions {
            argv: self.command.clone(),
            env: volume::variables(&self.env_file, &self.env, environment)?,
            cwd: self.workdir.as_deref().map(run::workdir).transpose()?.flatten(),
            user: self.user.clone(),
            privileged: self.privileged,
        })
    }
}
