//! All integration tests of this crate, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy's exceptions for tests do not reach helpers"
)]

mod auth;
mod bucket;
mod listing;
mod pull;
mod push;
mod shelf;
mod support;
mod tls;
