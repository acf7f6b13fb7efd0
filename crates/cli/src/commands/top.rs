//! `rbuild top`.

use std::time::Duration;

use rbuild::ContainerProcess;

use crate::args::container::TopArgs;
use crate::commands::Context;
use crate::failure::Failure;
use crate::table::Table;
use crate::{exit_code, human, output};

/// The columns of `ps -ef`, which are Docker's default.
const FULL: [&str; 8] = ["user", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];

/// Lists the processes of a container.
pub fn run(args: &TopArgs, context: &Context<'_>) -> Result<i32, Failure> {
    let columns = columns(&args.options)?;
    let processes = context.engine()?.container(&args.container)?.processes()?;
    let machine = Machine::now();
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let mut table = Table::new(&titles);
    for process in &processes {
        let cells: Vec<String> =
            columns.iter().map(|column| (column.cell)(process, &machine)).collect();
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    output::data(table.render())?;
    Ok(exit_code::SUCCESS)
}

/// What the machine knows besides.
struct Machine {
    /// Since it was started.
    up: Duration,
    /// Lines of `/etc/passwd`.
    users: String,
}

impl Machine {
    fn now() -> Self {
        let text = fs_err::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = text.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        let up = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let users = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
        Self { up: up.unwrap_or_default(), users }
    }

    /// The name of a user of the host, or the number, as ps(1) shows it.
    fn user(&self, number: u32) -> String {
        let named = self.users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
        });
        named.unwrap_or_else(|| number.to_string())
    }
}

/// A column: its name for `-o`, its title, and what is in it.
struct Column {
    name: &'static str,
    title: &'static str,
    cell: fn(&ContainerProcess, &Machine) -> String,
}

const COLUMNS: [Column; 16] = [
    Column { name: "pid", title: "PID", cell: |it, _| it.stat.pid.to_string() },
    Column { name: "ppid", title: "PPID", cell: |it, _| it.stat.parent.to_string() },
    Column { name: "uid", title: "UID", cell: |it, _| it.user.to_string() },
    Column { name: "user", title: "UID", cell: |it, machine| machine.user(it.user) },
    Column { name: "c", title: "C", cell: |it, machine| format!("{:.0}", share(it, machine)) },
    Column {
        name: "pcpu",
        title: "%CPU",
        cell: |it, machine| format!("{:.1}", share(it, machine)),
    },
    Column {
        name: "%cpu",
        title: "%CPU",
        cell: |it, machine| format!("{:.1}", share(it, machine)),
    },
    Column { name: "stime", title: "STIME", cell: started },
    Column { name: "tty", title: "TTY", cell: |it, _| terminal(it.stat.terminal) },
    Column { name: "time", title: "TIME", cell: |it, _| clock(it.stat.cpu) },
    Column { name: "stat", title: "STAT", cell: |it, _| it.stat.state.to_string() },
    Column { name: "rss", title: "RSS", cell: |it, _| (it.stat.resident_bytes / 1024).to_string() },
    Column { name: "vsz", title: "VSZ", cell: |it, _| (it.stat.virtual_bytes / 1024).to_string() },
    Column { name: "comm", title: "COMMAND", cell: |it, _| it.stat.name.clone() },
    Column { name: "args", title: "COMMAND", cell: |it, _| it.command.join(" ") },
    Column { name: "cmd", title: "CMD", cell: |it, _| it.command.join(" ") },
];

fn columns(options: &[String]) -> Result<Vec<&'static Column>, Failure> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let names: Vec<&str> = match words.as_slice() {
        [] | ["-ef" | "-e" | "-f"] => FULL.to_vec(),
        ["-o" | "-eo", list] => list.split(',').collect(),
        [one] if one.starts_with("-o") && one.len() > 2 => one[2..].split(',').collect(),
        [first, ..] => {
            return Err(Failure::usage_hint(
                format!("top: {first} is not supported yet"),
                "of the options of ps there are -ef and -o COLUMN[,…]",
            ));
        }
    };
    let column = |name: &&str| {
        COLUMNS.iter().find(|column| column.name == *name).ok_or_else(|| {
            let known: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
            Failure::usage_hint(
                format!("top: there is no column {name}"),
                format!("there are {}", known.join(", ")),
            )
        })
    };
    names.iter().map(column).collect()
}

/// Percent of the time since it was started that it was on processors.
fn share(process: &ContainerProcess, machine: &Machine) -> f64 {
    let since = machine.up.saturating_sub(process.stat.started).as_secs_f64();
    if since <= 0.0 { 0.0 } else { 100.0 * process.stat.cpu.as_secs_f64() / since }
}

/// The time of the day, or the day if it was another one.
fn started(process: &ContainerProcess, machine: &Machine) -> String {
    let since = machine.up.saturating_sub(process.stat.started);
    let now = human::now();
    let time = human::rfc3339(now - i64::try_from(since.as_millis()).unwrap_or_default());
    let today = human::rfc3339(now);
    match time.get(..10) == today.get(..10) {
        true => time.get(11..16).unwrap_or_default().to_owned(),
        false => time.get(..10).unwrap_or_default().to_owned(),
    }
}

/// The name of a terminal by its number: those of programs have majors from 136 on.
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// `00:01:02`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ps_choose_columns() {
        let titles = |line: &str| -> Option<Vec<&str>> {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Some(columns(&words).ok()?.iter().map(|column| column.title).collect())
        };
        assert_eq!(titles("").unwrap().join(" "), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("-ef"), titles(""));
        assert_eq!(titles("-o pid,args").unwrap().join(" "), "PID COMMAND");
        assert_eq!(titles("-opid,comm"), titles("-eo pid,comm"));
        for bad in ["aux", "-o nothing", "-o pid --sort pid", "-H"] {
            assert_eq!(titles(bad), None, "{bad}");
        }
    }

    #[test]
    fn terminals_and_times_are_written_as_ps_does() {
        assert_eq!(
            (terminal(0), terminal(34816), terminal(34817)),
            ("?".into(), "pts/0".into(), "pts/1".into())
        );
        assert_eq!(terminal(1025), "tty1");
        assert_eq!(clock(Duration::from_secs(3725)), "01:02:05");
    }
}
