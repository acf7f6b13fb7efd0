//! Runs a process isolated in a root filesystem: build steps and containers alike.
//!
//! # Who does what
//!
//! The engine may live in a program with many threads and much memory, so it never forks:
//! [`Launch::start`] starts the *helper*, which is the same program under another name
//! ([`HELPER_NAME`]), and hands it a [`Spec`] and the descriptors over a socket. The helper has
//! one thread. It clones the *child* into new mount, PID, IPC, UTS, cgroup and, unless the host's
//! was asked for, network namespaces, and then only waits. The child builds its surroundings in
//! its own mount namespace (`linux/child.rs`), gives up what Docker's default takes away, and
//! executes the program as process 1.
//!
//! A process may also be started beside one that runs ([`Join`]): then the helper enters the
//! namespaces of that one, and the child finds its surroundings there (`linux/join.rs`).
//!
//! # Who dies with whom
//!
//! The engine's end of the socket is the life line. When it closes, because the engine was
//! dropped or killed, the helper kills the child; when the helper dies, the kernel kills the
//! child (`PR_SET_PDEATHSIG`); when process 1 dies, the kernel kills all of its namespace and the
//! mounts go with it. A control group, which is made only for limits, is removed by the helper; one
//! that holds processes still, by whoever made it ([`Freezer`]). Process 1 may be an init of ours
//! instead of the program (`linux/init.rs`). Nothing is left for anybody to clean up. A process that
//! joined another one dies with the namespace all the same, and may be let go
//! ([`Running::leave`]), which cuts the life line.
//!
//! # Root filesystem
//!
//! It arrives as a detached mount (`rbuild-snapshot`), is attached in the child's namespace and
//! pivoted into. Every path in it is opened by `openat2` with `RESOLVE_IN_ROOT`, mount targets
//! without following a final link, so that an image cannot direct a mount elsewhere.

mod error;
pub mod handover;
mod join;
mod launch;
pub mod linux;
mod output;
mod resources;
mod spec;
mod sys;

pub use error::SandboxError;
pub use join::Join;
pub use launch::{HELPER_NAME, Helper, Launch, Running, Signaller, Stdio};
pub use linux::cgroup::{Freezer, sweep as sweep_groups};
pub use linux::helper::sandbox_main;
pub use linux::processes::{ProcessStat, members};
pub use linux::usage::{Usage, usage};
pub use resources::Resources;
pub use spec::{
    DeviceNode, Exit, InjectedFile, Mount, MountSource, Network, NodeKind, Rlimit,
    SharedNamespaces, Spec, StartFailure,
};
pub use sys::close_from;
