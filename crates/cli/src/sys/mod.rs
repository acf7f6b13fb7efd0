//! The only unsafe code of the command.

pub mod signals;
