//! What holds for any text: nothing panics, time grows with length, printing loses nothing, and
//! what a simpler program says of it is the same.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, also in its helpers")]

#[path = "../common/mod.rs"]
mod common;

mod dockerfiles;
mod expansion;
mod growth;
mod ignore_files;
mod instructions;

use rbuild_parser::expand::Environment;

/// A few variables.
struct Few;

impl Environment for Few {
    fn get(&self, name: &str) -> Option<&str> {
        match name {
            "a" => Some("one/two\nthree.tar.gz"),
            "empty" => Some(""),
            _ => None,
        }
    }
}
