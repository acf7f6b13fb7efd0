//! The `rbuild` command: parse, run, report, exit. Nothing else happens here.
//!
//! Data goes to standard output, everything said to people goes to standard error.

mod args;
mod commands;
mod environment;
mod exit_code;
mod failure;
mod human;
mod interrupt;
mod layers_report;
mod listing;
mod machine_registries;
mod output;
mod progress;
mod report;
mod sys;
mod table;
mod template;

use std::process::ExitCode;

use environment::Environment;

fn main() -> ExitCode {
    // Steps run in this program started once more; that start never comes back from here.
    rbuild::sandbox_main();
    let environment = Environment::read();
    output::choose_colours(&environment);
    let outcome = args::parse(std::env::args_os().collect())
        .and_then(|args| commands::run(args, &environment));
    match outcome {
        Ok(code) => exit_code::of(code),
        Err(failure) => exit_code::of(report::failure(&failure)),
    }
}
