//! The command from outside: what it writes where, and the code that it exits with.
//!
//! One binary for all, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

mod arguments;
mod builds;
mod checks;
mod containers;
mod contexts;
mod copies;
mod dockerfiles;
mod layers;
mod logins;
mod privileges;
mod program;
mod pulls;
mod registries;
mod repro;
mod steps;
mod terminals;
mod volumes;
mod watching;
