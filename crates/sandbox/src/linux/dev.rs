//! `/dev`: the few devices that Docker gives, links, and file systems for terminals and queues.
//!
//! Docker lets processes make device nodes and forbids their use with a control group; here no
//! process has one. Instead every file system that can be written is mounted `nodev`, `/dev` too:
//! its devices, and those that a process is given besides, are mounted one by one from a file
//! system that has no name inside.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mkdirat, mknodat, openat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount,
};
use rustix::pty::OpenptFlags;
use rustix::stdio;

use crate::linux::child::During as _;
use crate::linux::mounts::{self, filesystem};
use crate::linux::user::Identity;
use crate::{DeviceNode, NodeKind, Spec, StartFailure};

/// Name, major and minor number of each device; all have mode 0666.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// What BuildKit gives to a process without restrictions, besides loop devices
/// (`util/entitlements/security/security_linux.go`). All have mode 0600.
const MORE_DEVICES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];
/// Major number of loop devices, and how many there are.
const LOOP: (u32, u32) = (7, 8);

/// Docker's default for the size of `/dev/shm`.
const SHM_SIZE: u64 = 64 << 20;

/// Link and what it points to.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The devices of the spec that are mounted. A process without restrictions has a `/dev` that is not
/// `nodev`, so those in it whose owner is known already are made in their place.
pub(crate) fn mounted(spec: &Spec) -> impl Iterator<Item = &DeviceNode> {
    spec.devices.iter().filter(|node| in_place(spec, node).is_none())
}

/// The name in `/dev` of a device that is made there.
fn in_place<'a>(spec: &Spec, node: &'a DeviceNode) -> Option<&'a str> {
    let owned = node.uid.is_some() && node.gid.is_some();
    node.path.strip_prefix("/dev/").filter(|_| spec.privileged && owned)
}

/// Fills the empty tmpfs at `/dev`. Returns the devices that are to be mounted besides, detached:
/// what is mounted over `/dev` comes before them.
pub(crate) fn populate(root: BorrowedFd<'_>, spec: &Spec) -> Result<Vec<OwnedFd>, StartFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = openat(root, "dev", flags, Mode::empty()).during("open /dev")?;
    let asked = devices(&dev, mounted(spec))?;
    for node in &spec.devices {
        if let Some(name) = in_place(spec, node) {
            make_in_place(&dev, node, name).during(format_args!("make {}", node.path))?;
        }
    }
    if spec.privileged {
        more_devices(&dev)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).during(format_args!("make /dev/{name}"))?;
    }
    let harmless = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let without_devices = harmless | MountAttrFlags::MOUNT_ATTR_NODEV;
    let terminals = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    // Group 5 is `tty` in every distribution.
    mount_in(&dev, "pts", filesystem("devpts", &terminals, harmless)?)?;
    let shm = Path::new("/dev/shm");
    if spec.mounts.iter().any(|mount| Path::new(&mount.target) == shm) {
        // Somebody else's memory goes there.
        mkdirat(&dev, "shm", Mode::from_raw_mode(0o755)).during("make /dev/shm")?;
    } else {
        let size = spec.shm_size.unwrap_or(SHM_SIZE).to_string();
        let shared = [("source", "shm"), ("mode", "1777"), ("size", size.as_str())];
        mount_in(&dev, "shm", filesystem("tmpfs", &shared, without_devices)?)?;
    }
    mount_in(&dev, "mqueue", filesystem("mqueue", &[], without_devices)?)?;
    Ok(asked)
}

/// Makes the devices where nobody can make others, and mounts each over an empty file; `asked` are
/// left to be mounted.
fn devices<'a>(
    dev: &OwnedFd,
    asked: impl Iterator<Item = &'a DeviceNode>,
) -> Result<Vec<OwnedFd>, StartFailure> {
    let hidden = ".rbuild-devices";
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mount_in(dev, hidden, filesystem("tmpfs", &[("mode", "700"), ("size", "4k")], attributes)?)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let nodes = openat(dev, hidden, flags, Mode::empty()).during("open the devices")?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in DEVICES {
        let action = format!("make /dev/{name}");
        mknodat(&nodes, name, FileType::CharacterDevice, mode, makedev(major, minor))
            .during(&action)?;
        let empty = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(dev, name, empty, mode).during(&action)?;
        let device = open_tree(&nodes, name, clone).during(&action)?;
        move_mount(&device, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .during(&action)?;
    }
    let mut ready = Vec::new();
    for (number, node) in asked.enumerate() {
        let action = format!("make {}", node.path);
        let name = format!("asked-{number}");
        make(&nodes, &name, node).during(&action)?;
        ready.push(open_tree(&nodes, &name, clone).during(&action)?);
    }
    unmount(format!("/dev/{hidden}"), UnmountFlags::DETACH).during("hide the devices")?;
    unlinkat(dev, hidden, AtFlags::REMOVEDIR).during("hide the devices")?;
    Ok(ready)
}

fn make(directory: &OwnedFd, name: &str, node: &DeviceNode) -> Result<(), Errno> {
    let (kind, number) = match node.kind {
        NodeKind::Character => (FileType::CharacterDevice, makedev(node.major, node.minor)),
        NodeKind::Block => (FileType::BlockDevice, makedev(node.major, node.minor)),
        NodeKind::Fifo => (FileType::Fifo, 0),
    };
    mknodat(directory, name, kind, Mode::from_raw_mode(node.mode & 0o777), number)
}

/// Makes a device in `/dev`, unless there is one of that name.
fn make_in_place(dev: &OwnedFd, node: &DeviceNode, name: &str) -> Result<(), Errno> {
    if let Some((parent, _)) = name.rsplit_once('/') {
        mounts::make_directories(dev.as_fd(), parent, (0, 0))?;
    }
    match make(dev, name, node) {
        Err(Errno::EXIST) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (node.uid.unwrap_or(0), node.gid.unwrap_or(0));
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(dev, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        }
        made => made,
    }
}

/// Gives the devices that were mounted to their owners, or to the process.
pub(crate) fn give_away(
    spec: &Spec,
    ready: &[OwnedFd],
    identity: &Identity,
) -> Result<(), StartFailure> {
    for (node, device) in mounted(spec).zip(ready) {
        let uid = Uid::from_raw(node.uid.unwrap_or(identity.uid));
        let gid = Gid::from_raw(node.gid.unwrap_or(identity.gid));
        chownat(device, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
            .during(format_args!("set the owner of {}", node.path))?;
    }
    Ok(())
}

/// The devices of a process without restrictions. Its `/dev` is not `nodev`, so they are made in
/// their place; one whose driver is not there opens nothing.
fn more_devices(dev: &OwnedFd) -> Result<(), StartFailure> {
    let node = |name: &str, kind, major, minor| {
        let path = format!("/dev/{name}");
        let (uid, gid) = (Some(0), Some(0));
        let node = DeviceNode { path, kind, major, minor, mode: 0o600, uid, gid };
        make_in_place(dev, &node, name).during(format_args!("make {}", node.path))
    };
    for (name, major, minor) in MORE_DEVICES {
        node(name, NodeKind::Character, major, minor)?;
    }
    let (major, count) = LOOP;
    (0..count).try_for_each(|minor| node(&format!("loop{minor}"), NodeKind::Block, major, minor))
}

fn mount_in(dev: &OwnedFd, name: &str, mount: OwnedFd) -> Result<(), StartFailure> {
    let action = format!("mount /dev/{name}");
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).during(&action)?;
    move_mount(&mount, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).during(&action)
}

/// Standard input, output and error that are the host's `/dev/null` become the one inside: through
/// a descriptor of the host's file, its owner and permissions could be changed.
pub(crate) fn own_null(root: BorrowedFd<'_>) -> Result<(), StartFailure> {
    let is_null = |fd: BorrowedFd<'_>| {
        fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == makedev(1, 3)
        })
    };
    let (stdin, stdout, stderr) =
        (is_null(stdio::stdin()), is_null(stdio::stdout()), is_null(stdio::stderr()));
    if !(stdin || stdout || stderr) {
        return Ok(());
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = openat(root, "dev/null", flags, Mode::empty()).during("open /dev/null")?;
    if !is_null(null.as_fd()) {
        return Err("it is another file").during("open /dev/null");
    }
    if stdin {
        stdio::dup2_stdin(&null).during("set standard input")?;
    }
    if stdout {
        stdio::dup2_stdout(&null).during("set standard output")?;
    }
    if stderr {
        stdio::dup2_stderr(&null).during("set standard error")?;
    }
    Ok(())
}

/// Makes a terminal in `/dev/pts`, makes it this session's, and standard input, output and error.
/// Returns the master side.
pub(crate) fn open_terminal(root: BorrowedFd<'_>) -> Result<OwnedFd, StartFailure> {
    let action = "make a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(root, "dev/pts/ptmx", flags, Mode::empty()).during(action)?;
    rustix::pty::unlockpt(&master).during(action)?;
    // Not by its name, where a process that is there already may have put something else.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).during(action)?;
    rustix::process::ioctl_tiocsctty(&slave).during(action)?;
    stdio::dup2_stdin(&slave).during(action)?;
    stdio::dup2_stdout(&slave).during(action)?;
    stdio::dup2_stderr(&slave).during(action)?;
    Ok(master)
}

/// Shows a terminal as `/dev/console`.
pub(crate) fn show_console(root: BorrowedFd<'_>, master: &OwnedFd) -> Result<(), StartFailure> {
    let action = "make /dev/console";
    let name = rustix::pty::ptsname(master, Vec::new()).during(action)?;
    let console = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(root, "dev/console", console, Mode::from_raw_mode(0o620)).during(action)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let bind = open_tree(root, name.as_c_str(), clone).during(action)?;
    let attach = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(bind.as_fd(), "", root, "dev/console", attach).during(action)
}
