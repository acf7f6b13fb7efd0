//! `cargo xtask space`: random builds under a limit, as many as the ordinary test has no time for.

use crate::args::Args;
use crate::command::Cmd;
use crate::failure::Outcome;
use crate::paths;

/// Builds, unless `--builds` says otherwise.
const BUILDS: u64 = 100;

/// The limit in MiB, unless `--mib` says otherwise.
const MIB: u64 = 1024;

/// What is built, unless `--seed` says otherwise.
const SEED: u64 = 1;

/// `cargo xtask space [--builds N] [--mib N] [--seed N]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let builds = args.number("--builds")?.unwrap_or(BUILDS);
    let mib = args.number("--mib")?.unwrap_or(MIB);
    let seed = args.number("--seed")?.unwrap_or(SEED);
    args.words()?;
    println!("{builds} builds below {mib} MiB, from seed {seed}");
    Cmd::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .dir(paths::workspace())
        .words("test --quiet -p rbuild --test runner -- random_builds")
        .env("RBUILD_SPACE_BUILDS", builds.to_string())
        .env("RBUILD_SPACE_MIB", mib.to_string())
        .env("RBUILD_SPACE_SEED", seed.to_string())
        .run()
}
