//! `rbuild run`: arguments, and their translation into a [`Process`].

use std::path::PathBuf;

use clap::Args;
use rbuild::{ContainerNetwork, Process};

use crate::args::build::PullPolicy;
use crate::args::flag_tables::OfRun;
use crate::args::mount::{self, Mounted};
use crate::args::other_flags::OtherFlags;
use crate::args::volume;
use crate::environment::Environment;
use crate::failure::Failure;

/// Run a command in a new container, in the foreground.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND [ARGUMENT…]]",
    after_help = "The container is removed when it ends. Its network is the host's unless \
                  --network none is given."
)]
pub struct RunArgs {
    /// Remove the container when it ends, which happens in any case
    #[arg(long)]
    pub rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Variable; without `=` taken from the environment; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// File of variables, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Directory, file, named volume or cache mount (cache:ID) to mount: SOURCE:TARGET[:ro]; may be
    /// repeated
    #[arg(short, long, value_name = "VOLUME")]
    pub volume: Vec<String>,
    /// What to mount, in more words: type=bind|volume|tmpfs,source=SOURCE,target=TARGET[,readonly],
    /// where the source of a volume may be cache:ID, with sharing=shared|locked; may be repeated
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Directory in memory; may be repeated
    #[arg(long, value_name = "TARGET")]
    pub tmpfs: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User, `name|uid[:group|gid]`
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Program to run instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Network of the container
    #[arg(long, alias = "net", value_name = "host|none", default_value = "host")]
    pub network: String,
    /// Host name in the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Mount the root filesystem read-only
    #[arg(long)]
    pub read_only: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// When to ask the registry for the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing", hide_possible_values = true)]
    pub pull: PullPolicy,
    /// Write the id of the container to this file, which may not be there yet
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// The image for this platform, which is pulled where another is here
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Say nothing while the image is fetched
    #[arg(short, long)]
    pub quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Flags of Docker that are not here.
    #[command(flatten)]
    pub other: OtherFlags<OfRun>,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Command and arguments instead of the image's own
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

impl RunArgs {
    /// The arguments as the engine wants them. Reads the files of variables.
    pub fn process(&self, environment: &Environment) -> Result<Process, Failure> {
        self.other.settle()?;
        let network = match self.network.as_str() {
            "host" => ContainerNetwork::Host,
            "none" => ContainerNetwork::None,
            other => {
                return Err(Failure::usage_hint(
                    format!("--network {other} is not supported yet"),
                    "there are host and none",
                ));
            }
        };
        let mut volumes =
            self.volume.iter().map(|text| volume::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut tmpfs = self.tmpfs.iter().map(|text| tmpfs(text)).collect::<Result<Vec<_>, _>>()?;
        for text in &self.mount {
            match mount::parse(text)? {
                Mounted::Volume(volume) => volumes.push(volume),
                Mounted::Tmpfs(target) => tmpfs.push(target),
            }
        }
        let env = volume::variables(&self.env_file, &self.env, environment)?;
        let entrypoint = self.entrypoint.as_ref().map(|program| match program.as_str() {
            "" => Vec::new(),
            program => vec![program.to_owned()],
        });
        Ok(Process {
            argv: self.command.clone(),
            entrypoint,
            env,
            cwd: self.workdir.as_deref().map(workdir).transpose()?.flatten(),
            user: self.user.clone(),
            hostname: self.hostname.clone(),
            network,
            volumes,
            tmpfs,
            terminal: self.tty,
            read_only: self.read_only,
        })
    }
}

/// An empty one is the image's.
fn workdir(text: &str) -> Result<Option<String>, Failure> {
    match text {
        "" => Ok(None),
        text if text.starts_with('/') => Ok(Some(text.to_owned())),
        text => Err(Failure::usage_hint(
            format!("--workdir {text}: the working directory is not an absolute path"),
            format!("give the whole path, such as /{text}"),
        )),
    }
}

fn tmpfs(text: &str) -> Result<String, Failure> {
    match text.split_once(':') {
        None if text.starts_with('/') => Ok(text.to_owned()),
        None => Err(Failure::usage(format!("--tmpfs {text}: not an absolute path"))),
        Some(_) => Err(Failure::usage_hint(
            format!("--tmpfs {text}: options are not supported yet"),
            "give the path alone",
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;
    use crate::args::switch;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn run(line: &str) -> RunArgs {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let matches = switch::with_values(Line::command()).try_get_matches_from(words).unwrap();
        Line::from_arg_matches(&matches).unwrap().run
    }

    #[test]
    fn flags_behind_the_image_belong_to_the_command() {
        let run = run("--rm -it -e A=1 busybox sh -c -e --rm");
        assert!(run.rm && run.interactive && run.tty);
        assert_eq!(run.image, "busybox");
        assert_eq!(run.command, ["sh", "-c", "-e", "--rm"]);
        assert_eq!(run.env, ["A=1"]);
    }

    #[test]
    fn the_last_of_a_flag_counts() {
        let run = run("--rm --tty --tty=false -it=true --rm=false -h a -h b x");
        assert_eq!((run.rm, run.tty, run.interactive), (false, true, true));
        assert_eq!(run.hostname.as_deref(), Some("b"));
    }

    fn refused(line: &str) -> String {
        match run(line).process(&Environment::default()) {
            Err(Failure::Usage { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_working_directory_is_absolute() {
        let cwd = |line: &str| run(line).process(&Environment::default()).unwrap().cwd;
        assert_eq!(cwd("-w /a x").as_deref(), Some("/a"));
        assert_eq!(cwd("--workdir= x"), None);
        assert!(refused("-w rel x").starts_with("--workdir rel: "));
        assert!(refused("-w ./a x").contains("not an absolute path"));
    }

    #[test]
    fn an_empty_entrypoint_takes_the_images_away() {
        let process = run("--entrypoint= x").process(&Environment::default()).unwrap();
        assert_eq!(process.entrypoint, Some(Vec::new()));
    }
}
