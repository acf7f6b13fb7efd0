//! Looks through /proc and the cgroup tree for what a build left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::failure::Outcome;

/// Mount points below `dir` in this process's mount namespace, outer ones first.
pub(crate) fn mounts_below(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let table = fs_err::read_to_string("/proc/self/mountinfo")?;
    let dir = std::path::absolute(dir)?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(points.map(PathBuf::from).filter(|p| p.starts_with(&dir)).collect())
}

/// Lines of any process's mount table that name `dir`: one for every distinct line.
pub(crate) fn mounts_anywhere(dir: &Path) -> BTreeSet<String> {
    let needle = dir.display().to_string();
    let mut found = BTreeSet::new();
    for pid in pids() {
        // A process may end between the two looks; then it holds no mount either.
        let table = fs_err::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        found.extend(table.lines().filter(|l| l.contains(&needle)).map(str::to_owned));
    }
    found
}

/// Processes that have `marker` in their arguments or environment, or their program, root or
/// current folder below `dir`, as `PID COMMAND`. This process itself does not count.
pub(crate) fn processes(dir: &Path, marker: &str) -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for pid in pids().into_iter().filter(|pid| *pid != own) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let text = |file: &str| {
            let bytes = fs_err::read(proc.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let inside = |link: &str| {
            fs_err::read_link(proc.join(link)).is_ok_and(|target| target.starts_with(dir))
        };
        let arguments = text("cmdline");
        // A zombie has neither arguments nor an environment: its parent is the one to ask.
        if arguments.contains(marker)
            || text("environ").contains(marker)
            || inside("exe")
            || inside("root")
            || inside("cwd")
        {
            found.push(format!("{pid} {}", arguments.trim()));
        }
    }
    found
}

/// The environments of all processes, as the kernel has them.
pub(crate) fn environments() -> Vec<String> {
    let text = |pid| fs_err::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pids().into_iter().map(|pid| String::from_utf8_lossy(&text(pid)).into_owned()).collect()
}

/// What a process has in memory, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The first of its arguments.
    pub(crate) name: String,
    /// All that it has in memory.
    pub(crate) resident: u64,
    /// The same, where what several have counts once for all of them together.
    pub(crate) proportional: u64,
}

/// The memory of all processes whose program lies below `dir`.
pub(crate) fn memory(dir: &Path) -> Vec<Memory> {
    let mut found = Vec::new();
    for pid in pids() {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        if !fs_err::read_link(proc.join("exe")).is_ok_and(|program| program.starts_with(dir)) {
            continue;
        }
        let arguments = fs_err::read(proc.join("cmdline")).unwrap_or_default();
        let name = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        let table = fs_err::read_to_string(proc.join("smaps_rollup")).unwrap_or_default();
        let kibibytes = |key: &str| {
            let line = table.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
        };
        found.push(Memory {
            name: String::from_utf8_lossy(name).into_owned(),
            resident: kibibytes("Rss:") << 10,
            proportional: kibibytes("Pss:") << 10,
        });
    }
    found
}

/// Control groups whose name mentions the engine.
pub(crate) fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs_err::read_dir(&dir) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            if entry.file_name().to_string_lossy().contains("rbuild") {
                found.insert(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

/// Everything directly inside `dir`; nothing when there is no such folder.
pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs_err::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).collect()
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Undoes the octal escapes of mountinfo, see proc(5).
fn unescape(text: &str) -> String {
    ["\\040 ", "\\011\t", "\\012\n", "\\134\\"].iter().fold(text.to_owned(), |text, pair| {
        let (escape, plain) = pair.split_at(4);
        text.replace(escape, plain)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn the_proc_mount_is_found_and_a_made_up_one_is_not() {
        assert!(mounts_below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(mounts_below(Path::new("/no/such")).unwrap().is_empty());
    }

    #[test]
    fn a_process_is_found_by_its_environment() {
        let marker = format!("LEFTOVER_{}", std::process::id());
        let mut child = std::process::Command::new("cat")
            .env(&marker, "1")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Once it answers it has its environment, which is not yet so when the start returns.
        child.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = processes(Path::new("/no/such"), &marker);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn blanks_in_mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
