//! `cargo xtask containers`: containers as people use them, and as nobody should have to: a web
//! application and a database, a hundred starts and stops, kills at random moments, a crowd.
//!
//! All of it happens in a network namespace of its own, so that ports are free and the host's
//! devices and rules are nobody's business. What needs the world outside, building the images, comes
//! before.

mod application;
mod crowd;
mod cycles;
mod database;
mod kills;
mod place;

use std::path::PathBuf;

use crate::args::Args;
use crate::command::Cmd;
use crate::failure::{Outcome, ensure, fail};
use crate::packages::{self, BASES, PEERS, TESTS};
use crate::paths;
use crate::rbuild::Rbuild;

use place::Place;

/// Starts and stops, kills, and containers at once, unless `--cycles`, `--kills` and `--crowd` say
/// otherwise.
const CYCLES: u64 = 100;
const KILLS: u64 = 100;
const CROWD: u64 = 100;

/// What is held, in this order.
const PARTS: [&str; 5] = ["application", "database", "cycles", "kills", "crowd"];

/// `cargo xtask containers [PART…] [--cycles N] [--kills N] [--crowd N] [--seed N]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let inside = args.value("--inside")?;
    let cycles = args.number("--cycles")?.unwrap_or(CYCLES);
    let kills = args.number("--kills")?.unwrap_or(KILLS);
    let crowd = args.number("--crowd")?.unwrap_or(CROWD);
    let seed = args.number("--seed")?.unwrap_or_else(|| u64::from(std::process::id()));
    let mut parts = args.words()?;
    if let Some(part) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return fail(format!("no part `{part}`; there are {}", PARTS.join(", ")));
    }
    if parts.is_empty() {
        parts = PARTS.map(str::to_owned).to_vec();
    }
    let Some(inside) = inside else {
        let numbers =
            [("--cycles", cycles), ("--kills", kills), ("--crowd", crowd), ("--seed", seed)];
        return prepare_and_enter(&parts, &numbers);
    };
    let place = Place::new(PathBuf::from(inside))?;
    for part in &parts {
        println!("\n==> {part}");
        let held = match part.as_str() {
            "application" => application::hold(&place),
            "database" => database::hold(&place),
            "cycles" => cycles::hold(&place, cycles),
            "kills" => kills::hold(&place, kills, seed),
            _ => crowd::hold(&place, crowd),
        };
        if held.is_err() {
            place.remove_all()?;
        }
        held?;
        place.nothing_is_left()?;
    }
    println!("\ncontainers: everything held, and nothing is left");
    Ok(())
}

/// Builds the images where the world can be reached, and goes on in a namespace.
fn prepare_and_enter(parts: &[String], numbers: &[(&str, u64)]) -> Outcome {
    ensure(packages::is_root(), || "containers have networks of their own: it needs root".into())?;
    packages::ensure_installed(&[BASES, TESTS, PEERS].concat())?;
    let dir = paths::fresh("containers")?;
    let program = Rbuild::release(dir.join("store"))?.program;
    // By its copy, a process of ours is told from any other that runs the same program.
    fs_err::create_dir_all(dir.join("bin"))?;
    fs_err::copy(program, dir.join("bin/rbuild"))?;
    let place = Place::new(dir.clone())?;
    place.rbuild.build_busybox()?;
    if parts.iter().any(|part| part == "application") {
        application::prepare(&place)?;
    }
    if parts.iter().any(|part| part == "database") {
        database::prepare(&place)?;
    }
    let own = std::env::current_exe()?;
    let mut again = Cmd::new(own).arg("containers").arg("--inside").arg(&dir).args(parts);
    for (name, number) in numbers {
        again = again.arg(name).arg(number.to_string());
    }
    again.behind(&Cmd::new("unshare").arg("--net")).run()?;
    paths::remove(&dir)
}
