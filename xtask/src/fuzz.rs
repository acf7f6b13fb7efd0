//! `cargo xtask fuzz`: the properties of everything that reads text of strangers, on as many
//! inputs as fit into a time.
//!
//! The properties are the `properties` tests of the crates that read the language, which
//! `cargo test` tries on a thousand inputs each. Here they are built as they are released, but
//! with checks of arithmetic. Each says how many inputs it saw.

use crate::args::Args;
use crate::command::Cmd;
use crate::failure::Outcome;
use crate::paths;

/// Those with such tests.
const PACKAGES: [&str; 5] =
    ["rbuild-types", "rbuild-parser", "rbuild-plan", "rbuild-sbom", "rbuild-network"];

/// For each property, unless `--seconds` says otherwise.
const SECONDS: u64 = 10;

/// Where the inputs come from, unless `--seed` says otherwise: the same ones each time.
const SEED: u64 = 1;

/// `cargo xtask fuzz [--seconds N] [--seed N]`.
pub(crate) fn run(args: &mut Args) -> Outcome {
    let seconds = args.number("--seconds")?.unwrap_or(SECONDS);
    let seed = args.number("--seed")?.unwrap_or(SEED);
    args.words()?;
    println!("{seconds} seconds for each property, from seed {seed}");
    let mut cargo = Cmd::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .dir(paths::workspace())
        .words("test --quiet --profile fuzz --test properties");
    for package in PACKAGES {
        cargo = cargo.args(["-p", package]);
    }
    cargo
        .words("-- --nocapture")
        .env("RBUILD_FUZZ_SECONDS", seconds.to_string())
        .env("RBUILD_FUZZ_SEED", seed.to_string())
        .run()
}
