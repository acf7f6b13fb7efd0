//! The engine's tests: one program, which is also the sandbox helper, so it has its own `main`.
//!
//! Everything runs for real, in a store of its own below a temporary directory. Needs root and
//! Debian's busybox-static at `/bin/busybox`; says so and ignores the tests where they are
//! missing. No test needs a network.

#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::print_stderr, reason = "a test program says what it leaves out")]

mod build_add;
mod build_attest;
mod build_bucket_cache;
mod build_cache;
mod build_check;
mod build_clones;
mod build_codecs;
mod build_cold;
mod build_concurrent;
mod build_context;
mod build_cutoff;
mod build_devices;
mod build_enter;
mod build_estargz;
mod build_export;
mod build_failure;
mod build_fresh;
mod build_gha_cache;
mod build_git;
mod build_git_ssh;
mod build_git_wire;
mod build_http;
mod build_images;
mod build_link;
mod build_lock;
mod build_logs;
mod build_mount_cache;
mod build_mounts;
mod build_offline;
mod build_outputs;
mod build_packaging;
mod build_platforms;
mod build_push;
mod build_registry;
mod build_remote;
mod build_remote_cache;
mod build_repro;
mod build_resources;
mod build_reuse;
mod build_space;
mod build_steps;
mod build_why;
mod cache_mounts;
mod check;
mod child;
mod container_exec;
mod container_files;
mod container_health;
mod container_lasting;
mod container_limits;
mod container_network;
mod container_privileges;
mod container_run;
mod container_watch;
mod exported;
mod fsck;
mod git_server;
mod image_list;
mod image_transfer;
mod inspect_diff;
mod inspect_layers;
mod ssh_server;
mod support;
mod volumes;
mod web;

use std::collections::BTreeSet;
use std::path::Path;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
type Test = (&'static str, fn());

/// Lists functions as tests.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        pub const TESTS: &[crate::Test] = &[$((stringify!($test), $test)),+];
    };
}
use tests;

/// Files without tests.
const SHARED: [&str; 7] =
    ["runner", "support", "child", "exported", "git_server", "ssh_server", "web"];

/// Modules whose tests run as anybody.
const ANYWHERE: [&str; 1] = ["check"];

const MODULES: &[(&str, &[Test])] = &[
    ("build_add", build_add::TESTS),
    ("build_attest", build_attest::TESTS),
    ("build_bucket_cache", build_bucket_cache::TESTS),
    ("build_cache", build_cache::TESTS),
    ("build_check", build_check::TESTS),
    ("build_codecs", build_codecs::TESTS),
    ("build_clones", build_clones::TESTS),
    ("build_cold", build_cold::TESTS),
    ("build_concurrent", build_concurrent::TESTS),
    ("build_context", build_context::TESTS),
    ("build_cutoff", build_cutoff::TESTS),
    ("build_devices", build_devices::TESTS),
    ("build_enter", build_enter::TESTS),
    ("build_estargz", build_estargz::TESTS),
    ("build_export", build_export::TESTS),
    ("build_failure", build_failure::TESTS),
    ("build_fresh", build_fresh::TESTS),
    ("build_gha_cache", build_gha_cache::TESTS),
    ("build_git", build_git::TESTS),
    ("build_git_ssh", build_git_ssh::TESTS),
    ("build_git_wire", build_git_wire::TESTS),
    ("build_http", build_http::TESTS),
    ("build_images", build_images::TESTS),
    ("build_link", build_link::TESTS),
    ("build_lock", build_lock::TESTS),
    ("build_logs", build_logs::TESTS),
    ("build_mount_cache", build_mount_cache::TESTS),
    ("build_mounts", build_mounts::TESTS),
    ("build_offline", build_offline::TESTS),
    ("build_outputs", build_outputs::TESTS),
    ("build_packaging", build_packaging::TESTS),
    ("build_platforms", build_platforms::TESTS),
    ("build_push", build_push::TESTS),
    ("build_registry", build_registry::TESTS),
    ("build_remote", build_remote::TESTS),
    ("build_remote_cache", build_remote_cache::TESTS),
    ("build_repro", build_repro::TESTS),
    ("build_resources", build_resources::TESTS),
    ("build_reuse", build_reuse::TESTS),
    ("build_space", build_space::TESTS),
    ("build_steps", build_steps::TESTS),
    ("build_why", build_why::TESTS),
    ("cache_mounts", cache_mounts::TESTS),
    ("check", check::TESTS),
    ("container_exec", container_exec::TESTS),
    ("container_health", container_health::TESTS),
    ("container_files", container_files::TESTS),
    ("container_lasting", container_lasting::TESTS),
    ("container_limits", container_limits::TESTS),
    ("container_network", container_network::TESTS),
    ("container_privileges", container_privileges::TESTS),
    ("container_run", container_run::TESTS),
    ("container_watch", container_watch::TESTS),
    ("fsck", fsck::TESTS),
    ("image_list", image_list::TESTS),
    ("image_transfer", image_transfer::TESTS),
    ("inspect_diff", inspect_diff::TESTS),
    ("inspect_layers", inspect_layers::TESTS),
    ("volumes", volumes::TESTS),
];

fn main() {
    rbuild::sandbox_main();
    child::main_if_child();
    let arguments = Arguments::from_args();
    let able = support::able();
    if !able {
        eprintln!("skipped: engine tests need root and /bin/busybox (Debian's busybox-static)");
    }
    let mut trials = vec![Trial::test("every_file_is_a_module", || {
        every_file_is_a_module();
        Ok(())
    })];
    for (module, tests) in MODULES {
        for (name, test) in *tests {
            let run = move || {
                test();
                Ok(())
            };
            let ignored = !able && !ANYWHERE.contains(module);
            trials.push(Trial::test(format!("{module}::{name}"), run).with_ignored_flag(ignored));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// A file with tests that nobody lists would never run.
fn every_file_is_a_module() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let names = fs_err::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let files: BTreeSet<String> = names
        .filter_map(|name| name.to_str()?.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| !SHARED.contains(&name.as_str()))
        .collect();
    let listed = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, listed);
}
