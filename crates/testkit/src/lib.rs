//! What the checks of the project's own shape read: its packages, its sources, its documents.
//!
//! The checks are this crate's tests: `arrows.rs` holds what crates may depend on and where
//! `unsafe` may stand, `documents.rs` holds README, ARCHITECTURE and docs to what is there.
//! `schemas` is for the tests of those who write images, `corpora` for those of the language,
//! `property` for those of parsers of untrusted text.
//! A check that finds several things wrong names all of them.

#![forbid(unsafe_code)]

pub mod corpora;
pub mod markdown;
pub mod packages;
pub mod property;
pub mod schemas;
pub mod sources;

use std::path::{Path, PathBuf};

/// Where the workspace is.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_owned()
}

/// The text of a file of the workspace.
///
/// # Panics
///
/// When there is no such file.
pub fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(root().join(path)).expect("the file is there and is text")
}
