//! A server that runs while a value lives: started with limits, waited for, stopped by its id.
//!
//! The kernel sends it SIGTERM should this process die without dropping the value (setpriv's
//! `--pdeathsig`), so that a chore that is killed leaves no server behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getrlimit, kill_process};

use crate::command::Cmd;
use crate::failure::{Failure, Outcome, fail};

/// How long a server may take to answer, and to stop when asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server may use; the rest of the machine is other people's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Address space of each of its processes, bytes.
    pub(crate) address_space: u64,
    /// What the Go runtime is asked to stay below, bytes.
    pub(crate) go_memory: u64,
}

impl Limits {
    /// A Go server needs a lot of address space for little memory.
    pub(crate) const SERVER: Self = Self { address_space: 12 << 30, go_memory: 2 << 30 };

    /// Puts `command` under these limits.
    pub(crate) fn apply(self, command: Cmd) -> Cmd {
        // dockerd and podman ask for a million files, and allocate by what they get.
        let files = getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(1 << 16);
        let soft = files.min(1 << 14);
        let prlimit = Cmd::new("prlimit")
            .arg(format!("--as={}", self.address_space))
            .arg(format!("--nofile={soft}:{files}"));
        command.behind(&prlimit).env("GOMEMLIMIT", self.go_memory.to_string())
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command` with its output in `log`, and returns when `ready` holds.
    pub(crate) fn start(
        name: &str,
        command: Cmd,
        log: &Path,
        ready: impl Fn() -> bool,
    ) -> Outcome<Self> {
        let command = command.behind(&Cmd::new("setpriv").words("--pdeathsig TERM"));
        let output = fs_err::File::create(log)?.into_parts().0;
        let child = command
            .command()
            .stdout(output.try_clone()?)
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| command.not_started(&e))?;
        let mut service = Self { name: name.to_owned(), child, log: log.to_owned() };
        let until = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = service.child.try_wait()? {
                return fail(format!("{command} ended early ({status})\n{}", service.log_tail()));
            }
            if Instant::now() > until {
                let message = format!("{command} does not answer\n{}", service.log_tail());
                return fail(message);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(service)
    }

    /// Adds the end of the log to a failure that this server may have caused.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        failure.during(format!("{} said\n{}\n", self.name, self.log_tail()))
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits; whether it ended when asked.
    pub(crate) fn stop(&mut self) -> Outcome<bool> {
        terminate(&mut self.child, Signal::TERM, PATIENCE)
    }

    fn log_tail(&self) -> String {
        let log = fs_err::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().map(|l| format!("  | {l}")).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        match self.stop() {
            Ok(true) => {}
            Ok(false) => eprintln!("warning: {} had to be killed", self.name),
            Err(failure) => eprintln!("warning: {} was not stopped: {failure}", self.name),
        }
    }
}

/// Sends `signal`, waits, kills if that was in vain. Whether the signal was enough.
pub(crate) fn terminate(child: &mut Child, signal: Signal, patience: Duration) -> Outcome<bool> {
    if child.try_wait()?.is_some() {
        return Ok(true);
    }
    send(child, signal)?;
    let until = Instant::now() + patience;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

/// Sends `signal` to a child that has not been waited for.
pub(crate) fn send(child: &Child, signal: Signal) -> Outcome {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return fail("a process id out of range");
    };
    kill_process(pid, signal).map_err(std::io::Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_early_is_shown_with_its_log() {
        let log = std::env::temp_dir().join(format!("xtask-service-{}.log", std::process::id()));
        let command = Cmd::new("sh").args(["-c", "echo no port >&2; exit 1"]);
        let failure = Service::start("it", command, &log, || false).unwrap_err();
        fs_err::remove_file(&log).unwrap();
        assert!(failure.to_string().contains("  | no port"), "{failure}");
    }

    #[test]
    fn a_server_is_stopped_when_its_value_is_dropped() {
        let log = std::env::temp_dir().join(format!("xtask-stop-{}.log", std::process::id()));
        let started = Instant::now();
        let service = Service::start("it", Cmd::new("sleep").arg("60"), &log, || true).unwrap();
        let pid = service.child.id();
        drop(service);
        fs_err::remove_file(&log).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
