//! Process 1 of a container that asks for an init: passes signals on to the program, and waits for
//! whoever has lost its parent.
//!
//! It is the child itself, after it gave up its privileges, and the program is its first child. So
//! the root filesystem holds no file of ours, and nothing is executed for it.
//!
//! # Out of reach
//!
//! `/proc/1/exe` is the helper's file, that is, rbuild on the host. Whoever opened it could write to
//! it once nobody executes it any more (CVE-2019-5736). The kernel lets only those with
//! `CAP_SYS_PTRACE` look, because process 1 is not dumpable; and as long as anybody is in the
//! container, process 1 itself executes the file, so that nobody can write to it. It has no
//! descriptor open.

use std::os::fd::OwnedFd;

use rustix::process::{
    DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal,
    setpgid, wait,
};

use crate::linux::child::During as _;
use crate::sys::{self, Side};
use crate::{Exit, StartFailure};

/// Returns in the process that is to become the program; the calling one stays behind as its init.
pub(crate) fn stay_behind(terminal: bool) -> Result<(), StartFailure> {
    let action = "start the program below an init";
    // From before the first of them could come.
    sys::hold_signals().during(action)?;
    match sys::clone_child(0).during(action)? {
        Side::Parent { pid, pidfd } => match watch(pid, pidfd) {
            Ok(exit) => std::process::exit(exit.code()),
            Err(failure) => Err(failure),
        },
        Side::Child => {
            // What a terminal sends to its program does not come twice, from it and from the init.
            // Held back signals do not stop who takes the terminal from behind.
            setpgid(None, None).during(action)?;
            if terminal {
                rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp())
                    .during(action)?;
            }
            Ok(())
        }
    }
}

/// Stays until the program ends; the rest of the namespace ends with who stays.
fn watch(program: u32, pidfd: OwnedFd) -> Result<Exit, StartFailure> {
    let action = "watch over the program";
    // Changing ids has cleared it.
    set_parent_process_death_signal(Some(Signal::KILL)).during(action)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during(action)?;
    // The program is all that is left open: its pipes end with itself.
    rustix::stdio::dup2_stdin(&pidfd).during(action)?;
    drop(pidfd);
    sys::close_from(1).during(action)?;
    loop {
        match sys::next_signal() {
            Ok(libc::SIGCHLD) => {
                if let Some(exit) = reap(program) {
                    return Ok(exit);
                }
            }
            // It may have ended, or belong to another user by now.
            Ok(signal) => drop(sys::send_signal(rustix::stdio::stdin(), signal)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).during(action),
        }
    }
}

/// Waits for all that have ended; how the program did, if it is among them.
fn reap(program: u32) -> Option<Exit> {
    let mut exit = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get().cast_unsigned() == program {
            exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(Exit::Code(code)),
                (None, signal) => signal.map(Exit::Signal),
            };
        }
    }
    exit
}
