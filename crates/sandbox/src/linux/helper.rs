//! The helper: one thread, clones the child, waits for it, dies with the engine.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::handover;
use crate::launch::HELPER_NAME;
use crate::linux::cgroup::{Entrances, Group};
use crate::linux::child::{self, During as _};
use crate::linux::join;
use crate::spec::{Order, Place, Report};
use crate::sys::{self, Side};
use crate::{Exit, Network, Spec, StartFailure};

/// Becomes the sandbox helper when the program was started as one; otherwise returns at once.
///
/// Call it first thing in `main`, before any thread is started: the engine starts the program it
/// lives in a second time, under the name [`HELPER_NAME`], to run build steps and containers.
pub fn sandbox_main() {
    if std::env::args_os().next().is_some_and(|name| name == HELPER_NAME) {
        std::process::exit(match helper() {
            Ok(()) => 0,
            Err(_) => 125,
        });
    }
}

/// Where the child is to be.
pub(crate) enum Surroundings {
    /// Its own control group, if it needs one.
    Own(Option<Group>),
    /// The namespaces of another process, which the helper has entered, and the way into that
    /// one's control groups.
    Joined(Entrances),
}

fn helper() -> io::Result<()> {
    // What the engine's host had open is not for as long as the process runs.
    sys::close_from(3)?;
    // The socket arrives as standard input. It moves up, so that 0 to 2 are free for the child.
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    // Ctrl-C at the engine's terminal is the engine's business.
    let _ = rustix::process::setsid();
    let (Order { spec, place }, mut descriptors) = handover::receive(control.as_fd())?;
    if place == Place::Own
        && spec.network == Network::Given
        && let Err(failure) = enter_network(descriptors.pop())
    {
        return send(control.as_fd(), &Report::Failed(failure));
    }
    if let Some(score) = spec.oom_score_adj
        && let Err(failure) = take_score(score)
    {
        return send(control.as_fd(), &Report::Failed(failure));
    }
    let surroundings = match place {
        Place::Own => Group::create(&spec.resources).map(Surroundings::Own),
        Place::Joined => join::enter(&descriptors).map(Surroundings::Joined),
    };
    let surroundings = match surroundings {
        Ok(surroundings) => surroundings,
        Err(failure) => return send(control.as_fd(), &Report::Failed(failure)),
    };
    // The child has one end until it executes the program, which closes it.
    let (executed, executing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match sys::clone_child(namespaces(&spec, place)) {
        Ok(Side::Child) => child::run(spec, descriptors, control, &surroundings),
        Ok(Side::Parent { pid, pidfd }) => (pid, pidfd),
        Err(error) => {
            let failure = match surroundings {
                Surroundings::Own(group) => {
                    group.into_iter().for_each(Group::remove);
                    StartFailure {
                        action: "create namespaces for a process".to_owned(),
                        reason: format!("{error}{}", namespace_hint(&error)),
                        code: 125,
                    }
                }
                Surroundings::Joined(_) => join::failure(error),
            };
            return send(control.as_fd(), &Report::Failed(failure));
        }
    };
    // What the child uses must end with the child.
    drop((descriptors, executing));
    let group = match surroundings {
        Surroundings::Own(group) => group,
        Surroundings::Joined(_) => None,
    };
    // The engine may be gone. The child must be waited for all the same, or its group would stay.
    let _ = send(control.as_fd(), &Report::Started { pid });
    let waited = wait(control.as_fd(), &pidfd, executed);
    let out_of_memory = group.as_ref().is_some_and(Group::ran_out_of_memory);
    group.into_iter().for_each(Group::remove);
    let exit = match waited? {
        exit if out_of_memory && exit != Exit::Code(0) => Exit::OutOfMemory(exit.code()),
        exit => exit,
    };
    send(control.as_fd(), &Report::Exited(exit))
}

/// Moves into a network namespace, in which the child then begins.
fn enter_network(namespace: Option<OwnedFd>) -> Result<(), StartFailure> {
    let namespace = namespace.ok_or("no descriptor").during("receive the network namespace")?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
        .during("enter the network namespace")
}

/// Sets how willingly the kernel kills the helper, and so the child, which may no longer reach the
/// host's `/proc` when it could do that itself. In its own control group the kernel kills the child
/// alone.
fn take_score(score: i16) -> Result<(), StartFailure> {
    fs_err::write("/proc/self/oom_score_adj", score.to_string())
        .during(format_args!("set the score of the process to {score}"))
}

fn namespaces(spec: &Spec, place: Place) -> libc::c_int {
    if place == Place::Joined {
        return 0;
    }
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID;
    if !spec.shared.ipc {
        flags |= libc::CLONE_NEWIPC;
    }
    if !spec.shared.uts {
        flags |= libc::CLONE_NEWUTS;
    }
    match spec.network {
        // The helper is in the one that was given.
        Network::Host | Network::Given => flags,
        Network::None => flags | libc::CLONE_NEWNET,
    }
}

fn namespace_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (needs root, or a user namespace such as `unshare -rm` gives)"
        }
        _ => "",
    }
}

/// Tells when the program runs, passes signals on, and kills the child when the engine hangs up
/// without having let it go, until the child ends.
fn wait(control: BorrowedFd<'_>, pidfd: &OwnedFd, executed: OwnedFd) -> io::Result<Exit> {
    let mut listening = true;
    let mut executed = Some(executed);
    loop {
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(listening.then(|| PollFd::from_borrowed_fd(control, PollFlags::IN)));
        fds.extend(executed.iter().map(|end| PollFd::new(end, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let ended = ready.next() == Some(true);
        let spoken = listening && ready.next() == Some(true);
        let runs = ready.next() == Some(true);
        if runs {
            executed = None;
            // Nobody may be left to be told.
            let _ = send(control, &Report::Executed);
        }
        if ended {
            return reap(pidfd);
        }
        if spoken {
            let mut byte = [0; 1];
            let signal = match rustix::io::read(control, &mut byte) {
                Ok(1) if byte == [handover::LEAVE] => {
                    listening = false;
                    None
                }
                Ok(1) => Some(byte[0].into()),
                Ok(_) | Err(_) => {
                    listening = false;
                    Some(libc::SIGKILL)
                }
            };
            if let Some(signal) = signal {
                // It may have ended meanwhile.
                let _ = sys::send_signal(pidfd.as_fd(), signal);
            }
        }
    }
}

fn reap(pidfd: &OwnedFd) -> io::Result<Exit> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Code(125),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes one report to the engine.
pub(crate) fn send(control: BorrowedFd<'_>, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let sent = rustix::net::send(control, rest, rustix::net::SendFlags::NOSIGNAL)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}
