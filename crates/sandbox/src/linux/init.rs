//! Process 1 of a container that asks for an init: passes signals on to the program, and waits for
//! whoever has lost its parent.
//!
//! It is the child itself, which gives up its privileges as the program does, and the program is its
//! first child. So the root filesystem holds no file of ours, and nothing is executed for it. It is
//! behind the program's filter of system calls, and uses none there that a program can do without.
//!
//! # Out of reach
//!
//! `/proc/1/exe` is the helper's file, that is, rbuild on the host. Whoever opened it could write to
//! it once nobody executes it any more (CVE-2019-5736). The kernel lets only those with
//! `CAP_SYS_PTRACE` look, because process 1 is not dumpable; and as long as anybody is in the
//! container, process 1 itself executes the file, so that nobody can write to it. It has no
//! descriptor open.

use rustix::process::{DumpableBehavior, WaitOptions, set_dumpable_behavior, setpgid, wait};

use crate::linux::child::During as _;
use crate::sys::{self, Side};
use crate::{Exit, StartFailure};

/// Returns in the process that is to become the program; the calling one stays behind as its init,
/// once it gave up its privileges.
pub(crate) fn stay_behind(
    terminal: bool,
    drop_privileges: impl FnOnce() -> Result<(), StartFailure>,
) -> Result<(), StartFailure> {
    let action = "start the program below an init";
    // From before the first of them could come.
    sys::hold_signals().during(action)?;
    // Before there is anybody to look; executing ends it for the program.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).during(action)?;
    match sys::clone_child(0).during(action)? {
        Side::Parent { pid, pidfd } => {
            drop(pidfd);
            let exit = watch(pid, drop_privileges)?;
            std::process::exit(exit.code())
        }
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
fn watch(
    program: u32,
    drop_privileges: impl FnOnce() -> Result<(), StartFailure>,
) -> Result<Exit, StartFailure> {
    let action = "watch over the program";
    // The program's pipes end with itself.
    sys::close_from(0).during(action)?;
    if let Err(failure) = drop_privileges() {
        // It fails in the program's process too, and only that one can still tell: the end of this
        // one would take it along.
        let _ = wait(WaitOptions::empty());
        return Err(failure);
    }
    // Changing ids may have made it dumpable; where a filter refuses this it has not, unless the
    // host says so (`fs.suid_dumpable`).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    loop {
        match sys::next_signal() {
            Ok(libc::SIGCHLD) => {
                if let Some(exit) = reap(program) {
                    return Ok(exit);
                }
            }
            // It may belong to another user by now. Its number is its own until it is waited for.
            Ok(signal) => drop(sys::kill(program, signal)),
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
