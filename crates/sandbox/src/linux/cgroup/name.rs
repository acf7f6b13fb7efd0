//! What a control group is called, and whose it is by that.

use std::io;
use std::path::Path;

use super::{MAX_DEPTH, remove_groups};

/// Front of a group's name.
pub(super) const PREFIX: &str = "rbuild-";

/// What a group is called: whose it is.
pub(super) struct Name {
    namespace: String,
    pid: u32,
    start: u64,
}

impl Name {
    pub(super) fn of_this_process() -> io::Result<Self> {
        let namespace = fs_err::read_link("/proc/self/ns/pid")?;
        let digits = |letter: &char| letter.is_ascii_digit();
        let namespace = namespace.to_string_lossy().chars().filter(digits).collect();
        let pid = std::process::id();
        let start = start_of(pid).ok_or_else(|| io::Error::other("/proc does not show it"))?;
        Ok(Self { namespace, pid, start })
    }

    pub(super) fn text(&self) -> String {
        format!("{PREFIX}{}-{}-{}", self.namespace, self.pid, self.start)
    }

    /// Reads a name; `None` for what only begins like one.
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('-');
        let mut part = || parts.next();
        let namespace = part()?.parse::<u64>().ok()?.to_string();
        let (pid, start) = (part()?.parse().ok()?, part()?.parse().ok()?);
        parts.next().is_none().then_some(Self { namespace, pid, start })
    }

    /// Whether a group of that name is one of ours, and not a service that is called alike.
    pub(super) fn is_any(name: &str) -> bool {
        Self::parse(name).is_some()
    }

    /// Whether a group of that name belongs to a helper that is gone.
    fn is_dead(&self, name: &str) -> bool {
        // Numbers of another namespace say nothing here.
        Self::parse(name).is_some_and(|other| {
            other.namespace == self.namespace && start_of(other.pid) != Some(other.start)
        })
    }

    /// Removes what dead helpers left below `parent`.
    pub(super) fn sweep(&self, parent: &Path) {
        let Ok(entries) = fs_err::read_dir(parent) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_str().is_some_and(|name| self.is_dead(name)) {
                // Fails while somebody is still in it; then the next sweep gets it.
                let _ = remove_groups(&entry.path(), MAX_DEPTH);
            }
        }
    }
}

/// When a process started, in ticks since the machine did.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_the_dead_are_taken() {
        let name = Name::of_this_process().unwrap();
        assert!(!name.is_dead(&name.text()));
        // The number is in use again by somebody else.
        let earlier = Name { namespace: name.namespace.clone(), pid: name.pid, start: 1 };
        assert!(name.is_dead(&earlier.text()));
        let elsewhere = Name { namespace: "7".to_owned(), pid: name.pid, start: 1 };
        assert!(!name.is_dead(&elsewhere.text()));
        for other in ["", "rbuild-", "mine", "rbuild-x-y-z", "rbuild-ci.service", "rbuild-1-2-3-4"]
        {
            assert!(!name.is_dead(other) && !Name::is_any(other), "{other}");
        }
        assert!(Name::is_any(&name.text()));
    }
}
