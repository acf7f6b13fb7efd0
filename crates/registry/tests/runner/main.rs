//! All integration tests of this crate, in one binary.

#![expect(clippy::unwrap_used, reason = "clippy's exception for tests does not reach helpers")]

mod auth;
mod pull;
mod support;
mod tls;
