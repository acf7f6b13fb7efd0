//! Asks a credential helper (`docker-credential-NAME get`), with a limit and without a shell.
//!
//! The helper gets a process group of its own, so that what it started dies with it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use super::Credential;
use crate::text::printable;

/// How often the limit and the cancellation are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Largest answer, bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// How helpers say that they have nothing, by the docker-credential-helpers library.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks helper `name` about `server`. `Ok(None)` when it knows nothing; the error is one sentence
/// without any of the helper's standard output except a message it exits with.
pub(super) fn ask(
    directory: Option<&Path>,
    name: &str,
    server: &str,
    limit: Duration,
    cancelled: &AtomicBool,
) -> Result<Option<Credential>, String> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(letters) {
        return Err("its name may have only a-z, 0-9 and -".to_owned());
    }
    let deadline = Instant::now() + limit;
    let mut running = Running::start(directory, name)?;
    let (sender, receiver) = channel();
    let (stdin, stdout) = (running.0.stdin.take(), running.0.stdout.take());
    let server = server.to_owned();
    // Both pipes are served by a thread of their own: a helper may read late or answer early.
    // It ends when the pipes do, at the latest when the group is killed.
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A helper that does not read its input says so by its answer.
            let _ = stdin.write_all(server.as_bytes());
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(MAX_ANSWER).read_to_end(&mut answer);
        }
        let _ = sender.send(answer);
    });
    let expired = || -> Result<(), String> {
        if cancelled.load(Ordering::SeqCst) {
            Err("the call was cancelled".to_owned())
        } else if Instant::now() >= deadline {
            Err(format!("it gave no answer within {} s", limit.as_secs()))
        } else {
            Ok(())
        }
    };
    let answer = loop {
        match receiver.recv_timeout(TICK) {
            Ok(answer) => break answer,
            Err(RecvTimeoutError::Timeout) => expired()?,
            Err(RecvTimeoutError::Disconnected) => return Err("its output was lost".to_owned()),
        }
    };
    let status = loop {
        match running.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => expired()?,
            Err(error) => return Err(format!("cannot wait for it ({})", error.kind())),
        }
        std::thread::sleep(TICK);
    };
    if status.success() {
        return read_answer(&answer);
    }
    let message = String::from_utf8_lossy(&answer);
    if message.contains(NOT_FOUND) {
        return Ok(None);
    }
    Err(format!("{status}: {}", printable(&message)))
}

fn read_answer(answer: &[u8]) -> Result<Option<Credential>, String> {
    // The parser's message would repeat the secret.
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| "its answer is not the JSON expected")?;
    let empty = answer.username.is_empty() && answer.secret.is_empty();
    Ok((!empty).then(|| Credential::of(&answer.username, &answer.secret)))
}

/// Kills and reaps the helper's process group on drop.
struct Running(Child);

impl Running {
    fn start(directory: Option<&Path>, name: &str) -> Result<Self, String> {
        let program = format!("docker-credential-{name}");
        let path = directory.map(|directory| directory.join(&program)).filter(|path| path.exists());
        let child = match &path {
            Some(path) => Command::new(path),
            None => Command::new(&program),
        }
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
        child.map(Self).map_err(|error| format!("cannot start {program} ({})", error.kind()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            if let Some(group) = Pid::from_raw(self.0.id() as i32) {
                // It may have ended in between, which is as good.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run(script: &str, limit: Duration) -> Result<Option<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let cancelled = AtomicBool::new(false);
        let answer = loop {
            match ask(Some(directory.path()), "test", "r.io", limit, &cancelled) {
                // A test beside this one forked while the script was still open for writing.
                Err(error) if error.contains("busy") => std::thread::sleep(TICK),
                answer => break answer?,
            }
        };
        Ok(answer.map(|credential| match credential {
            Credential::Password { user, password } => format!("{user}:{}", password.expose()),
            Credential::IdentityToken(token) => format!("identity {}", token.expose()),
            Credential::RegistryToken(_) => unreachable!("helpers have none"),
        }))
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn answers_are_read() {
        let echo = r#"read server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}""#;
        // `read` fails at the missing newline but fills the variable.
        assert_eq!(run(echo, LONG), Ok(Some("get:r.io".into())));
        let token = r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(run(token, LONG), Ok(Some("identity t".into())));
        let none = "echo credentials not found in native keychain; exit 1";
        assert_eq!(run(none, LONG), Ok(None));
        let broken = run("printf 'no \\033[31mkeyring'; exit 3", LONG).unwrap_err();
        assert!(broken.contains("keyring") && !broken.contains('\u{1b}'), "{broken}");
        let odd = run("echo hunter2", LONG).unwrap_err();
        assert!(!odd.contains("hunter2"), "{odd}");
    }

    #[test]
    fn a_helper_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let error = run("sleep 100 & sleep 100", Duration::from_millis(300)).unwrap_err();
        assert!(error.contains("no answer"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn names_are_not_paths() {
        let cancelled = AtomicBool::new(false);
        for name in ["../x", "a b", "", "A", "x;y", "desktop.exe"] {
            assert!(ask(None, name, "r.io", LONG, &cancelled).is_err(), "{name}");
        }
    }
}
