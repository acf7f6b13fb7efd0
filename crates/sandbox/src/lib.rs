//! Runs a process isolated in a root filesystem.
