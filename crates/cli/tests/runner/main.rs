//! The command from outside: what it writes where, and the code that it exits with.
//!
//! One binary for all, so that it is linked once.

mod arguments;
mod builds;
mod dockerfiles;
mod program;
