//! Holds all processes of a container still (`pause`).
//!
//! The unified hierarchy does that (`cgroup.freeze`, cgroup-v2.rst) with no controller, so also on
//! machines whose controllers are of the old kind, and where nobody has mounted it. Unlike the old
//! freezer it lets those die who are killed, so whoever holds a container may die too.
//!
//! A container without limits has no group. It gets one for as long as it is held, named after the
//! process that holds it: whatever becomes of that, [`sweep`] finds the group.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{XattrFlags, setxattr};
use rustix::io::retry_on_intr;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::hierarchies::Hierarchies;
use super::name::Name;
use super::{ATTEMPTS, Group, MADE, PARENT, is_ours, make, put};
use crate::linux::processes::members;

/// How long processes may take to stop: one in a system call stops when that is done.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often processes are gathered: each time those are left that were started meanwhile.
const ROUNDS: u32 = 1000;

/// A container whose processes are held. Dropped, they stay so: [`Freezer::thaw`] lets them go.
#[derive(Debug)]
pub struct Freezer {
    /// The group.
    directory: PathBuf,
    /// It, where it was made to hold them.
    made: Option<Group>,
    /// Where they were before.
    origin: PathBuf,
    /// The hierarchy, where nobody else has mounted it.
    _mount: Option<OwnedFd>,
}

impl Freezer {
    /// Holds process `first`, the first one of a PID namespace of its own, and all that are in that.
    /// `process` is its pidfd: a number alone might become another's.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or a process does not stop: then all go on.
    pub fn freeze(first: u32, process: BorrowedFd<'_>) -> io::Result<Self> {
        let namespace = |process: &str| fs_err::read_link(format!("/proc/{process}/ns/pid"));
        if namespace("self")? == namespace(&first.to_string())? {
            return Err(io::Error::other("it has no processes of its own"));
        }
        let (hierarchies, root, mount) = unified()?;
        let path = fs_err::read_to_string(format!("/proc/{first}/cgroup"))?;
        let path = path.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let origin = hierarchies.directory("", path).unwrap_or_else(|| root.clone());
        let own = origin.file_name().and_then(|name| name.to_str());
        let same = fs_err::read_to_string("/proc/self/cgroup")?;
        let same = same.lines().find_map(|line| line.strip_prefix("0::")) == Some(path);
        let freezer = match own.is_some_and(Name::is_any) && !same {
            // It has limits, and the group is its own.
            true => Self { directory: origin.clone(), made: None, origin, _mount: mount },
            false => {
                let (directory, group) = new_group(&root)?;
                Self { directory, made: Some(group), origin, _mount: mount }
            }
        };
        match freezer.hold(first, process) {
            Ok(()) => Ok(freezer),
            Err(error) => {
                let _ = freezer.thaw();
                freezer.forget();
                Err(error)
            }
        }
    }

    fn hold(&self, first: u32, process: BorrowedFd<'_>) -> io::Result<()> {
        self.gather(first, process)?;
        put(&self.directory.join("cgroup.freeze"), "1")?;
        let deadline = Instant::now() + PATIENCE;
        let events = self.directory.join("cgroup.events");
        while !fs_err::read_to_string(&events)?.lines().any(|line| line == "frozen 1") {
            if Instant::now() >= deadline {
                return Err(io::Error::other("a process did not stop: it waits in the kernel"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // One that somebody started in the container just now.
        self.gather(first, process)
    }

    /// Moves the processes into the group until there is none left.
    fn gather(&self, first: u32, process: BorrowedFd<'_>) -> io::Result<()> {
        if self.made.is_none() {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            let there = self.processes()?;
            let strays = members(first)?.into_iter();
            // As long as it lives the number is its own.
            if has_ended(process)? {
                return Err(io::Error::other("it has ended"));
            }
            let strays: Vec<u32> = strays
                .filter(|stat| !stat.is_zombie() && !there.contains(&stat.pid))
                .map(|stat| stat.pid)
                .collect();
            if strays.is_empty() {
                return Ok(());
            }
            move_to(&self.directory, &strays)?;
        }
        Err(io::Error::other("processes are started faster than they can be stopped"))
    }

    fn processes(&self) -> io::Result<HashSet<u32>> {
        let text = fs_err::read_to_string(self.directory.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Lets the processes go on, where they were before.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; it can be tried again.
    pub fn thaw(&self) -> io::Result<()> {
        put(&self.directory.join("cgroup.freeze"), "0")?;
        let Some(made) = &self.made else { return Ok(()) };
        for _ in 0..ROUNDS {
            let there: Vec<u32> = self.processes()?.into_iter().collect();
            if there.is_empty() {
                break;
            }
            // Whose session it was may be gone.
            if move_to(&self.origin, &there).is_err() {
                let root = made.directories.first().and_then(|it| it.parent()?.parent());
                move_to(root.unwrap_or(&self.origin), &there)?;
            }
        }
        Ok(())
    }

    /// Removes the group when all of its processes have ended.
    pub fn forget(self) {
        if let Some(made) = self.made {
            made.remove();
        }
    }
}

/// Whether the process of a pidfd has ended.
fn has_ended(process: BorrowedFd<'_>) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&now)))? > 0)
}

/// Removes groups whose holders are dead.
pub fn sweep() {
    let Ok(mounts) = fs_err::read_to_string("/proc/self/mountinfo") else { return };
    let hierarchies = Hierarchies::parse(&mounts);
    let (Some(root), Ok(name)) = (hierarchies.unified(), Name::of_this_process()) else { return };
    let parent = root.join(PARENT);
    name.sweep(&parent);
    if is_ours(&parent) {
        // Others may be using it.
        let _ = rustix::fs::rmdir(&parent);
    }
}

/// The unified hierarchy: where it is mounted, or mounted for us alone.
fn unified() -> io::Result<(Hierarchies, PathBuf, Option<OwnedFd>)> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    let hierarchies = Hierarchies::parse(&mounts);
    if let Some(root) = hierarchies.unified() {
        let root = root.to_owned();
        return Ok((hierarchies, root, None));
    }
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    Ok((hierarchies, root, Some(mount)))
}

/// A group of this process. Its parent may be taken away by others until it is there.
fn new_group(root: &Path) -> io::Result<(PathBuf, Group)> {
    let name = Name::of_this_process()?;
    let parent = root.join(PARENT);
    let directory = parent.join(name.text());
    let mut attempt = 1;
    loop {
        let made = make(&parent).and_then(|new| {
            if new {
                // Where that fails, the parent stays: nothing worse.
                let _ = setxattr(&parent, MADE, b"1", XattrFlags::empty());
            }
            name.sweep(&parent);
            make(&directory)
        });
        match made {
            Ok(_) => break,
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
    }
    let parents = Some(parent).filter(|parent| is_ours(parent)).into_iter().collect();
    let group = Group { directories: vec![directory.clone()], parents, kills: None };
    Ok((directory, group))
}

/// Moves processes into a group; one that has ended is in none.
fn move_to(directory: &Path, processes: &[u32]) -> io::Result<()> {
    let file = directory.join("cgroup.procs");
    for process in processes {
        match put(&file, &process.to_string()) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            done => done?,
        }
    }
    Ok(())
}
