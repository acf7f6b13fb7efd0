//! The child: builds its surroundings, gives up privileges, becomes the program.
//!
//! It is a copy of the one-threaded helper, so it may allocate. The order below matters: what
//! needs capabilities comes first, the parent-death signal last, because changing ids clears it.
//!
//! A filter of system calls that a user gives may refuse what is called here, so as little as can be
//! comes after it: with `no_new_privs` the program alone. Without, which is so that sudo works, only
//! CAP_SYS_ADMIN may load one, and the capabilities go after that.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::linux::cgroup::Group;
use crate::linux::helper::Surroundings;
use crate::linux::seccomp::SockFilter;
use crate::linux::user::{self, Identity};
use crate::linux::{
    capabilities, dev, helper, init, join, mounts, program, rlimit, seccomp, sysctl,
};
use crate::spec::Report;
use crate::{Network, Spec, StartFailure, sys};

/// Largest passwd or group file that is read (BuildKit's limit).
const MAX_ACCOUNTS: usize = 10 << 20;

/// Runs in the new process and never returns.
pub(crate) fn run(
    spec: Spec,
    descriptors: Vec<OwnedFd>,
    control: OwnedFd,
    surroundings: &Surroundings,
) -> ! {
    let Err(failure) = match surroundings {
        Surroundings::Own(group) => become_program(&spec, descriptors, &control, group.as_ref()),
        Surroundings::Joined(groups) => join::become_program(&spec, descriptors, &control, groups),
    };
    let code = failure.code;
    // When the engine is gone nobody is left to be told.
    let _ = helper::send(control.as_fd(), &Report::Failed(failure));
    std::process::exit(code)
}

/// Says which action failed.
pub(crate) trait During<T> {
    fn during(self, action: impl Display) -> Result<T, StartFailure>;
}

impl<T, E: Display> During<T> for Result<T, E> {
    fn during(self, action: impl Display) -> Result<T, StartFailure> {
        self.map_err(|error| StartFailure {
            action: action.to_string(),
            reason: error.to_string(),
            code: 125,
        })
    }
}

fn become_program(
    spec: &Spec,
    descriptors: Vec<OwnedFd>,
    control: &OwnedFd,
    group: Option<&Group>,
) -> Result<std::convert::Infallible, StartFailure> {
    // The host's files are out of reach further down.
    Group::join(group)?;
    let unified = mounts::host_is_unified();
    let mut descriptors = descriptors.into_iter();
    let root = descriptors.next().ok_or("no root").during("receive the root filesystem")?;
    rustix::process::umask(Mode::empty());
    let _ = rustix::process::setsid();
    if !spec.terminal {
        take_streams(&mut descriptors)?;
    }

    mounts::enter_root(&root, spec.privileged)?;
    drop(root);
    let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .during("open the root filesystem")?;
    mounts::system(root.as_fd(), spec.privileged, unified)?;
    let devices = dev::populate(root.as_fd(), spec)?;
    dev::own_null(root.as_fd())?;
    let files = mounts::make_files(root.as_fd(), &spec.files)?;
    // A mount of strangers may lie over /dev or /proc: what is ours is finished before.
    sysctl::set(root.as_fd(), &spec.sysctls)?;
    if !spec.privileged && !spec.unmasked {
        mounts::mask(root.as_fd())?;
    }
    let terminal = match spec.terminal {
        true => Some(dev::open_terminal(root.as_fd())?),
        false => None,
    };
    if let Some(master) = &terminal {
        dev::show_console(root.as_fd(), master)?;
    }
    mounts::attach_all(root.as_fd(), files, spec, descriptors.collect(), &devices)?;
    if spec.read_only {
        mounts::make_read_only(root.as_fd())?;
    }
    if !spec.shared.uts {
        rustix::system::sethostname(spec.hostname.as_bytes()).during("set the host name")?;
        // Else it would be the host's.
        rustix::system::setdomainname(spec.domainname.as_bytes()).during("set the domain name")?;
    }
    if spec.network == Network::None {
        sys::loopback_up().during("bring the loopback device up")?;
    }
    if let Some(master) = terminal {
        send_terminal(control, &master)?;
    }

    let identity = find_identity(root.as_fd(), spec)?;
    dev::give_away(spec, &devices, &identity)?;
    drop(devices);
    make_directory(root.as_fd(), &spec.cwd, &identity)?;
    enter_directory(&spec.cwd)?;
    drop(root);
    execute(spec, &identity, spec.init)
}

/// Makes the next three descriptors standard input, output and error.
pub(crate) fn take_streams(
    descriptors: &mut impl Iterator<Item = OwnedFd>,
) -> Result<(), StartFailure> {
    let streams: Vec<_> = descriptors.take(3).collect();
    let [stdin, stdout, stderr] = streams.as_slice() else {
        return Err("descriptors are missing").during("receive standard input and output");
    };
    rustix::stdio::dup2_stdin(stdin).during("set standard input")?;
    rustix::stdio::dup2_stdout(stdout).during("set standard output")?;
    rustix::stdio::dup2_stderr(stderr).during("set standard error")
}

/// Gives up privileges and executes the program, below an init or instead of this process.
pub(crate) fn execute(
    spec: &Spec,
    identity: &Identity,
    init: bool,
) -> Result<std::convert::Infallible, StartFailure> {
    let program = program::Prepared::new(spec, identity)?;
    let dockers = || seccomp::docker_filter(spec.capabilities);
    let filter = || spec.filter.as_ref().map_or_else(|| dockers().into(), Cow::from);
    let filter = spec.seccomp.then(filter);
    give_streams(identity);
    sys::close_on_exec_from(3).during("close descriptors")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let drop_privileges = || drop_privileges(spec, identity, filter.as_deref());
    if init {
        init::stay_behind(spec.terminal, drop_privileges)?;
    }
    sys::reset_signals();
    rlimit::set(&spec.rlimits)?;
    drop_privileges()?;
    Err(program.exec())
}

/// Hands the master side of a terminal to the engine.
pub(crate) fn send_terminal(control: &OwnedFd, master: &OwnedFd) -> Result<(), StartFailure> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let mut line = serde_json::to_vec(&Report::Terminal).during("hand the terminal over")?;
    line.push(b'\n');
    sendmsg(control, &[IoSlice::new(&line)], &mut ancillary, SendFlags::NOSIGNAL)
        .during("hand the terminal over")?;
    Ok(())
}

/// Who the process is in the root filesystem's own files.
pub(crate) fn find_identity(root: BorrowedFd<'_>, spec: &Spec) -> Result<Identity, StartFailure> {
    let read = |path: &str| mounts::read_small(root, path, MAX_ACCOUNTS);
    let passwd = read("etc/passwd").during("read /etc/passwd of the image")?;
    let group = read("etc/group").during("read /etc/group of the image")?;
    let user = &spec.user;
    let mut identity = user::resolve(user, &passwd, &group)
        .during(format_args!("find user {user:?} in the image"))?;
    for name in &spec.groups {
        let gid = user::find_group(name, &group)
            .during(format_args!("find group {name:?} in the image"))?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    Ok(identity)
}

/// Makes the working directory if it is not there, as Docker does.
fn make_directory(
    root: BorrowedFd<'_>,
    path: &str,
    identity: &Identity,
) -> Result<(), StartFailure> {
    mounts::make_directories(root, path, (identity.uid, identity.gid))
        .during(format_args!("make the working directory {path}"))
}

/// Enters the working directory.
pub(crate) fn enter_directory(path: &str) -> Result<(), StartFailure> {
    let path = if path.is_empty() { "/" } else { path };
    rustix::process::chdir(path).during(format_args!("enter the working directory {path}"))?;
    // A descriptor that leaked from the host would put it outside (CVE-2024-21626).
    let here = rustix::process::getcwd(Vec::new()).during("name the working directory")?;
    if !here.as_bytes().starts_with(b"/") {
        return Err("it lies outside of the root filesystem")
            .during(format_args!("enter the working directory {path}"));
    }
    Ok(())
}

/// Programs open `/dev/stdout` by name; a pipe of root's would refuse them.
fn give_streams(identity: &Identity) {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let pipe_or_terminal = rustix::fs::fstat(fd).is_ok_and(|stat| {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            kind == rustix::fs::FileType::Fifo || rustix::termios::isatty(fd)
        });
        if pipe_or_terminal && identity.uid != 0 {
            // Not ours to give when it comes from outside.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(identity.uid)), None);
        }
    }
}

/// Becomes the user, behind the filter, and ties itself to its parent.
fn drop_privileges(
    spec: &Spec,
    identity: &Identity,
    filter: Option<&[SockFilter]>,
) -> Result<(), StartFailure> {
    let load = |when: bool| match filter.filter(|_| when) {
        Some(filter) => seccomp::install(filter).during("load the system call filter"),
        None => Ok(()),
    };
    let groups: Vec<_> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).during("set supplementary groups")?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("set the group")?;
    if spec.no_new_privileges {
        rustix::thread::set_no_new_privs(true).during("forbid new privileges")?;
    }
    load(!spec.no_new_privileges)?;
    capabilities::drop_bounding(spec.capabilities).during("limit capabilities")?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("set the user")?;
    capabilities::set_thread(spec.capabilities.for_uid(identity.uid)).during("set capabilities")?;
    set_parent_process_death_signal(Some(Signal::KILL)).during("tie the process to its parent")?;
    load(spec.no_new_privileges)
}
