//! The one system call that the standard library lacks: waiting for a child together with
//! what it used.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use crate::failure::Outcome;

/// How a process ended and what it used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Peak resident set of the largest process among the child and those it waited for, bytes.
    pub(crate) peak_rss: u64,
}

/// Waits for `child`, and takes it, because it cannot be waited for again.
#[expect(clippy::needless_pass_by_value, reason = "its process id is free afterwards")]
pub(crate) fn wait(child: Child) -> Outcome<Ended> {
    let pid = libc::pid_t::try_from(child.id()).map_err(std::io::Error::other)?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the types that wait4 writes.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    // Linux counts ru_maxrss in kibibytes.
    let peak_rss = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Ok(Ended { status: ExitStatus::from_raw(status), peak_rss })
}
