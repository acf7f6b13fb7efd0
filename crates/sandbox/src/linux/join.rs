//! Starting a process in a container that runs.
//!
//! The container may be hostile. What it could reach is the child between entering the PID
//! namespace, where it gets a number that others see, and executing the program:
//!
//! * `/proc/N/exe` is the helper's file, that is, rbuild on the host. Whoever opens it could write
//!   to it once nobody executes it any more (CVE-2019-5736). The helper makes itself, and so the
//!   child, non-dumpable before it enters: the kernel then lets only those with `CAP_SYS_PTRACE`
//!   look. Executing ends that, and by then the file is the container's. Nothing of the container
//!   is executed or loaded before: the helper is static, and both sides go on with their own code.
//! * `/proc/N/fd`, for the same reason; and nothing of the host is among them but the line to the
//!   engine and, for a moment, files of control groups, no directory (CVE-2024-21626). All are
//!   closed by executing.
//!
//! The helper itself stays in the host's PID namespace, where the container does not see it.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::linux::cgroup::Entrances;
use crate::linux::child::{self, During as _};
use crate::linux::dev;
use crate::{Spec, StartFailure};

/// All that a process has of its own here.
const NAMESPACES: ThreadNameSpaceType = ThreadNameSpaceType::MOUNT
    .union(ThreadNameSpaceType::PROCESS_ID)
    .union(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    .union(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
    .union(ThreadNameSpaceType::NETWORK)
    .union(ThreadNameSpaceType::CONTROL_GROUP);

/// Moves the helper into the namespaces of the process that the first descriptor names; the PID
/// namespace is that of the next child.
pub(crate) fn enter(descriptors: &[OwnedFd]) -> Result<Entrances, StartFailure> {
    let process = descriptors
        .first()
        .ok_or("no descriptor")
        .during("receive the process that is to be joined")?;
    let number = number(process).map_err(failure)?;
    // The number is that of another process if this one ended meanwhile; then nothing is entered.
    let groups = Entrances::of(number)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .during("hide the helper from the container")?;
    move_into_thread_name_spaces(process.as_fd(), NAMESPACES)
        .map_err(|errno| failure(errno.into()))?;
    Ok(groups)
}

/// Why a container could not be entered.
pub(crate) fn failure(error: io::Error) -> StartFailure {
    let reason = match error.raw_os_error() {
        // No process can be made in a PID namespace without a process 1.
        Some(libc::ESRCH | libc::ENOMEM) => "it has ended".to_owned(),
        _ => error.to_string(),
    };
    StartFailure { action: "enter the container".to_owned(), reason, code: 125 }
}

/// The number of the process that a pidfd names, in this PID namespace.
fn number(process: &OwnedFd) -> io::Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
    let text = fs_err::read_to_string(path)?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    // It is -1 once the process is gone.
    let number = number.and_then(|number| number.trim().parse().ok());
    number.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// What the child does instead of building its surroundings.
pub(crate) fn become_program(
    spec: &Spec,
    descriptors: Vec<OwnedFd>,
    control: &OwnedFd,
    groups: &Entrances,
) -> Result<std::convert::Infallible, StartFailure> {
    groups.enter()?;
    let mut descriptors = descriptors.into_iter();
    drop(descriptors.next());
    rustix::process::umask(Mode::empty());
    let _ = rustix::process::setsid();
    if !spec.terminal {
        child::take_streams(&mut descriptors)?;
    }
    drop(descriptors);
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open the root filesystem")?;
    if spec.terminal {
        let master = dev::open_terminal(root.as_fd())?;
        child::send_terminal(control, &master)?;
    }
    dev::own_null(root.as_fd())?;
    let identity = child::find_identity(root.as_fd(), spec)?;
    child::enter_directory(&spec.cwd)?;
    drop(root);
    child::execute(spec, &identity, false)
}
