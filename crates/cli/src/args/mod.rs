//! Arguments: clap's structs, and how a line becomes one of them.

pub mod build;
pub mod first_word;
pub mod global;
pub mod images;
pub mod other_flags;
pub mod output;
pub mod progress;
pub mod prune;
pub mod run;
pub mod secret;
pub mod volume;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::exit_code;
use crate::failure::Failure;

/// Builds images from Dockerfiles and runs containers from them, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    override_usage = "rbuild [build] [OPTIONS] PATH\n       rbuild COMMAND …",
    after_help = "`rbuild -t app .` without a command builds. `rbuild COMMAND --help` says more."
)]
pub struct Args {
    /// Where the store is and how registries are reached.
    #[command(flatten)]
    pub global: global::GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Run a command in a new container
    Run(Box<run::RunArgs>),
    /// List images
    Images(images::ImagesArgs),
    /// Remove images
    Rmi(images::RmiArgs),
    /// Give an image another name
    Tag(images::TagArgs),
    /// Show everything about images as JSON
    Inspect(images::InspectArgs),
    /// Show how an image was made
    History(images::HistoryArgs),
    /// Show what takes space in the store
    Du(prune::DuArgs),
    /// Remove build cache
    Prune(prune::PruneArgs),
    /// Show the version
    Version(images::FormatArgs),
    /// Show where things are and what is in the store
    Info(images::FormatArgs),
}

/// Reads the command line.
pub fn parse(line: Vec<OsString>) -> Result<Args, Failure> {
    let line = first_word::settle(line)?;
    let runs = first_word::of(&line).is_some_and(|at| line[at] == "run");
    let refused = |error| {
        let code = if runs { exit_code::CANNOT_RUN } else { exit_code::FAILURE };
        Failure::Clap { error, code }
    };
    let matches = Args::command().try_get_matches_from(line).map_err(refused)?;
    Args::from_arg_matches(&matches).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_holds_together() {
        Args::command().debug_assert();
    }
}
