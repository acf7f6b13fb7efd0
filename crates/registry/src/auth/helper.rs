//! Speaks to a credential helper (`docker-credential-NAME get`), with a limit and without a shell.
//!
//! The helper gets a process group of its own, so that what it started dies with it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;

use super::credential::{Credential, Login, Secret};
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

/// A helper, and how long it may take. Errors are one sentence without any of the helper's
/// standard output except a message it exits with.
pub(super) struct Helper<'a> {
    pub(super) directory: Option<&'a Path>,
    pub(super) name: &'a str,
    pub(super) limit: Duration,
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

impl Helper<'_> {
    /// What it has for `server`; `None` when it knows nothing.
    pub(super) fn get(&self, server: &str) -> Result<Option<Credential>, String> {
        match self.call("get", server.to_owned())? {
            Some(answer) => read_answer(&answer),
            None => Ok(None),
        }
    }

    /// Has it keep the login for `server`.
    pub(super) fn store(&self, server: &str, login: &Login) -> Result<(), String> {
        let Login { user, password } = login;
        let entry = json!({"ServerURL": server, "Username": user, "Secret": password.expose()});
        self.call("store", entry.to_string()).map(drop)
    }

    /// Has it forget what it has for `server`.
    pub(super) fn erase(&self, server: &str) -> Result<(), String> {
        self.call("erase", server.to_owned()).map(drop)
    }

    /// Its answer; `None` when it says that it has nothing.
    fn call(&self, verb: &str, input: String) -> Result<Option<Vec<u8>>, String> {
        let (status, answer) = self.run(verb, input)?;
        if status.success() {
            return Ok(Some(answer));
        }
        let message = String::from_utf8_lossy(&answer);
        if message.contains(NOT_FOUND) {
            return Ok(None);
        }
        Err(format!("{status}: {}", printable(&message)))
    }

    fn run(&self, verb: &str, input: String) -> Result<(ExitStatus, Vec<u8>), String> {
        let Self { directory, name, limit, cancelled } = *self;
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || !name.bytes().all(letters) {
            return Err("its name may have only a-z, 0-9 and -".to_owned());
        }
        let deadline = Instant::now() + limit;
        let mut running = Running::start(directory, name, verb)?;
        let (sender, receiver) = channel();
        let (stdin, stdout) = (running.0.stdin.take(), running.0.stdout.take());
        // Both pipes are served by a thread of their own: a helper may read late or answer early.
        // It ends when the pipes do, at the latest when the group is killed.
        std::thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // A helper that does not read its input says so by its answer.
                let _ = stdin.write_all(input.as_bytes());
            }
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                let _ = stdout.take(MAX_ANSWER).read_to_end(&mut answer);
            }
            let _ = sender.send(answer);
        });
        let expired = || -> Result<(), String> {
            if cancelled() {
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
        Ok((status, answer))
    }
}

fn read_answer(answer: &[u8]) -> Result<Option<Credential>, String> {
    // The parser's message would repeat the secret.
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| "its answer is not the JSON expected")?;
    let empty = answer.username.is_empty() && answer.secret.is_empty();
    let password = Secret::new(answer.secret);
    Ok((!empty).then(|| Credential::of(Login { user: answer.username, password })))
}

/// Kills and reaps the helper's process group on drop.
struct Running(Child);

impl Running {
    fn start(directory: Option<&Path>, name: &str, verb: &str) -> Result<Self, String> {
        let program = format!("docker-credential-{name}");
        let path = directory.map(|directory| directory.join(&program)).filter(|path| path.exists());
        let child = match &path {
            Some(path) => Command::new(path),
            None => Command::new(&program),
        }
        .arg(verb)
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

    /// What `call` gets of a helper that is this script.
    fn with<T>(
        script: &str,
        limit: Duration,
        call: impl Fn(&Helper<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        fs_err::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let directory = Some(directory.path());
        let helper = Helper { directory, name: "test", limit, cancelled: &|| false };
        loop {
            match call(&helper) {
                // A test beside this one forked while the script was still open for writing.
                Err(error) if error.contains("busy") => std::thread::sleep(TICK),
                answer => return answer,
            }
        }
    }

    fn run(script: &str, limit: Duration) -> Result<Option<String>, String> {
        let found = with(script, limit, |helper| helper.get("r.io"))?;
        Ok(found.map(|credential| credential.shown()))
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
    fn logins_are_kept_and_forgotten() {
        let login = Login { user: "me".to_owned(), password: Secret::new("hunter2") };
        // The script says what it got as an error, which is the only output that is repeated.
        let show = r#"echo "$1 $(cat)"; exit 1"#;
        let told = with(show, LONG, |helper| helper.store("r.io", &login)).unwrap_err();
        let expected = r#"store {"Secret":"hunter2","ServerURL":"r.io","Username":"me"}"#;
        assert!(told.ends_with(expected), "{told}");
        let told = with(show, LONG, |helper| helper.erase("r.io")).unwrap_err();
        assert!(told.ends_with("erase r.io"), "{told}");
        let none = "cat > /dev/null; echo credentials not found; exit 1";
        with(none, LONG, |helper| helper.erase("r.io")).unwrap();
        with("cat > /dev/null", LONG, |helper| helper.store("r.io", &login)).unwrap();
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
        for name in ["../x", "a b", "", "A", "x;y", "desktop.exe"] {
            let helper = Helper { directory: None, name, limit: LONG, cancelled: &|| false };
            assert!(helper.get("r.io").is_err(), "{name}");
        }
    }
}
