//! Arguments: clap's structs, and how a line becomes one of them.

pub mod annotation;
pub mod attest;
pub mod build;
pub mod cache;
pub mod call;
pub mod container;
pub mod context;
pub mod cp;
pub mod diff;
pub mod events;
pub mod exec;
pub mod filter;
pub mod first_word;
pub mod flag_tables;
pub mod fsck;
pub mod global;
pub mod health;
pub mod images;
pub mod layers;
pub mod limits;
pub mod lock;
pub mod login;
pub mod manifest;
pub mod mount;
pub mod network;
pub mod other_flags;
pub mod output;
pub mod privileges;
pub mod progress;
pub mod prune;
pub mod registry;
pub mod remote_cache;
pub mod repro;
pub mod run;
pub mod secret;
pub mod space;
pub mod ssh;
pub mod step;
pub mod surroundings;
pub mod switch;
pub mod tmpfs;
pub mod transfer;
pub mod volume;
pub mod volumes;
pub mod why;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::exit_code;
use crate::failure::Failure;

/// Builds images from Dockerfiles and runs containers from them, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    override_usage = "rbuild [build] [OPTIONS] PATH\n       rbuild COMMAND …",
    after_help = "`rbuild -t app .` without a command builds. `rbuild COMMAND --help` says more."
)]
pub struct Args {
    /// Where the store is and how registries are reached.
    #[command(flatten)]
    pub global: global::GlobalArgs,
    /// Print the version
    #[arg(short = 'v', long, visible_short_alias = 'V', action = clap::ArgAction::Version)]
    pub version: Option<bool>,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What `image prune` is called between the line and clap, which knows commands of one word.
const IMAGE_PRUNE: &str = "image-prune";

/// The same of `container prune`.
const CONTAINER_PRUNE: &str = "container-prune";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Show what instructions take from the build context
    Context(context::ContextArgs),
    /// Write down what the references of a Dockerfile stand for
    Lock(lock::LockArgs),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// Make a container and do not start it
    Create(Box<run::CreateArgs>),
    /// List containers
    Ps(container::PsArgs),
    /// Show what a container, or a step of a past build, wrote
    Logs(container::LogsArgs),
    /// Start containers
    Start(container::StartArgs),
    /// Stop running containers
    Stop(container::StopArgs),
    /// Stop containers and start them again
    Restart(container::StopArgs),
    /// Send a signal to running containers
    Kill(container::KillArgs),
    /// Run a program in a running container, or in a step of a past build
    Exec(exec::ExecArgs),
    /// Open a shell in a step of a past build
    Shell(step::ShellArgs),
    /// List past builds, or the steps of one
    Builds(step::BuildsArgs),
    /// Attach to a running container
    Attach(container::AttachArgs),
    /// Show where a container's ports are to be reached
    Port(network::PortArgs),
    /// Make, list and remove networks of containers
    Network(network::NetworkArgs),
    /// Copy files between a container and the host
    Cp(cp::CpArgs),
    /// Make an image of a container and what it changed
    Commit(container::CommitArgs),
    /// Write a container's root filesystem as a tar
    Export(container::ExportArgs),
    /// Make an image of a root filesystem in a tar
    Import(container::ImportArgs),
    /// Make, list and remove volumes
    Volume(volumes::VolumeArgs),
    /// Show the processes of a container
    Top(container::TopArgs),
    /// Show what containers use
    Stats(container::StatsArgs),
    /// Show what happens, as it happens
    Events(events::EventsArgs),
    /// Hold all processes of running containers
    Pause(container::PauseArgs),
    /// Let the processes of paused containers go on
    Unpause(container::PauseArgs),
    /// Wait until containers have ended
    Wait(container::WaitArgs),
    /// Give a container another name
    Rename(container::RenameArgs),
    /// Change what containers may use
    Update(container::UpdateArgs),
    /// Remove containers
    Rm(container::RmArgs),
    /// Remove all containers that do not run
    #[command(name = CONTAINER_PRUNE, hide = true, display_name = "container prune")]
    ContainerPrune(container::ContainerPruneArgs),
    /// List images
    Images(images::ImagesArgs),
    /// Remove images
    Rmi(images::RmiArgs),
    /// Remove images without a name
    #[command(name = IMAGE_PRUNE, hide = true, display_name = "image prune")]
    ImagePrune(images::ImagePruneArgs),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Show everything about containers or images as JSON
    Inspect(images::InspectArgs),
    /// Show how an image was made
    History(images::HistoryArgs),
    /// Pull images from a registry
    Pull(transfer::PullArgs),
    /// Push images to a registry
    Push(transfer::PushArgs),
    /// Put images for several platforms together under one name
    Manifest(manifest::ManifestArgs),
    /// Write images to an archive
    Save(transfer::SaveArgs),
    /// Load images from an archive or a layout
    Load(transfer::LoadArgs),
    /// Show what the layers of an image hold, and what of it is wasted
    Layers(layers::LayersArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Log out from a registry
    Logout(login::LogoutArgs),
    /// Compare two images or steps of past builds, or show what a container changed
    Diff(diff::DiffArgs),
    /// Build twice under different conditions, and compare
    Repro(Box<repro::ReproArgs>),
    /// Say why steps of the last build ran
    Why(why::WhyArgs),
    /// Look at cache mounts, and carry them elsewhere
    Cache(cache::CacheArgs),
    /// Show what takes space in the store
    Du(prune::DuArgs),
    /// Remove build cache
    Prune(prune::PruneArgs),
    /// Look for damage in the store
    Fsck(fsck::FsckArgs),
    /// Show the version
    Version(images::FormatArgs),
    /// Show where things are and what is in the store
    Info(images::FormatArgs),
}

impl Command {
    /// The images of a registry that the line names.
    pub fn images(&self) -> Vec<String> {
        match self {
            Self::Run(args) => vec![args.new.image.clone()],
            Self::Create(args) => vec![args.new.image.clone()],
            Self::Pull(args) => args.names.clone(),
            Self::Push(args) => vec![args.destination.as_ref().unwrap_or(&args.image).clone()],
            Self::Manifest(args) => args.images(),
            _ => Vec::new(),
        }
    }
}

/// Reads the command line.
pub fn parse(line: Vec<OsString>) -> Result<Args, Failure> {
    let line = first_word::settle(line)?;
    let command = first_word::of(&line).and_then(|at| line[at].to_str());
    let code = match command {
        Some("run" | "create" | "exec" | "shell") => exit_code::CANNOT_RUN,
        Some("diff" | "repro") => exit_code::TROUBLE,
        _ => exit_code::FAILURE,
    };
    let refused = |error| Failure::Clap { error, code };
    let matches = switch::with_values(Args::command())
        .try_get_matches_from(&line)
        .map_err(|error| refused(plainer(error, &line)))?;
    Args::from_arg_matches(&matches).map_err(refused)
}

/// Help shows boolean flags without the value that nearly nobody gives.
fn plainer(error: clap::Error, line: &[OsString]) -> clap::Error {
    let is_help = |error: &clap::Error| error.kind() == ErrorKind::DisplayHelp;
    if !is_help(&error) {
        return error;
    }
    let plain = Args::command().try_get_matches_from(line).err();
    plain.filter(is_help).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Args::command().debug_assert();
        switch::with_values(Args::command()).debug_assert();
    }

    fn refusal(line: &str) -> (String, i32) {
        match parse(line.split(' ').map(OsString::from).collect()) {
            Err(Failure::Clap { error, code }) => (error.render().to_string(), code),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_boolean_flag_of_every_command_takes_a_value() {
        let declared = Args::command();
        let mut count = 0;
        for command in declared.get_subcommands() {
            let name = command.get_name();
            // What the command asks for besides.
            let wanted = command.get_positionals().filter(|arg| arg.is_required_set());
            let rest = " x".repeat(wanted.count());
            for arg in command.get_arguments() {
                let (clap::ArgAction::SetTrue, Some(flag)) = (arg.get_action(), arg.get_long())
                else {
                    continue;
                };
                count += 1;
                for value in ["", "=true", "=false", "=0", "=T"] {
                    let line = format!("rbuild {name} --{flag}{value}{rest}");
                    let parsed = parse(line.split(' ').map(OsString::from).collect());
                    assert!(parsed.is_ok(), "{line}: {parsed:?}");
                }
                let (text, code) = refusal(&format!("rbuild {name} --{flag}=maybe{rest}"));
                assert!(text.contains(&format!("--{flag}")) && text.contains("'maybe'"), "{text}");
                let expected = match name {
                    "run" | "create" | "exec" | "shell" => 125,
                    "diff" | "repro" => 2,
                    _ => 1,
                };
                assert_eq!(code, expected);
            }
        }
        assert!(count > 30, "{count}");
    }

    #[test]
    fn help_shows_flags_without_values_and_run_has_a_host_name() {
        let (help, _) = refusal("rbuild build --help");
        assert!(help.contains("--no-cache  ") && !help.contains("true|false"), "{help}");
        assert!(refusal("rbuild run --help").0.contains("-h, --hostname <NAME>"));
        assert!(refusal("rbuild run -h").0.contains("a value is required for '--hostname"));
        assert!(refusal("rbuild images -h").0.contains("List images"));
        assert!(refusal("rbuild -v").0.starts_with("rbuild "));
    }
}
