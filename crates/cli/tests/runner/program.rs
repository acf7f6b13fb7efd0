//! Starts the program with a store of its own and an environment without surprises.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A store that goes away with the test.
pub struct Program {
    folder: tempfile::TempDir,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// With an empty store.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("context")).unwrap();
        Self { folder }
    }

    /// The store.
    pub fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("store")
    }

    /// The directory that commands run in; the store is beside it.
    pub fn context(&self) -> std::path::PathBuf {
        self.folder.path().join("context")
    }

    /// Puts a file into the context.
    pub fn file(&self, name: &str, content: &str) {
        fs_err::write(self.context().join(name), content).unwrap();
    }

    /// Runs a line of words without quotes.
    pub fn run(&self, line: &str) -> Outcome {
        self.run_with(line, "", &[])
    }

    /// The same with something on standard input.
    pub fn run_stdin(&self, line: &str, stdin: &str) -> Outcome {
        self.run_with(line, stdin, &[])
    }

    /// The same with variables.
    pub fn run_with(&self, line: &str, stdin: &str, variables: &[(&str, &str)]) -> Outcome {
        let mut child = self.start(line, variables);
        // A command that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Outcome::of(child)
    }

    /// The same with no more memory for its data than this many bytes.
    pub fn run_within(&self, bytes: u64, line: &str) -> Outcome {
        let program = env!("CARGO_BIN_EXE_rbuild");
        let script = format!("ulimit -d {} && exec {program} {line}", bytes >> 10);
        Outcome::of(self.spawn(Command::new("/bin/sh").args(["-c", &script]), &[]))
    }

    /// Runs a line as a user without rights, to whom the store belongs from now on.
    pub fn run_as_nobody(&self, line: &str) -> Outcome {
        let copy = self.context().join("rbuild");
        let done = |command: &mut Command| assert!(command.status().unwrap().success());
        if !copy.exists() {
            // Where it was built, others may not be let in. By another process: while anybody has a
            // program open for writing it cannot be executed.
            done(Command::new("cp").arg(env!("CARGO_BIN_EXE_rbuild")).arg(&copy));
        }
        done(Command::new("chown").args(["-R", "65534:65534"]).arg(self.folder.path()));
        let mut setpriv = Command::new("/usr/bin/setpriv");
        setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy);
        Outcome::of(self.spawn(setpriv.args(line.split_whitespace()), &[]))
    }

    /// Runs words that may have blanks in them.
    pub fn run_words(&self, words: &[&str]) -> Outcome {
        Outcome::of(self.start_words(words, &[]))
    }

    /// Starts a line and does not wait.
    pub fn start(&self, line: &str, variables: &[(&str, &str)]) -> Child {
        self.start_words(&line.split_whitespace().collect::<Vec<_>>(), variables)
    }

    fn start_words(&self, words: &[&str], variables: &[(&str, &str)]) -> Child {
        self.spawn(Command::new(env!("CARGO_BIN_EXE_rbuild")).args(words), variables)
    }

    fn spawn(&self, command: &mut Command, variables: &[(&str, &str)]) -> Child {
        command
            .current_dir(self.context())
            .env_clear()
            .env("RBUILD_ROOT", self.store())
            .env("HOME", self.folder.path())
            // The host's devices and rules are left alone.
            .env("RBUILD_NETWORK", "host")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Outcome {
    /// Waits for the end.
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It failed with this code and this text, and wrote no data.
    #[track_caller]
    pub fn refused(&self, code: i32, text: &str) {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
    }

    /// It went well.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
}

/// Whether builds can be made here; says so when not.
pub fn can_build() -> bool {
    let root = rustix::process::geteuid().is_root();
    // Overlay mounts need a kernel that has them.
    let overlay = fs_err::read_to_string("/proc/filesystems").unwrap_or_default();
    let can = root && (overlay.contains("overlay") || Path::new("/sys/module/overlay").exists());
    if !can {
        eprintln!("skipped: needs root and overlayfs");
    }
    can
}
