//! The processes of a container, as `/proc` shows them on the host.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::time::Duration;

/// A process, as `/proc/PID/stat` shows it (proc_pid_stat(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStat {
    /// Its number.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The program's name, cut off after 15 bytes.
    pub name: String,
    /// `R`, `S`, `Z` and others.
    pub state: char,
    /// Its terminal; 0 is none.
    pub terminal: u32,
    /// Time on processors.
    pub cpu: Duration,
    /// The same of its children that ended.
    pub cpu_of_children: Duration,
    /// When it was started, since the machine was.
    pub started: Duration,
    /// Bytes of its address space.
    pub virtual_bytes: u64,
    /// Bytes of it in memory.
    pub resident_bytes: u64,
}

impl ProcessStat {
    /// Reads the file's text; the name in it may hold anything.
    pub fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let time = |count: u64| {
            let nanoseconds = (count % ticks) * (1_000_000_000 / ticks);
            Duration::new(count / ticks, u32::try_from(nanoseconds).unwrap_or_default())
        };
        // The numbers of the manual, less three.
        let sum = |a: usize, b: usize| Some(time(number(a)?.checked_add(number(b)?)?));
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse::<i32>().ok()?.cast_unsigned(),
            cpu: sum(11, 12)?,
            cpu_of_children: sum(13, 14).unwrap_or_default(),
            started: time(number(19)?),
            virtual_bytes: number(20)?,
            resident_bytes: number(21)?.saturating_mul(rustix::param::page_size() as u64),
        })
    }

    /// Whether it has ended and nobody has asked how.
    pub fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }

    fn read(pid: u32) -> Option<Self> {
        // A name need not be UTF-8.
        let text = fs_err::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }
}

/// The processes in the PID namespace of process `first`, and in those that were made in it.
///
/// # Errors
///
/// When `/proc` cannot be read, or there is no such process.
pub fn members(first: u32) -> io::Result<Vec<ProcessStat>> {
    let namespace = |pid: u32| -> io::Result<OsString> {
        Ok(fs_err::read_link(format!("/proc/{pid}/ns/pid"))?.into_os_string())
    };
    let own = namespace(first)?;
    let mut all = HashMap::new();
    let mut inside = HashSet::new();
    for entry in fs_err::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // What ended meanwhile is none.
        let Some(stat) = ProcessStat::read(pid) else { continue };
        if pid == first || namespace(pid).is_ok_and(|namespace| namespace == own) {
            inside.insert(pid);
        }
        all.insert(pid, stat);
    }
    // A zombie has no namespace any more, and a namespace in it has another name: their parents
    // lead here.
    loop {
        let below: Vec<u32> = all
            .values()
            .filter(|stat| inside.contains(&stat.parent) && !inside.contains(&stat.pid))
            .map(|stat| stat.pid)
            .collect();
        if below.is_empty() {
            break;
        }
        inside.extend(below);
    }
    let mut members: Vec<_> = all.into_values().filter(|stat| inside.contains(&stat.pid)).collect();
    members.sort_by_key(|stat| stat.pid);
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_process_is_read() {
        let own = ProcessStat::read(std::process::id()).unwrap();
        assert_eq!(own.pid, std::process::id());
        assert!(own.resident_bytes > 0 && own.virtual_bytes >= own.resident_bytes);
        assert!(!own.is_zombie() && own.started > Duration::ZERO);
        let all = members(own.pid).unwrap();
        assert!(all.iter().any(|stat| stat.pid == own.pid));
        assert!(members(u32::MAX).is_err());
    }

    #[test]
    fn a_name_may_hold_anything() {
        let rest =
            "S 1 2 3 34816 5 6 7 8 9 10 150 50 100 0 20 0 1 0 500 4096 1 18446744073709551615";
        let stat = ProcessStat::parse(&format!("7 (a) R (b\n) {rest}")).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.name.as_str()), (7, 1, "a) R (b\n"));
        assert_eq!((stat.state, stat.terminal, stat.virtual_bytes), ('S', 34816, 4096));
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(stat.cpu.as_millis() as u64, 200 * 1000 / ticks);
    }

    proptest! {
        #[test]
        fn other_text_does_no_harm(text in "[0-9() RSZ\\-]{0,200}") {
            let _ = ProcessStat::parse(&text);
        }
    }
}
