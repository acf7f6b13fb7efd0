//! Entering the control groups of another process.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};

use super::explain_join;
use super::hierarchies::Hierarchies;
use crate::StartFailure;
use crate::linux::child::During as _;

/// The files that lead into the groups of a process, opened while they can be reached.
pub(crate) struct Entrances {
    files: Vec<(PathBuf, OwnedFd)>,
}

impl Entrances {
    /// Those of process `pid`, but for groups in which this process is already.
    pub(crate) fn of(pid: u32) -> Result<Self, StartFailure> {
        let read = |path: String| fs_err::read_to_string(path).during("find control groups");
        let own = read("/proc/self/cgroup".to_owned())?;
        let theirs = read(format!("/proc/{pid}/cgroup"))?;
        let hierarchies = Hierarchies::of(&read("/proc/self/mountinfo".to_owned())?);
        let mut files = Vec::new();
        for (controllers, group) in elsewhere(&own, &theirs) {
            // What is mounted nowhere was set up by nobody here.
            let Some(directory) = hierarchies.directory(controllers, group) else { continue };
            let path = directory.join("cgroup.procs");
            let file = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .during(format_args!("open the control group {}", directory.display()))?;
            files.push((directory, file));
        }
        Ok(Self { files })
    }

    /// Moves the calling process there.
    pub(crate) fn enter(&self) -> Result<(), StartFailure> {
        for (directory, file) in &self.files {
            rustix::io::write(file, b"0")
                .map_err(|errno| explain_join(errno.into()))
                .during(format_args!("enter the control group {}", directory.display()))?;
        }
        Ok(())
    }
}

/// Controllers and group of each line of `theirs` that is not in `own` (cgroups(7)).
fn elsewhere<'a>(own: &str, theirs: &'a str) -> Vec<(&'a str, &'a str)> {
    let different = theirs.lines().filter(|line| !own.lines().any(|mine| mine == *line));
    different.filter_map(|line| line.split_once(':')?.1.split_once(':')).collect()
}

#[cfg(test)]
mod tests {
    use super::elsewhere;

    #[test]
    fn groups_that_differ_are_found() {
        let own = "4:memory:/\n2:cpu,cpuacct:/a\n0::/b\n";
        let theirs = "4:memory:/rbuild/x:y\n2:cpu,cpuacct:/a\n0::/c\nnonsense\n";
        assert_eq!(elsewhere(own, theirs), [("memory", "/rbuild/x:y"), ("", "/c")]);
        assert_eq!(elsewhere(own, own), []);
    }
}
