//! The project's chores, run as `cargo xtask COMMAND`: every file here is one of them or one
//! thing that several of them need.
//!
//! Nothing here is part of the engine. Base images, stores and logs are kept under `target/`;
//! whatever a command starts, it stops, by process id, also when it fails.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program talks")]

mod exchange;
mod failure;

mod acceptance;
mod bench;
mod cases;
mod containers;
mod demo;
mod fuzz;
mod repro;
mod space;
mod test;
mod torture;

mod args;
mod bases;
mod command;
mod http;
mod layout;
mod leftovers;
mod neighbour;
mod packages;
mod paths;
mod peers;
mod random;
mod rbuild;
mod registries;
mod registry;
mod service;
mod steps;
mod sys;

use std::process::ExitCode;

use args::Args;
use failure::Outcome;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test                        everything a developer runs: format, lints, tests, licences, cases
  demo                        builds examples/hello twice, runs it, says what to try next
  acceptance                  a classic Flask image, through every tool that takes images
  bench [NAME…]               rbuild beside buildah and Docker's BuildKit; `bench list` names them
        [--runs N] [--peers rbuild,docker,buildah,podman] [--json FILE]
  cases [own|public|all] [CASE…]
                              the shared Dockerfile cases, where they are at hand
  containers [PART…] [--cycles N] [--kills N] [--crowd N] [--seed N]
                              a web application, a database, starts and stops, kills, a crowd
  fuzz [--seconds N] [--seed N]
                              tries what reads text of strangers on as many inputs as fit
  space [--builds N] [--mib N] [--seed N]
                              random builds in a store that must stay below a limit
  repro                       the examples are the same bytes twice, and in two stores
  torture [--kills N] [--seed N]
                              kills builds at random moments and looks for what is left
  bases                       makes the base images that the other commands use
  packages [--install]        lists, or installs, the Debian packages that are missing

Environment: RBUILD_BIN names a program to use instead of building one.";

fn main() -> ExitCode {
    let mut args = Args::from_env();
    match dispatch(&mut args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &mut Args) -> Outcome {
    match args.positional().as_deref() {
        Some("test") => test::run(args),
        Some("containers") => containers::run(args),
        Some("demo") => demo::run(args),
        Some("acceptance") => acceptance::run(args),
        Some("bench") => bench::run(args),
        Some("cases") => cases::run(args),
        Some("fuzz") => fuzz::run(args),
        Some("repro") => repro::run(args),
        Some("space") => space::run(args),
        Some("torture") => torture::run(args),
        Some("bases") => bases::run(args),
        Some("packages") => packages::run(args),
        Some("help" | "-h" | "--help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => failure::fail(format!("no command `{other}`\n{USAGE}")),
        None => failure::fail(format!("which command?\n{USAGE}")),
    }
}
