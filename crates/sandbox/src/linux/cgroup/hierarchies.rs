//! Where the kernel's hierarchies of control groups are.

use std::path::{Path, PathBuf};

use super::settings::{Controller, Version};

/// Where hierarchies are mounted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Hierarchies {
    unified: Option<Mounted>,
    /// What the unified one can limit.
    controllers: Vec<String>,
    /// Those of the old kind, with their options.
    old: Vec<(String, Mounted)>,
}

/// One hierarchy, or a part of it.
#[derive(Debug, PartialEq)]
struct Mounted {
    /// The group that shows at `place`.
    group: String,
    place: PathBuf,
}

impl Hierarchies {
    /// Where the unified one is.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.unified.as_ref().map(|mounted| mounted.place.as_path())
    }

    pub(super) fn of(mountinfo: &str) -> Self {
        let mut found = Self::parse(mountinfo);
        if let Some(root) = &found.unified {
            let file = root.place.join("cgroup.controllers");
            let text = fs_err::read_to_string(file).unwrap_or_default();
            found.controllers = text.split_whitespace().map(str::to_owned).collect();
        }
        found
    }

    /// Reads `/proc/self/mountinfo` (proc(5)): where they are, and nothing of what they can limit.
    pub(super) fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((front, back)) = line.split_once(" - ") else { continue };
            let mut back = back.split(' ');
            let (kind, options) = (back.next(), back.nth(1));
            let mut front = front.split(' ').skip(3);
            let (Some(group), Some(place)) = (front.next(), front.next()) else { continue };
            let mounted = Mounted { group: group.to_owned(), place: place.into() };
            match (kind, options) {
                (Some("cgroup2"), _) => {
                    found.unified.get_or_insert(mounted);
                }
                (Some("cgroup"), Some(options)) => found.old.push((options.to_owned(), mounted)),
                _ => {}
            }
        }
        found
    }

    pub(super) fn of_controller(&self, controller: Controller) -> Option<(Version, &Path)> {
        let name = controller.name();
        match &self.unified {
            Some(root) if self.controllers.iter().any(|it| it == name) => {
                Some((Version::Two, &root.place))
            }
            _ => self
                .old
                .iter()
                .find(|(options, _)| options.split(',').any(|option| option == name))
                .map(|(_, mounted)| (Version::One, mounted.place.as_path())),
        }
    }

    /// The directory of a group of the hierarchy with these controllers, which are empty for the
    /// unified one; `None` when it is mounted nowhere.
    pub(super) fn directory(&self, controllers: &str, group: &str) -> Option<PathBuf> {
        let same = |options: &str| {
            controllers.split(',').all(|one| options.split(',').any(|option| option == one))
        };
        let mounted = match controllers {
            "" => self.unified.as_ref()?,
            _ => self.old.iter().find(|(options, _)| same(options)).map(|(_, mounted)| mounted)?,
        };
        let below = Path::new(group).strip_prefix(&mounted.group).ok()?;
        Some(mounted.place.join(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mut found = Hierarchies::parse(hybrid);
        let memory = Path::new("/sys/fs/cgroup/memory");
        assert_eq!(found.of_controller(Controller::Memory), Some((Version::One, memory)));
        let cpu = Path::new("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(found.of_controller(Controller::Cpu), Some((Version::One, cpu)));
        assert_eq!(found.of_controller(Controller::Cpuset), None);
        let cpu_group = Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b");
        assert_eq!(found.directory("cpu,cpuacct", "/a/b").as_deref(), Some(cpu_group));
        assert_eq!(found.directory("memory", "/").as_deref(), Some(memory));
        assert_eq!(found.directory("pids", "/"), None);
        let unified_group = Path::new("/sys/fs/cgroup/unified/x");
        assert_eq!(found.directory("", "/x").as_deref(), Some(unified_group));
        // A controller is in one hierarchy only.
        found.controllers = vec!["memory".to_owned(), "cpuset".to_owned()];
        let unified = Path::new("/sys/fs/cgroup/unified");
        assert_eq!(found.of_controller(Controller::Memory), Some((Version::Two, unified)));
        assert_eq!(found.of_controller(Controller::Cpu), Some((Version::One, cpu)));
        assert_eq!(Hierarchies::parse("nonsense\n - \n1 2 - cgroup"), Hierarchies::default());
    }
}
