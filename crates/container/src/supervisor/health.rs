//! Checks the health of the process as long as it runs.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rbuild_sandbox::{Join, SandboxError, Spec, Stdio};
use rbuild_types::CancelToken;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::hub::Hub;
use super::thread;
use crate::health::{HealthCheck, HealthChecks};
use crate::{Orders, instant};

/// How much of what a check writes is kept, as in Docker.
const OUTPUT: usize = 4096;

/// Starts the thread that checks. It ends with the process.
pub(super) fn watch(hub: &Arc<Hub>, orders: &Orders, checks: &HealthChecks) -> io::Result<()> {
    let Some((_, process)) = hub.first() else { return Ok(()) };
    let watch = Watch {
        hub: hub.clone(),
        checks: checks.clone(),
        process,
        started: Instant::now(),
        helper: orders.helper.clone(),
        spec: Spec { argv: checks.argv.clone(), terminal: false, ..orders.spec.clone() },
    };
    thread("health", move || watch.go_on()).map(drop)
}

struct Watch {
    hub: Arc<Hub>,
    checks: HealthChecks,
    process: Arc<OwnedFd>,
    started: Instant,
    helper: PathBuf,
    spec: Spec,
}

impl Watch {
    fn go_on(self) {
        loop {
            let status = self.hub.state().health.unwrap_or_default().status;
            if self.ends_within(self.checks.pause(status, self.started.elapsed())) {
                return;
            }
            // Nothing runs in a container that is held.
            if self.hub.state().paused {
                continue;
            }
            // Nothing in it would get on.
            if self.hub.state().paused {
                continue;
            }
            let since_start = self.started.elapsed();
            let check = self.check();
            // A full disk costs the result.
            let _ = self.hub.note(|state| {
                // What was interrupted by the end of the process, or by a pause, says nothing.
                if !state.paused && !self.ends_within(Duration::ZERO) {
                    let health = state.health.get_or_insert_default();
                    health.take(check, &self.checks, since_start);
                }
            });
        }
    }

    /// Waits; whether the process ended meanwhile.
    fn ends_within(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&*self.process, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) if Instant::now() >= deadline => return false,
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return true,
            }
        }
    }

    fn check(&self) -> HealthCheck {
        let start = instant::now();
        let mut output = Vec::new();
        let exit_code = match self.run(&mut output) {
            Ok(Some(code)) => code,
            Ok(None) => {
                let time = self.checks.timeout;
                let mut message = format!("Health check exceeded timeout ({time:?})").into_bytes();
                if !output.is_empty() {
                    message.extend_from_slice(b": ");
                }
                output.splice(0..0, message);
                -1
            }
            Err(error) => {
                output = error.to_string().into_bytes();
                -1
            }
        };
        output.truncate(OUTPUT);
        let output = String::from_utf8_lossy(&output).into_owned();
        HealthCheck { start, end: instant::now(), exit_code, output }
    }

    /// Runs the program; its exit code, or nothing when it took too long.
    fn run(&self, output: &mut Vec<u8>) -> Result<Option<i32>, SandboxError> {
        let mut running = Join {
            helper: self.helper.clone(),
            spec: self.spec.clone(),
            process: self.process.try_clone()?,
            stdio: Stdio::Capture { stdin: None },
        }
        .start()?;
        running.executed()?;
        let signaller = running.signaller()?;
        let (over, waits) = mpsc::channel::<()>();
        let timeout = self.checks.timeout;
        let killer = thread("health", move || {
            let late = waits.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                // It may have ended just now.
                let _ = signaller.send(Signal::KILL.as_raw());
            }
            late
        })?;
        let exit = running.wait(&CancelToken::default(), &mut |_, bytes| {
            let room = OUTPUT.saturating_sub(output.len());
            output.extend(bytes.iter().take(room));
        });
        drop(over);
        let late = killer.join().unwrap_or_default();
        Ok((!late).then_some(exit?.code()))
    }
}
