//! Arguments of the commands that act on steps of past builds, and what names such a step.

use clap::Args;
use rbuild::{BuildError, Container, Engine, EnterOptions, PastStep};

use crate::args::{run, secret, ssh, volume};
use crate::environment::Environment;
use crate::failure::Failure;

/// How steps are named; shown by the help of every command that takes them.
pub const STEPS: &str = "\
Steps of past builds are named
  @failed        the last one that failed
  @last          the last one of the last build
  3              by number, as `rbuild builds ID` lists them
  build:3        number 3 of the stage `build`; also as progress shows it: 'build 3/7'
  ID:3, ID:build:3, ID:failed, ID:last
                 of another build than the last one; `rbuild builds` lists the ids
The last build is the newest, also one that runs or was killed; `rbuild why` tells of the
last one that ended. An @ may stand before any name, and must where a container or an image
could be meant.";

/// Open a shell in a step of a past build.
#[derive(Debug, Args)]
#[command(
    override_usage = "rbuild shell [OPTIONS] [STEP] [-- COMMAND [ARGUMENT…]]",
    after_help = STEPS
)]
pub struct ShellArgs {
    /// The step; without one the last that failed, or else the last one
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// Variable over those of the step; without a value that of the caller
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// User instead of the step's
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Working directory instead of the step's
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Give the step's mount its secret: id=NAME,src=FILE or id=NAME,env=VARIABLE
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// Give the step's mount its agent: default, or NAME=SOCKET|KEY
    #[arg(long, value_name = "AGENT")]
    pub ssh: Vec<String>,
    /// A program instead of a shell
    #[arg(value_name = "COMMAND", last = true)]
    pub command: Vec<String>,
}

impl ShellArgs {
    /// The arguments as the engine wants them. Reads the files of secrets.
    pub fn options(&self, environment: &Environment) -> Result<EnterOptions, Failure> {
        Ok(EnterOptions {
            argv: self.command.clone(),
            env: volume::variables(&[], &self.env, environment)?,
            cwd: self.workdir.as_deref().map(run::workdir).transpose()?.flatten(),
            user: self.user.clone(),
            secrets: secret::read(&self.secret, environment)?,
            ssh: ssh::agents(&self.ssh, environment)?,
        })
    }
}

/// List past builds, or the steps of one.
#[derive(Debug, Args)]
#[command(after_help = STEPS)]
pub struct BuildsArgs {
    /// The beginning of an id: list the build's steps
    #[arg(value_name = "ID")]
    pub build: Option<String>,
    /// `json`, or text with fields such as {{.ID}} {{.Status}} {{.Name}}
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["quiet", "json"])]
    pub format: Option<String>,
    /// Print ids or numbers only
    #[arg(short, long)]
    pub quiet: bool,
    /// One JSON array
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
}

/// What a name means where both may stand.
#[derive(Debug)]
pub enum Subject {
    /// A step of a past build.
    Step(Box<PastStep>),
    /// A container.
    Container(Box<Container>),
}

impl Subject {
    /// A step where the name can be nothing else, and where it is a number that fits no container's
    /// name or id.
    pub fn find(engine: &Engine, name: &str) -> Result<Self, Failure> {
        let step = |name| engine.past_step(name).map(|step| Self::Step(Box::new(step)));
        let container = |name| engine.container(name).map(|it| Self::Container(Box::new(it)));
        if is_step(name) {
            return Ok(step(name)?);
        }
        if !is_number(name) {
            return Ok(container(name)?);
        }
        container(name).or_else(|error| match step(name) {
            Err(BuildError::NoSuchStep { .. }) => Err(error.into()),
            found => Ok(found?),
        })
    }
}

/// Whether a text can be no name of a container, which may have one `/` before it.
fn is_step(name: &str) -> bool {
    name.strip_prefix('/').unwrap_or(name).contains(['@', ':', '/', ' ', '['])
}

/// Whether a text is the number of a step, unless a container or an image is meant.
pub fn is_number(name: &str) -> bool {
    !name.is_empty() && name.len() < 4 && name.bytes().all(|byte| byte.is_ascii_digit())
}
