//! One integration binary for the crate.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

#[path = "runner/archives.rs"]
mod archives;
#[path = "runner/compression.rs"]
mod compression;
#[path = "runner/documents.rs"]
mod documents;
#[path = "runner/estargz.rs"]
mod estargz;
#[path = "runner/gnu_tar.rs"]
mod gnu_tar;
#[path = "runner/hostile.rs"]
mod hostile;
#[path = "runner/layers.rs"]
mod layers;
#[path = "runner/merge.rs"]
mod merge;
#[path = "runner/properties.rs"]
mod properties;
#[path = "runner/rootfs.rs"]
mod rootfs;
#[path = "runner/schemas.rs"]
mod schemas;
#[path = "runner/support.rs"]
mod support;

/// A file that is not named above would never run.
#[test]
fn no_test_file_is_forgotten() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner");
    let this = include_str!("runner.rs");
    for entry in fs_err::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(this.contains(&format!("\"runner/{name}\"")), "{name} is not in runner.rs");
    }
}
