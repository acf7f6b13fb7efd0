//! Runs other programs; a failure shows the command as one could type it, and what it said.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use crate::failure::{Failure, Outcome, fail};

/// Lines of a failed program's output that are worth showing.
const SHOWN: usize = 40;

/// A program with its arguments, environment and folder. Standard input is always empty.
#[derive(Debug, Clone)]
pub(crate) struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, args: Vec::new(), env: Vec::new(), dir: None }
    }

    #[must_use]
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Splits `text` at blanks; for the fixed part of a command line.
    #[must_use]
    pub(crate) fn words(self, text: &str) -> Self {
        self.args(text.split_whitespace())
    }

    #[must_use]
    pub(crate) fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// For callers that watch the process themselves.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Puts this program's start behind another one, such as `prlimit --as=N`.
    #[must_use]
    pub(crate) fn behind(self, wrapper: &Cmd) -> Self {
        let mut args = wrapper.args.clone();
        args.push(self.program);
        args.extend(self.args);
        Self { program: wrapper.program.clone(), args, env: self.env, dir: self.dir }
    }

    /// Runs it with this terminal as its output.
    pub(crate) fn run(&self) -> Outcome {
        let status = self.command().status().map_err(|e| self.not_started(&e))?;
        if status.success() { Ok(()) } else { fail(format!("{self} {}", ended(status))) }
    }

    /// Runs it and returns whether it ended well; its output is kept only to be shown on failure.
    pub(crate) fn output(&self) -> Outcome<String> {
        let output = self.capture()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        fail(format!("{self} {}\n{}", ended(output.status), tail(&output)))
    }

    /// Runs it and returns everything, however it ended.
    pub(crate) fn capture(&self) -> Outcome<Output> {
        self.command().output().map_err(|e| self.not_started(&e))
    }

    pub(crate) fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("{self} did not start: {error}"))
    }
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::from("`");
        for (key, value) in &self.env {
            let _ = write!(text, "{}={} ", key.to_string_lossy(), quoted(value));
        }
        text.push_str(&quoted(&self.program));
        for arg in &self.args {
            let _ = write!(text, " {}", quoted(arg));
        }
        if let Some(dir) = &self.dir {
            let _ = write!(text, "` in `{}", dir.display());
        }
        text.push('`');
        f.write_str(&text)
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `exited with 1` or `was killed by signal 9`.
pub(crate) fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last lines a program printed, standard error last.
pub(crate) fn tail(output: &Output) -> String {
    let text = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    let lines: Vec<String> =
        text.iter().flat_map(|t| t.lines()).map(|l| format!("  | {l}")).collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// Where a program is, looking also where Debian keeps the ones for root.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_standard_error() {
        let failure = Cmd::new("sh").args(["-c", "echo why >&2; exit 3"]).output().unwrap_err();
        let text = failure.to_string();
        assert!(text.starts_with("`sh -c 'echo why >&2; exit 3'` exited with 3"), "{text}");
        assert!(text.ends_with("  | why"), "{text}");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let text = Cmd::new("/no/such/program").output().unwrap_err().to_string();
        assert!(text.contains("/no/such/program"), "{text}");
    }

    #[test]
    fn a_wrapper_comes_first() {
        let wrapped = Cmd::new("a").arg("b").behind(&Cmd::new("nice").words("-n 5"));
        assert_eq!(wrapped.to_string(), "`nice -n 5 a b`");
    }
}
