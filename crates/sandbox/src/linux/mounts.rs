//! The child's mounts, all by descriptor.
//!
//! The root filesystem comes from strangers. A mount target in it is opened with
//! `RESOLVE_IN_ROOT`, so that a link can lead no further than its own root, and `/proc`, `/sys`
//! and `/dev` must not be links at all (runc CVE-2019-19921 and its successors).

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rbuild_rooted::openat2;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};

use crate::linux::child::During;
use crate::linux::dev;
use crate::spec::InjectedFile;
use crate::{MountSource, Spec, StartFailure, sys};

/// Docker's masked paths (moby `oci/defaults.go`): they show the host and not the container.
const MASKED: [&str; 12] = [
    "proc/asound",
    "proc/acpi",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
    "sys/devices/virtual/powercap",
];

/// Docker's read-only paths.
const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Attributes of `/proc` and `/sys`.
const NO_PROGRAMS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Name in `/dev` of the place for [`subtree`].
const WHOLE: &str = ".rbuild-whole";

/// Attaches the detached root filesystem and makes it the root of this mount namespace.
pub(crate) fn enter_root(root: &OwnedFd, privileged: bool) -> Result<(), StartFailure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).during("detach from the host's mounts")?;
    if !privileged {
        // Nodes that an image brings, or a process makes, open nothing.
        sys::set_mount_attributes(root.as_fd(), u64::from(MountAttrFlags::MOUNT_ATTR_NODEV.bits()))
            .during("forbid devices in the root filesystem")?;
    }
    // Any directory serves to attach it; the host's root is always there, and pivot_root puts
    // it away.
    move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .during("attach the root filesystem")?;
    rustix::process::fchdir(root).during("enter the root filesystem")?;
    rustix::process::pivot_root(".", ".").during("pivot into the root filesystem")?;
    // The old root now lies on top of the new one.
    unmount(".", UnmountFlags::DETACH).during("let go of the host's files")?;
    rustix::process::chdir("/").during("enter the root filesystem")
}

/// Whether this host has the unified hierarchy of control groups alone; to be asked while its files
/// are in sight.
pub(crate) fn host_is_unified() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// `/proc`, `/dev` (an empty tmpfs) and `/sys`; in that, on a host that is `unified`, the process'
/// own control group. Elsewhere there is nothing to see.
pub(crate) fn system(
    root: BorrowedFd<'_>,
    privileged: bool,
    unified: bool,
) -> Result<(), StartFailure> {
    let read_only = match privileged {
        true => MountAttrFlags::empty(),
        false => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    let proc = filesystem("proc", &[], NO_PROGRAMS)?;
    attach_system(root, "proc", &proc)?;
    let dev = filesystem(
        "tmpfs",
        &[("mode", "755"), ("size", "65536k")],
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | without_devices(privileged)
            | MountAttrFlags::MOUNT_ATTR_STRICTATIME,
    )?;
    attach_system(root, "dev", &dev)?;
    let sys = filesystem("sysfs", &[], NO_PROGRAMS | read_only)?;
    attach_system(root, "sys", &sys)?;
    if unified {
        let cgroup = filesystem("cgroup2", &[], NO_PROGRAMS | read_only)?;
        attach_system(root, "sys/fs/cgroup", &cgroup)?;
    }
    Ok(())
}

/// `nodev`, but for a process that may have devices.
fn without_devices(privileged: bool) -> MountAttrFlags {
    match privileged {
        true => MountAttrFlags::empty(),
        false => MountAttrFlags::MOUNT_ATTR_NODEV,
    }
}

/// A new detached filesystem.
pub(crate) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, StartFailure> {
    let make = || -> Result<OwnedFd, Errno> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().during(format_args!("make a {kind} filesystem"))
}

/// Attaches `mount` at a path of ours; the path must be a real directory.
fn attach_system(root: BorrowedFd<'_>, path: &str, mount: &OwnedFd) -> Result<(), StartFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let target = openat2(root, path, flags, Mode::empty(), resolve).map_err(|errno| {
        if errno == Errno::LOOP {
            io::Error::other("it is a symbolic link in the image, which could lead elsewhere")
        } else {
            errno.into()
        }
    });
    let target = target.during(format_args!("mount /{path}"))?;
    attach(mount, &target).during(format_args!("mount /{path}"))
}

fn attach(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Something that is ready to be attached.
struct Ready<'a> {
    target: &'a str,
    source: OwnedFd,
    attributes: MountAttrFlags,
    /// Whether a place is made for it where there is none.
    required: bool,
}

/// Attaches what the spec asks for: outer mounts before those that lie in them, and the caller's
/// mounts over our own files. `devices` are those of the spec, made.
pub(crate) fn attach_all(
    root: BorrowedFd<'_>,
    files: Files<'_>,
    spec: &Spec,
    detached: Vec<OwnedFd>,
    devices: &[OwnedFd],
) -> Result<(), StartFailure> {
    let mut ready = Vec::new();
    let number_of_files = files.detached.len();
    for (file, source) in files.detached {
        let mut attributes = MountAttrFlags::empty();
        if file.read_only {
            attributes |= NO_PROGRAMS | MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        ready.push(Ready { target: &file.path, source, attributes, required: file.required });
    }
    let mut detached: Vec<_> = detached.into_iter().map(Some).collect();
    for mount in &spec.mounts {
        let mut attributes = without_devices(spec.privileged);
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, mount.read_only);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, mount.no_suid);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, mount.no_exec);
        let source = match &mount.source {
            MountSource::Detached { number, path } => {
                let action = format!("mount {}", mount.target);
                let arrived = detached.get_mut(*number).and_then(Option::take);
                let whole = arrived.ok_or("it did not arrive").during(&action)?;
                if path == "/" {
                    whole
                } else {
                    subtree(&files.dev, whole, path).during(&action)?
                }
            }
            MountSource::Tmpfs { size, mode, owner: (uid, gid), files } => {
                let given = [
                    ("mode", Some(format!("{mode:o}"))),
                    ("uid", Some(uid.to_string())),
                    ("gid", Some(gid.to_string())),
                    ("size", size.map(|size| size.to_string())),
                    ("nr_inodes", files.map(|files| files.to_string())),
                ];
                let mut options = vec![("source", "tmpfs")];
                options.extend(given.iter().filter_map(|(key, it)| Some((*key, it.as_deref()?))));
                filesystem("tmpfs", &options, MountAttrFlags::empty())?
            }
        };
        ready.push(Ready { target: &mount.target, source, attributes, required: true });
    }
    for (node, device) in dev::mounted(spec).zip(devices) {
        let source = device.try_clone().during(format_args!("mount {}", node.path))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        ready.push(Ready { target: &node.path, source, attributes, required: true });
    }
    ready.sort_by_key(|mount| mount.target);
    ready.iter().try_for_each(|mount| attach_one(root, mount))?;
    for number in 0..number_of_files {
        // By descriptor: a mount may lie over /dev by now.
        unlinkat(&files.dev, hidden(number), AtFlags::empty()).during("tidy /dev")?;
    }
    Ok(())
}

/// One path of a detached mount, as a detached mount of its own.
///
/// Before Linux 6.15 the kernel takes nothing out of a mount that is in no namespace. So the
/// whole is attached first, on a directory of `/dev` that nobody sees: the process does not run
/// yet, nothing of strangers lies over `/dev` yet, and the copy stays when the whole goes.
fn subtree(dev: &OwnedFd, whole: OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    mkdirat(dev, WHOLE, Mode::from_raw_mode(0o700))?;
    move_mount(&whole, "", dev, WHOLE, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let relative = path.trim_start_matches('/');
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(whole.as_fd(), relative, flags, Mode::empty(), resolve)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let part = open_tree(place, "", flags)?;
    drop(whole);
    unmount(format!("/dev/{WHOLE}"), UnmountFlags::DETACH)?;
    unlinkat(dev, WHOLE, AtFlags::REMOVEDIR)?;
    Ok(part)
}

fn attach_one(root: BorrowedFd<'_>, mount: &Ready<'_>) -> Result<(), StartFailure> {
    let action = format!("mount {}", mount.target);
    let attributes = u64::from(mount.attributes.bits());
    sys::set_mount_attributes(mount.source.as_fd(), attributes).during(&action)?;
    let is_directory =
        fstat(&mount.source).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    let target = match open_in_root(root, mount.target, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) if !mount.required => return Ok(()),
        // Its place was made in the root filesystem, and an earlier mount lies over that.
        Err(Errno::NOENT) => {
            make_target(root, mount.target, is_directory).during(&action)?;
            open_in_root(root, mount.target, OFlags::PATH)
        }
        other => other,
    };
    let target = target.during(&action)?;
    let target_is_directory =
        fstat(&target).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
    if is_directory != target_is_directory {
        let reason = if is_directory {
            "a directory cannot be mounted on a file"
        } else {
            "a file cannot be mounted on a directory"
        };
        return Err(reason).during(&action);
    }
    attach(&mount.source, &target).during(&action)
}

/// Makes a place to mount on, in whatever is mounted there.
fn make_target(root: BorrowedFd<'_>, path: &str, is_directory: bool) -> Result<(), Errno> {
    if is_directory {
        return make_directories(root, path, (0, 0));
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    make_directories(root, parent, (0, 0))?;
    let parent = if parent.is_empty() { "." } else { parent };
    let parent = open_in_root(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
}

/// Opens a path of the root filesystem; links lead no further than its root.
fn open_in_root(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Reads a regular file of the root filesystem; a missing one is empty.
pub(crate) fn read_small(root: BorrowedFd<'_>, path: &str, cap: usize) -> io::Result<Vec<u8>> {
    // A FIFO must not hold us up.
    let file = match open_in_root(root, path, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(cap as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > cap {
        return Err(io::Error::other(format!("it is larger than {cap} bytes")));
    }
    Ok(bytes)
}

/// Makes the missing directories of `path`, owned by `owner`.
pub(crate) fn make_directories(
    root: BorrowedFd<'_>,
    path: &str,
    owner: (u32, u32),
) -> Result<(), Errno> {
    let mut made = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = open_in_root(
            root,
            if made.is_empty() { "." } else { &made },
            OFlags::PATH | OFlags::DIRECTORY,
        )?;
        if !made.is_empty() {
            made.push('/');
        }
        made.push_str(part);
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                chownat(&parent, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Files that have yet to be attached. Their bytes live in `/dev`'s tmpfs, without a name once
/// they are, so nothing is left on any disk.
pub(crate) struct Files<'a> {
    dev: OwnedFd,
    detached: Vec<(&'a InjectedFile, OwnedFd)>,
}

/// Makes the files of the spec: those below `/dev` in their place, the others as detached mounts
/// of a file.
pub(crate) fn make_files<'a>(
    root: BorrowedFd<'_>,
    files: &'a [InjectedFile],
) -> Result<Files<'a>, StartFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dev = open_in_root(root, "dev", flags).during("open /dev")?;
    let mut detached = Vec::new();
    for file in files {
        let action = format!("provide {}", file.path);
        if let Some(name) = file.path.strip_prefix("/dev/") {
            write_in_dev(root, name, file).during(&action)?;
            continue;
        }
        let hidden = hidden(detached.len());
        write_in_dev(root, &hidden, file).during(&action)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let source = open_tree(&dev, &hidden, flags).during(&action)?;
        detached.push((file, source));
    }
    Ok(Files { dev, detached })
}

/// The kernel attaches no mount of a file without a name, so it has one until then.
fn hidden(number: usize) -> String {
    format!(".rbuild-injected-{number}")
}

fn write_in_dev(root: BorrowedFd<'_>, name: &str, file: &InjectedFile) -> io::Result<()> {
    let path = format!("dev/{name}");
    if let Some((parent, _)) = path.rsplit_once('/') {
        make_directories(root, parent, (0, 0))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let made = openat2(root, path.as_str(), flags, Mode::from_raw_mode(file.mode), resolve)?;
    let (uid, gid) = file.owner;
    rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    io::Write::write_all(&mut std::fs::File::from(made), &file.content)
}

/// Hides and protects what would show or change the host.
pub(crate) fn mask(root: BorrowedFd<'_>) -> Result<(), StartFailure> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    for path in MASKED {
        let action = format!("mask /{path}");
        let Some(target) = existing(root, path).during(&action)? else { continue };
        let is_directory =
            fstat(&target).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        let cover = if is_directory {
            let options = [("nr_inodes", "2"), ("size", "4k"), ("mode", "755")];
            filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_RDONLY)?
        } else {
            open_tree(root, "dev/null", clone).during(&action)?
        };
        attach(&cover, &target).during(&action)?;
    }
    for path in READ_ONLY {
        let action = format!("make /{path} read-only");
        let Some(target) = existing(root, path).during(&action)? else { continue };
        let flags = clone | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&target, "", flags).during(&action)?;
        let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::set_mount_attributes(copy.as_fd(), read_only).during(&action)?;
        attach(&copy, &target).during(&action)?;
    }
    Ok(())
}

fn existing(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes the root filesystem itself, not what is mounted in it, read-only.
pub(crate) fn make_read_only(_root: BorrowedFd<'_>) -> Result<(), StartFailure> {
    use rustix::mount::{MountFlags, mount_remount};
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, "")
        .during("make the root filesystem read-only")
}
