//! What the crate does in the kernel, in network namespaces that the tests make: the machine's own
//! devices, rules and settings are never touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "all of this is test code"
)]

mod figures;
mod links;
mod nat;
mod scene;
mod served;
mod table;
mod town;
