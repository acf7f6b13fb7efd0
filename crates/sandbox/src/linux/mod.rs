//! The Linux side: what happens in the helper and in the child.

pub mod binfmt;
pub mod capabilities;
pub(crate) mod cgroup;
mod child;
mod dev;
pub(crate) mod helper;
mod init;
mod join;
mod mounts;
pub(crate) mod processes;
mod program;
mod rlimit;
pub mod seccomp;
pub mod sysctl;
pub(crate) mod usage;
pub mod user;
