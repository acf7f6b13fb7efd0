//! `rbuild run` and `create`: arguments, and their translation into [`ContainerOptions`].

use std::path::PathBuf;

use clap::Args;
use rbuild::logs::LogOptions;
use rbuild::{
    Connection, ContainerNetwork, ContainerOptions, DEFAULT_NETWORK, Dns, ExtraHost, Membership,
    Process, Restart,
};

use crate::args::build::PullPolicy;
use crate::args::flag_tables::OfRun;
use crate::args::health::HealthArgs;
use crate::args::limits::ContainerLimitArgs;
use crate::args::mount::{self, Mounted};
use crate::args::other_flags::OtherFlags;
use crate::args::privileges::PrivilegeArgs;
use crate::args::surroundings::SurroundingArgs;
use crate::args::{tmpfs, transfer, volume};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output;

/// Run a command in a new container.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "rbuild run [OPTIONS] IMAGE [COMMAND [ARGUMENT…]]"
)]
pub struct RunArgs {
    /// Run in the background, and print the id
    #[arg(short, long)]
    pub detach: bool,
    /// Keys that leave the container alone, instead of ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// What is run, and how.
    #[command(flatten)]
    pub new: NewArgs,
}

/// Make a container and do not start it.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "rbuild create [OPTIONS] IMAGE [COMMAND [ARGUMENT…]]"
)]
pub struct CreateArgs {
    /// What is run, and how.
    #[command(flatten)]
    pub new: NewArgs,
}

/// A new container.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// Start it again when it ends: no, on-failure[:COUNT], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub restart: String,
    /// Label; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// File of labels, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Signal that stops it, instead of the image's or SIGTERM
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds that it may take to stop before it is killed; -1 is for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 10, allow_negative_numbers = true)]
    pub stop_timeout: i64,
    /// How output is kept: json-file, or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    pub log_driver: String,
    /// max-size=BYTES or max-file=COUNT; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub log_opt: Vec<String>,
    /// How its health is checked.
    #[command(flatten)]
    pub health: HealthArgs,
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
    /// where the source of a volume may be cache:ID, with sharing=shared|locked, and a tmpfs may
    /// have tmpfs-size= and tmpfs-mode=; may be repeated
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Directory in memory: TARGET[:OPTIONS], where options are size=, mode=, uid=, gid=, nr_inodes=,
    /// ro, exec and suid; may be repeated
    #[arg(long, value_name = "TMPFS")]
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
    /// Network of the container: bridge, host, none or one of yours; may be repeated. Without it
    /// RBUILD_NETWORK says, or it is bridge
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// By which name others find the container on its networks, besides its own; may be repeated
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Address that it is to have
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<std::net::IpAddr>,
    /// Publish a port: [[ADDRESS:]HOST_PORT:]PORT[/udp], where ports may be ranges; may be repeated
    #[arg(short, long, value_name = "PORT")]
    pub publish: Vec<String>,
    /// Publish all ports that the image exposes, each at a free port
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Port that the container listens on, which -P publishes too; may be repeated
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Name in /etc/hosts: NAME:ADDRESS, where ADDRESS may be `host-gateway`; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Name server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// Domain in which short names are looked for; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Option in resolv.conf; may be repeated
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// What it finds around it.
    #[command(flatten)]
    pub surroundings: SurroundingArgs,
    /// What it may use.
    #[command(flatten)]
    pub limits: ContainerLimitArgs,
    /// What it may do.
    #[command(flatten)]
    pub privileges: PrivilegeArgs,
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

impl NewArgs {
    /// The arguments as the engine wants them. Reads the files of variables and labels.
    pub fn options(&self, environment: &Environment) -> Result<ContainerOptions, Failure> {
        self.other.settle()?;
        let restart = restart(&self.restart)?;
        if self.rm && restart != Restart::No {
            return Err(Failure::usage_hint(
                "--rm and --restart exclude each other",
                "leave one of them out",
            ));
        }
        Ok(ContainerOptions {
            name: self.name.clone(),
            pull: self.pull.into(),
            platform: transfer::platform(self.platform.as_deref())?,
            process: self.process(environment)?,
            exposed: self.expose.clone(),
            auto_remove: self.rm,
            restart,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            log: log_options(&self.log_driver, &self.log_opt)?,
            health: self.health.config()?,
            labels: volume::labels(&self.label_file, &self.label)?,
            ..ContainerOptions::new(&self.image)
        })
    }

    fn process(&self, environment: &Environment) -> Result<Process, Failure> {
        let network = self.network(environment)?;
        let hosts = self.add_host.iter().map(|text| {
            text.parse().map_err(|error| Failure::usage(format!("--add-host: {error}")))
        });
        let hosts = hosts.collect::<Result<Vec<ExtraHost>, Failure>>()?;
        let mut volumes =
            self.volume.iter().map(|text| volume::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let mut tmpfs =
            self.tmpfs.iter().map(|text| tmpfs::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for text in &self.mount {
            match mount::parse(text)? {
                Mounted::Volume(volume) => volumes.push(volume),
                Mounted::Tmpfs(mounted) => tmpfs.push(mounted),
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
            hostname: self.surroundings.hostname.clone(),
            network,
            dns: Dns {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            hosts,
            volumes,
            tmpfs,
            terminal: self.tty,
            open_stdin: self.interactive,
            read_only: self.read_only,
            resources: self.limits.resources()?,
            ulimits: self.limits.limits.ulimits()?,
            shm_size: self.limits.limits.shm_size()?,
            oom_score_adj: self.limits.oom_score_adj,
            privileges: self.privileges.privileges()?,
            init: self.surroundings.init,
            sysctls: self.surroundings.sysctls()?,
            domainname: self.surroundings.domainname.clone().unwrap_or_default(),
            shared: self.surroundings.shared()?,
        })
    }
}

impl NewArgs {
    /// `--network` and what belongs to it.
    fn network(&self, environment: &Environment) -> Result<ContainerNetwork, Failure> {
        let default = || environment.get("RBUILD_NETWORK").filter(|name| !name.is_empty());
        let mut names = self.network.clone();
        if names.is_empty() {
            names.push(default().unwrap_or(DEFAULT_NETWORK).to_owned());
        }
        let alone = match names.as_slice() {
            [name] if name == "host" => Some(ContainerNetwork::Host),
            [name] if name == "none" => Some(ContainerNetwork::None),
            _ => None,
        };
        if let Some(network) = alone {
            let given =
                [("--network-alias", !self.network_alias.is_empty()), ("--ip", self.ip.is_some())];
            if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
                return Err(Failure::usage_hint(
                    format!("{flag} needs a network of the container's own"),
                    format!("leave it out, or --network {}", names.concat()),
                ));
            }
            if !self.publish.is_empty() || self.publish_all {
                // As Docker does.
                output::note(&format!(
                    "published ports are discarded with --network {}",
                    names.concat()
                ));
            }
            return Ok(network);
        }
        if let Some(name) = names.iter().find(|name| ["host", "none"].contains(&name.as_str())) {
            return Err(Failure::usage_hint(
                format!("--network {name} excludes other networks"),
                "give one of them alone",
            ));
        }
        let memberships = names.into_iter().enumerate().map(|(at, network)| Membership {
            network,
            aliases: self.network_alias.clone(),
            address: self.ip.filter(|_| at == 0),
        });
        Ok(ContainerNetwork::Connected(Connection {
            networks: memberships.collect(),
            ports: self.publish.clone(),
            publish_all: self.publish_all,
        }))
    }
}

/// `--restart`, in Docker's grammar.
pub fn restart(text: &str) -> Result<Restart, Failure> {
    let (policy, count) = match text.split_once(':') {
        Some((policy, count)) => (policy, Some(count)),
        None => (text, None),
    };
    let limit = count.map(str::parse::<u32>).transpose();
    match (policy, limit) {
        ("on-failure", Ok(limit)) => Ok(Restart::OnFailure { limit: limit.filter(|it| *it > 0) }),
        ("no" | "", Ok(None)) => Ok(Restart::No),
        ("always", Ok(None)) => Ok(Restart::Always),
        ("unless-stopped", Ok(None)) => Ok(Restart::UnlessStopped),
        _ => Err(Failure::usage_hint(
            format!("--restart {text}: there is no such policy"),
            "there are no, on-failure[:COUNT], always and unless-stopped",
        )),
    }
}

/// `--log-driver` and `--log-opt`.
fn log_options(driver: &str, options: &[String]) -> Result<LogOptions, Failure> {
    let mut log = LogOptions::default();
    match driver {
        "json-file" | "local" | "" => {}
        "none" => log.keep = false,
        driver => {
            return Err(Failure::usage_hint(
                format!("--log-driver {driver} is not supported yet"),
                "there are json-file and none",
            ));
        }
    }
    for option in options {
        let wrong = |why: &str| Failure::usage(format!("--log-opt {option}: {why}"));
        match option.split_once('=') {
            Some(("max-size", "-1")) => log.max_size = None,
            Some(("max-size", size)) => match rbuild::ram_in_bytes(size) {
                Some(size) if size > 0 => log.max_size = Some(size),
                _ => return Err(wrong("not a size such as 10m")),
            },
            Some(("max-file", count)) => match count.parse() {
                Ok(count @ 1..) => log.max_files = count,
                _ => return Err(wrong("not a count of 1 or more")),
            },
            _ => return Err(wrong("there are max-size and max-file")),
        }
    }
    if log.max_files > 1 && log.max_size.is_none() {
        return Err(Failure::usage_hint(
            "--log-opt max-file needs max-size",
            "add --log-opt max-size=10m",
        ));
    }
    Ok(log)
}

/// An empty one is the image's.
pub fn workdir(text: &str) -> Result<Option<String>, Failure> {
    match text {
        "" => Ok(None),
        text if text.starts_with('/') => Ok(Some(text.to_owned())),
        text => Err(Failure::usage_hint(
            format!("--workdir {text}: the working directory is not an absolute path"),
            format!("give the whole path, such as /{text}"),
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

    fn run(line: &str) -> NewArgs {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let matches = switch::with_values(Line::command()).try_get_matches_from(words).unwrap();
        Line::from_arg_matches(&matches).unwrap().run.new
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
        assert_eq!(run.surroundings.hostname.as_deref(), Some("b"));
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
    fn policies_and_logs_are_dockers() {
        let options = |line: &str| run(line).options(&Environment::default()).unwrap();
        let limited = Restart::OnFailure { limit: Some(3) };
        assert_eq!(options("--restart on-failure:3 x").restart, limited);
        assert_eq!(options("--restart=always x").restart, Restart::Always);
        let log = options("--log-opt max-size=10k --log-opt max-file=3 x").log;
        assert_eq!((log.max_size, log.max_files, log.keep), (Some(10 << 10), 3, true));
        assert!(!options("--log-driver none x").log.keep);
        for line in [
            "--restart sometimes x",
            "--restart always:3 x",
            "--rm --restart always x",
            "--log-opt max-file=2 x",
            "--log-opt colour=red x",
            "--log-driver syslog x",
        ] {
            assert!(run(line).options(&Environment::default()).is_err(), "{line}");
        }
    }

    #[test]
    fn an_empty_entrypoint_takes_the_images_away() {
        let process = run("--entrypoint= x").process(&Environment::default()).unwrap();
        assert_eq!(process.entrypoint, Some(Vec::new()));
    }
}
