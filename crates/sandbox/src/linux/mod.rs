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
mod program;
mod rlimit;
pub mod seccomp;
pub mod sysctl;
pub mod user;
