//! Other limits for a process that runs.

use std::path::{Path, PathBuf};

use super::hierarchies::Hierarchies;
use super::name;
use super::settings::{Controller, Setting, Version, is_wanted, settings};
use super::{enable, put_setting};
use crate::linux::child::During as _;
use crate::{Resources, StartFailure};

/// Changes the limits of the group that was made for process `pid`. What is not given stays; what
/// had no limit when the process started has no group of its own, and can get none now.
pub(crate) fn change(pid: u32, resources: &Resources) -> Result<(), StartFailure> {
    let read = |path: String| fs_err::read_to_string(path).during("find control groups");
    let hierarchies = Hierarchies::of(&read("/proc/self/mountinfo".to_owned())?);
    change_in(&hierarchies, &read(format!("/proc/{pid}/cgroup"))?, resources)
}

fn change_in(
    hierarchies: &Hierarchies,
    groups: &str,
    resources: &Resources,
) -> Result<(), StartFailure> {
    if let Some(problem) = resources.problem() {
        return Err(problem).during("limit the process");
    }
    for controller in Controller::ALL.into_iter().filter(|one| is_wanted(resources, *one)) {
        let what = controller.name();
        let (version, directory) = own_group(hierarchies, groups, controller)
            .ok_or("it was started without such a limit; stop it, update it and start it again")
            .during(format_args!("limit {what}"))?;
        if version == Version::Two {
            let (_, root) = hierarchies.of_controller(controller).unzip();
            let ancestors = directory.ancestors().skip(1);
            let mut parents: Vec<&Path> =
                ancestors.take_while(|it| root.is_some_and(|root| it.starts_with(root))).collect();
            parents.reverse();
            for parent in parents {
                enable(parent, controller).during(format_args!("limit {what}"))?;
            }
        }
        let mut settings = settings(resources, controller, version);
        // Memory is never above memory and swap, so which comes first depends on the direction.
        if put_all(&directory, &settings).is_err() {
            settings.reverse();
            put_all(&directory, &settings).during(format_args!("change the limit of {what}"))?;
        }
    }
    Ok(())
}

fn put_all(directory: &Path, settings: &[Setting]) -> std::io::Result<()> {
    settings.iter().try_for_each(|setting| put_setting(directory, setting))
}

/// The directory of the group that a helper made.
fn own_group(
    hierarchies: &Hierarchies,
    groups: &str,
    controller: Controller,
) -> Option<(Version, PathBuf)> {
    let (version, _) = hierarchies.of_controller(controller)?;
    let is_its = |controllers: &str| match version {
        Version::One => controllers.split(',').any(|one| one == controller.name()),
        Version::Two => controllers.is_empty(),
    };
    let mut lines = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let (controllers, group) = lines.find(|(controllers, _)| is_its(controllers))?;
    let directory = hierarchies.directory(controllers, group)?;
    let is_own = directory.file_name()?.to_str()?.starts_with(name::PREFIX);
    is_own.then_some((version, directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines with the unified hierarchy alone are not those that tests run on everywhere.
    #[test]
    fn a_group_of_the_unified_hierarchy_is_changed() {
        let top = tempfile::tempdir().unwrap();
        let group = top.path().join("rbuild/rbuild-1-2-3");
        fs_err::create_dir_all(&group).unwrap();
        for file in ["cgroup.subtree_control", "rbuild/cgroup.subtree_control"] {
            fs_err::write(top.path().join(file), "memory pids cpu").unwrap();
        }
        fs_err::write(top.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        for file in ["memory.max", "memory.swap.max", "pids.max"] {
            fs_err::write(group.join(file), "").unwrap();
        }
        let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", top.path().display());
        let hierarchies = Hierarchies::of(&mounts);
        let resources = Resources { memory: Some(64 << 20), pids: Some(7), ..Resources::default() };
        change_in(&hierarchies, "0::/rbuild/rbuild-1-2-3\n", &resources).unwrap();
        let read = |file: &str| fs_err::read_to_string(group.join(file)).unwrap();
        assert_eq!([read("memory.max"), read("memory.swap.max")], ["67108864", "67108864"]);
        assert_eq!(read("pids.max"), "7");
        // The user's session is no group of ours.
        let failure = change_in(&hierarchies, "0::/user.slice\n", &resources).unwrap_err();
        assert!(failure.reason.contains("started without such a limit"), "{failure:?}");
        let wrong = Resources { memory: Some(1), ..Resources::default() };
        assert!(change_in(&hierarchies, "", &wrong).unwrap_err().reason.contains("too small"));
    }
}
