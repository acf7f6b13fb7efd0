//! Control groups: made by the helper, joined by the child, removed by the helper.
//!
//! A process gets one only when something is to be limited, since groups cost more than all the
//! rest of a start. The helper is not in it: it must outlive what the kernel kills there. It also
//! outlives the engine, so a group goes whatever becomes of that. Only a helper that is killed
//! itself leaves one behind, empty, because its child dies with it; the next helper below the same
//! parent removes it. To tell it from a group that is in use, its name holds the helper's number,
//! start, and PID namespace.

mod change;
mod entrances;
mod freezer;
mod hierarchies;
mod name;
mod settings;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, XattrFlags, getxattr, open, setxattr};

pub(crate) use self::change::change;
pub(crate) use self::entrances::Entrances;
pub use self::freezer::{Freezer, sweep};
use self::hierarchies::Hierarchies;
use self::name::Name;
use self::settings::{Controller, Setting, Version, is_wanted, settings};
use crate::linux::child::During as _;
use crate::{Resources, StartFailure, sys};

/// The parent of groups when none is named.
const PARENT: &str = "rbuild";
/// Marks parents that some helper made: the last to leave removes them. Those of the user stay.
const MADE: &str = "trusted.rbuild";
/// How deep groups in a group are looked for.
const MAX_DEPTH: u32 = 32;
/// How often a group is made and removed again: others may take its parents away, and it is busy for
/// a moment after its last process.
const ATTEMPTS: u32 = 100;

/// The group of one process: a directory in the unified hierarchy, or one for each controller.
#[derive(Debug, Default)]
pub(crate) struct Group {
    directories: Vec<PathBuf>,
    /// Parents that helpers made.
    parents: Vec<PathBuf>,
    /// The file that counts whom the kernel killed.
    kills: Option<PathBuf>,
}

impl Group {
    /// Makes the group that `resources` need, if any.
    pub(crate) fn create(resources: &Resources) -> Result<Option<Self>, StartFailure> {
        if *resources == Resources::default() {
            return Ok(None);
        }
        if let Some(problem) = resources.problem() {
            return Err(problem).during("limit the process");
        }
        let mounts =
            fs_err::read_to_string("/proc/self/mountinfo").during("find control groups")?;
        let name = Name::of_this_process().during("name a control group")?;
        let mut group = Self::default();
        match group.fill(resources, &Hierarchies::of(&mounts), &name) {
            Ok(()) => Ok(Some(group)),
            Err(failure) => {
                group.remove();
                Err(failure)
            }
        }
    }

    fn fill(
        &mut self,
        resources: &Resources,
        hierarchies: &Hierarchies,
        name: &Name,
    ) -> Result<(), StartFailure> {
        let parent = resources.cgroup_parent.as_deref().unwrap_or(PARENT).trim_matches('/');
        let parent = if parent.is_empty() { PARENT } else { parent };
        let wanted = Controller::ALL.into_iter().filter(|one| is_wanted(resources, *one));
        let mut wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            // A parent alone was named: whatever it limits is to count.
            wanted = vec![Controller::Memory, Controller::Cpu];
            wanted.retain(|one| hierarchies.of_controller(*one).is_some());
        }
        for controller in wanted {
            let what = controller.name();
            let missing = || format!("the kernel offers no {what} controller of control groups");
            let (version, root) = hierarchies
                .of_controller(controller)
                .ok_or_else(missing)
                .during(format_args!("limit {what}"))?;
            let directory = self
                .directory(version, root, controller, parent, name)
                .during(format_args!("make a control group for {what}"))?;
            for setting in settings(resources, controller, version) {
                put_setting(&directory, &setting)
                    .during(format_args!("limit {what} to {}", setting.value))?;
            }
            if controller == Controller::Memory {
                let file = match version {
                    Version::One => "memory.oom_control",
                    Version::Two => "memory.events",
                };
                self.kills = Some(directory.join(file));
            }
        }
        Ok(())
    }

    /// The group's directory in one hierarchy, made with the first controller that is there.
    ///
    /// A helper that leaves may remove the parents at any moment until there is something in them,
    /// which fails in several ways. Then all of them are looked at once more: a new one has none of
    /// the settings of the old.
    fn directory(
        &mut self,
        version: Version,
        root: &Path,
        controller: Controller,
        parent: &str,
        name: &Name,
    ) -> io::Result<PathBuf> {
        let mut attempt = 1;
        loop {
            let made = self.try_directory(version, root, controller, parent, name);
            if made.is_ok() || attempt == ATTEMPTS {
                return made;
            }
            attempt += 1;
        }
    }

    fn try_directory(
        &mut self,
        version: Version,
        root: &Path,
        controller: Controller,
        parent: &str,
        name: &Name,
    ) -> io::Result<PathBuf> {
        let mut at = root.to_owned();
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            if version == Version::Two {
                enable(&at, controller)?;
            }
            at.push(part);
            if make(&at)? {
                // Where that fails, the parent stays: nothing worse.
                let _ = setxattr(&at, MADE, b"1", XattrFlags::empty());
            }
            if is_ours(&at) && !self.parents.contains(&at) {
                self.parents.push(at.clone());
            }
            if version == Version::One && controller == Controller::Cpuset {
                inherit_cpuset(&at)?;
            }
        }
        if version == Version::Two {
            enable(&at, controller)?;
        }
        name.sweep(&at);
        let directory = at.join(name.text());
        if !self.directories.contains(&directory) {
            make(&directory)?;
            self.directories.push(directory.clone());
        }
        if version == Version::One && controller == Controller::Cpuset {
            inherit_cpuset(&directory)?;
        }
        Ok(directory)
    }

    /// Moves the calling process into the group and makes the group all that it sees of groups.
    pub(crate) fn join(group: Option<&Self>) -> Result<(), StartFailure> {
        for directory in group.iter().flat_map(|group| &group.directories) {
            put(&directory.join("cgroup.procs"), "0")
                .map_err(explain_join)
                .during(format_args!("enter the control group {}", directory.display()))?;
        }
        sys::new_cgroup_namespace().during("create a namespace of control groups")
    }

    /// Whether the kernel killed somebody in the group because its memory was used up.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = self.kills.as_ref().and_then(|path| fs_err::read_to_string(path).ok());
        text.is_some_and(|text| oom_kills(&text) > 0)
    }

    /// Removes it. Whoever was in it must be dead.
    pub(crate) fn remove(self) {
        for directory in &self.directories {
            for _ in 0..ATTEMPTS {
                match remove_groups(directory, MAX_DEPTH) {
                    Err(rustix::io::Errno::BUSY) => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    _ => break,
                }
            }
        }
        for parent in self.parents.iter().rev() {
            // Others may be using it.
            let _ = rustix::fs::rmdir(parent);
        }
    }
}

/// Bytes of memory that the group of a process holds, without files that can be read again, if it has
/// one of ours for that.
pub(crate) fn memory_of_own_group(process: u32) -> Option<u64> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").ok()?;
    let hierarchies = Hierarchies::parse(&mounts);
    let groups = fs_err::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = |controllers: &str| {
        let paths = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let path =
            paths.into_iter().find(|(names, _)| names.split(',').any(|it| it == controllers));
        let (names, path) = path?;
        let directory = hierarchies.directory(names, path)?;
        let name = directory.file_name()?.to_str()?;
        Name::is_any(name).then_some(directory)
    };
    let (directory, file, files) = match group("memory") {
        Some(directory) => (directory, "memory.usage_in_bytes", "total_inactive_file "),
        None => (group("")?, "memory.current", "inactive_file "),
    };
    let held: u64 = fs_err::read_to_string(directory.join(file)).ok()?.trim().parse().ok()?;
    let stat = fs_err::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix(files)?.trim().parse().ok());
    Some(held.saturating_sub(files.unwrap_or(0)))
}

/// Makes one directory; whether it was not there.
fn make(path: &Path) -> io::Result<bool> {
    match fs_err::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_ours(parent: &Path) -> bool {
    getxattr(parent, MADE, &mut [0_u8; 1]).is_ok()
}

/// Removes a group and those that a privileged process made in it.
fn remove_groups(directory: &Path, depth: u32) -> rustix::io::Result<()> {
    let removed = rustix::fs::rmdir(directory);
    if removed != Err(rustix::io::Errno::BUSY) || depth == 0 {
        return removed;
    }
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path(), depth - 1)?;
        }
    }
    rustix::fs::rmdir(directory)
}

/// Control files are written in one call and never made. An error keeps the kernel's number, by
/// which hints are given, and so has no path.
fn put(path: &Path, value: &str) -> io::Result<()> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Limits something as far as the kernel can, or must.
fn put_setting(directory: &Path, setting: &Setting) -> io::Result<()> {
    match put(&directory.join(setting.file), &setting.value) {
        Err(error) if !setting.required && error.kind() == io::ErrorKind::NotFound => Ok(()),
        put => put,
    }
}

fn explain_join(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EINVAL) {
        let hint = "a process with a real-time priority cannot enter a group of processor limits";
        return io::Error::other(format!("{error} ({hint})"));
    }
    error
}

/// Lets the groups below a directory of the unified hierarchy use a controller.
fn enable(directory: &Path, controller: Controller) -> io::Result<()> {
    let file = directory.join("cgroup.subtree_control");
    let name = controller.name();
    if fs_err::read_to_string(&file)?.split_whitespace().any(|enabled| enabled == name) {
        return Ok(());
    }
    put(&file, &format!("+{name}")).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => io::Error::other(format!(
            "{error} (there are processes in that group itself; name a --cgroup-parent without any)"
        )),
        _ => io::Error::other(format!("{}: {error}", file.display())),
    })
}

/// A new group of the old kind has no processors and no memory until it is told.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs_err::read_to_string(directory.join(file))?.trim().is_empty() {
            let inherited = fs_err::read_to_string(parent.join(file))?;
            put(&directory.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

/// The number behind `oom_kill`, the same word in both versions.
fn oom_kills(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .find_map(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hints are given by it.
    #[test]
    fn failures_of_control_files_keep_their_number() {
        let error = put(Path::new("/proc/self/oom_score_adj"), "nonsense").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert!(explain_join(error).to_string().contains("real-time"));
    }

    /// A directory with the files of a group in it, as the kernel makes one.
    fn fake(path: &Path, files: &[&str]) {
        fs_err::create_dir_all(path).unwrap();
        files.iter().for_each(|file| fs_err::write(path.join(file), "").unwrap());
    }

    /// Machines with the unified hierarchy alone are not those that tests run on everywhere.
    #[test]
    fn a_group_of_the_unified_hierarchy_gets_its_limits() {
        let top = tempfile::tempdir().unwrap();
        let name = Name::of_this_process().unwrap();
        let directory = top.path().join("a/b").join(name.text());
        for parent in ["", "a", "a/b"] {
            fake(&top.path().join(parent), &["cgroup.subtree_control"]);
        }
        fs_err::write(top.path().join("cgroup.controllers"), "cpuset cpu memory pids").unwrap();
        // Swap is not counted here.
        fake(&directory, &["memory.max", "memory.events", "cpu.max", "pids.max", "cgroup.procs"]);
        fs_err::write(directory.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", top.path().display());
        let resources = Resources {
            cgroup_parent: Some("/a/b".to_owned()),
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            pids: Some(9),
            ..Resources::default()
        };
        let fill = |resources: &Resources| {
            let mut group = Group::default();
            group.fill(resources, &Hierarchies::of(&mounts), &name).map(|()| group)
        };
        let group = fill(&resources).unwrap();
        let read = |file: &str| fs_err::read_to_string(directory.join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("pids.max"), "9");
        for parent in ["", "a", "a/b"] {
            let file = top.path().join(parent).join("cgroup.subtree_control");
            // The kernel adds each to what is there; here the last is written over the others.
            assert!(fs_err::read_to_string(file).unwrap().starts_with("+pids"), "{parent}");
        }
        assert!(group.ran_out_of_memory());
        assert_eq!(group.directories, [directory]);
        let failure = fill(&Resources { memory_swap: Some(96 << 20), ..resources }).unwrap_err();
        assert!(failure.action.contains("limit memory to 33554432"), "{failure:?}");
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        let one = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
        let two = "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((oom_kills(one), oom_kills(two), oom_kills("")), (2, 1, 0));
    }
}
