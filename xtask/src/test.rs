//! `cargo xtask test`: what a developer runs before sending a change, and what CI runs first.

use crate::args::Args;
use crate::bases;
use crate::cases;
use crate::command::{Cmd, find};
use crate::failure::Outcome;
use crate::packages::{self, BASES, BUILD, TESTS};
use crate::paths;
use crate::rbuild::Rbuild;

/// Runs every check in the order in which a failure is found soonest.
pub(crate) fn run(args: &mut Args) -> Outcome {
    args.words()?;
    if packages::is_root() {
        packages::ensure_installed(&[BUILD, BASES, TESTS].concat())?;
    } else {
        eprintln!("note: not root: the tests that need it are skipped, and each says so");
        packages::install_or_say(&[BUILD, TESTS].concat());
    }
    bases::busybox_layout()?;

    section("format");
    cargo().words("fmt --all --check").run()?;
    section("lints");
    cargo().words("clippy --workspace --all-targets -- -D warnings").run()?;
    section("documentation examples");
    cargo().words("test --workspace --doc --quiet").run()?;
    section("an embedding program");
    embed()?;
    section("licences");
    licences()?;
    section("tests");
    tests().run()?;
    section("cases");
    match paths::shared() {
        Some(_) => cases::check(&Rbuild::release(paths::fresh("cases/store")?)?, "all", &[]),
        None => {
            println!("skipped: the shared cases are not at hand");
            Ok(())
        }
    }
}

/// The example of the library builds an image and runs it; needs root as every build does.
fn embed() -> Outcome {
    if !packages::is_root() {
        println!("skipped: needs root");
        return Ok(());
    }
    cargo().words("run --quiet -p rbuild --example embed").run()
}

/// nextest where it is installed, because it shows failures better and runs more at once.
fn tests() -> Cmd {
    let with_bases = |cmd: Cmd| {
        let dir = paths::workspace().join("target/bases");
        cmd.env("RBUILD_TEST_BASES", dir)
    };
    if find("cargo-nextest").is_some() {
        let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
        with_bases(cargo().words("nextest run --workspace --profile").arg(profile))
    } else {
        with_bases(cargo().words("test --workspace --lib --bins --tests"))
    }
}

/// Licences, bans and sources need no network; advisories need a database from the network.
fn licences() -> Outcome {
    if find("cargo-deny").is_none() {
        if std::env::var_os("CI").is_none() {
            println!("skipped: `cargo install --locked cargo-deny` brings the checker");
            return Ok(());
        }
        println!("==> cargo install --locked cargo-deny");
        let install = cargo()
            .words("install --quiet --locked cargo-deny")
            // Outside the checkout, whose settings are for our own programs.
            .dir("/");
        install.run()?;
    }
    cargo()
        .words("deny --all-features check --hide-inclusion-graph licenses bans sources")
        .run()?;
    let advisories = cargo().words("deny --all-features check advisories").capture()?;
    let said = String::from_utf8_lossy(&advisories.stderr);
    if advisories.status.success() {
        println!("advisories: none");
    } else if said.contains("failed to fetch") || said.contains("failed to load") {
        println!("advisories: not checked, their database cannot be reached from here");
    } else {
        eprint!("{said}");
        return crate::failure::fail("an advisory names one of our dependencies");
    }
    Ok(())
}

fn section(title: &str) {
    println!("\n==> {title}");
}

fn cargo() -> Cmd {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Cmd::new(cargo).dir(paths::workspace())
}
