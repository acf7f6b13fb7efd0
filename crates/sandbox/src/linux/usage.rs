//! What the processes of a container use.

use std::io;
use std::time::Duration;

use super::cgroup::memory_of_own_group;
use super::processes::members;

/// What the processes of a container use, as far as they live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on processors, also of those that have ended and were waited for.
    pub cpu: Duration,
    /// Bytes of memory: what the kernel counts where it is limited; else what each process has,
    /// and of what several share its part.
    pub memory: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// How many processes there are.
    pub processes: u64,
}

/// What the processes in the PID namespace of process `first` use.
///
/// # Errors
///
/// When there is no such process.
pub fn usage(first: u32) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for stat in members(first)? {
        usage.processes += 1;
        usage.cpu += stat.cpu + stat.cpu_of_children;
        let text = |file: &str| {
            fs_err::read_to_string(format!("/proc/{}/{file}", stat.pid)).unwrap_or_default()
        };
        let share = field(&text("smaps_rollup"), "Pss:").map(|kibibytes| kibibytes * 1024);
        usage.memory += share.unwrap_or(stat.resident_bytes);
        let io = text("io");
        usage.read += field(&io, "read_bytes:").unwrap_or_default();
        usage.written += field(&io, "write_bytes:").unwrap_or_default();
    }
    if let Some(memory) = memory_of_own_group(first) {
        usage.memory = memory;
    }
    Ok(usage)
}

/// The number behind a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "Rss:  100 kB\nPss:   12 kB\nread_bytes: 7\ncancelled_write_bytes: 9\n";
        assert_eq!(field(text, "Pss:"), Some(12));
        assert_eq!(field(text, "read_bytes:"), Some(7));
        assert_eq!(field(text, "write_bytes:"), None);
        let own = usage(std::process::id()).unwrap();
        assert!(own.memory > 0 && own.processes > 0);
    }
}
