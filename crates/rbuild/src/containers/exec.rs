//! `exec`: another process in a container that runs.
//!
//! The supervisor has no part in it: the process is a child of a helper of this program, and ends
//! with that, with the container, or by itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rbuild_container::events::Event;
use rbuild_container::{State, Status, parent};
use rbuild_rooted::Root;
use rbuild_sandbox::linux::capabilities::CapabilitySet;
use rbuild_sandbox::{Exit, Join, Running, SandboxError, Spec, Stdio};
use rbuild_types::{CancelToken, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::process::{TERM, merged};
use super::{Container, Input, Line};
use crate::BuildError;
use crate::past::HeldByStep;

/// What runs in a container besides its own process.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`, over those of the container.
    pub env: Vec<String>,
    /// Working directory, which must be there; the container's when not given.
    pub cwd: Option<String>,
    /// User; the container's when not given.
    pub user: Option<String>,
    /// Whether it has all capabilities, whatever the container has.
    pub privileged: bool,
}

/// Standard input, output and error of such a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecStreams {
    /// Output and error come from [`Exec::wait`].
    Pipes {
        /// Whether [`Exec::input`] is its input; else that is empty.
        input: bool,
    },
    /// A terminal.
    Terminal,
}

/// A process in a container. Dropping it kills the process, but not what that has started.
#[derive(Debug)]
pub struct Exec {
    running: Running,
    input: Option<Input>,
    terminal: Option<OwnedFd>,
    /// What must stay until it has ended.
    _held: Option<HeldByStep>,
    /// The container's directory, and what is said of it in events; a step has none.
    container: Option<(PathBuf, BTreeMap<String, String>)>,
}

impl ExecStreams {
    /// What the sandbox is told, and the process' input where it is a pipe.
    pub(crate) fn stdio(self) -> Result<(Stdio, Option<Input>), BuildError> {
        Ok(match self {
            Self::Terminal => (Stdio::Terminal, None),
            Self::Pipes { input: false } => (Stdio::Capture { stdin: None }, None),
            Self::Pipes { input: true } => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| {
                    BuildError::Io { what: "make a pipe".to_owned(), source: errno.into() }
                })?;
                (Stdio::Capture { stdin: Some(read) }, Some(Input::pipe(write)))
            }
        })
    }
}

impl Container {
    /// Starts another process in the container; returns once it runs.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when the container does not run; [`SandboxError::Start`] when the
    /// program cannot be executed.
    pub fn exec(&self, options: &ExecOptions, streams: ExecStreams) -> Result<Exec, BuildError> {
        let (stdio, input) = streams.stdio()?;
        let mut exec = Exec::of(self.join(options, stdio)?, streams, input, None)?;
        exec.container = Some((self.directory.clone(), self.record.attributes()));
        Ok(exec)
    }

    /// Starts another process in the container that lives on without this program, with no input,
    /// and whose output nobody sees; returns once it runs.
    ///
    /// # Errors
    ///
    /// As for [`Container::exec`].
    pub fn exec_in_background(&self, options: &ExecOptions) -> Result<(), BuildError> {
        let null = || -> Result<OwnedFd, SandboxError> {
            let file = File::options().read(true).write(true).open("/dev/null")?;
            Ok(file.into())
        };
        let stdio = Stdio::Given { stdin: null()?, stdout: null()?, stderr: null()? };
        Ok(self.join(options, stdio)?.leave()?)
    }

    fn join(&self, options: &ExecOptions, stdio: Stdio) -> Result<Running, BuildError> {
        if self.state()?.paused {
            return Err(self.not_running("is paused: `rbuild unpause` lets it go on"));
        }
        let spec = self.exec_spec(options, matches!(stdio, Stdio::Terminal));
        let process = self.first_process()?;
        let command = options.argv.join(" ");
        self.happened(format!("exec_create: {command}"));
        let running = Join { helper: self.program.clone(), spec, process, stdio }.start()?;
        self.happened(format!("exec_start: {command}"));
        Ok(running)
    }

    fn exec_spec(&self, options: &ExecOptions, terminal: bool) -> Spec {
        let own = &self.record.spec;
        let term = terminal.then(|| TERM.to_owned());
        let given = own.env.iter().chain(&options.env).cloned();
        Spec {
            argv: options.argv.clone(),
            env: merged(term.into_iter().chain(given)),
            cwd: options.cwd.clone().unwrap_or_else(|| own.cwd.clone()),
            user: options.user.clone().unwrap_or_else(|| own.user.clone()),
            terminal,
            capabilities: match options.privileged {
                true => CapabilitySet::all(),
                false => own.capabilities,
            },
            ..own.clone()
        }
    }

    /// The container's process 1, held so that its number cannot become another's.
    fn first_process(&self) -> Result<OwnedFd, BuildError> {
        let number = self.number()?;
        let process = Pid::from_raw(number.cast_signed())
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // The number may have been another's before it was held, though not since.
        match process {
            Some(process) if self.number()? == number && self.supervises(number) => Ok(process),
            _ => Err(self.not_running("is not running")),
        }
    }

    /// The root filesystem as its process 1 sees it, with all that is mounted there; `None` when it
    /// does not run.
    pub(super) fn live_root(&self) -> Result<Option<Root>, BuildError> {
        if !matches!(State::now(&self.directory)?, (State { status: Status::Running, .. }, true)) {
            return Ok(None);
        }
        self.of_process(|number| Ok(Root::open(format!("/proc/{number}/root"))?)).map(Some)
    }

    /// What is told of its process 1 by number.
    pub(super) fn of_process<T>(
        &self,
        ask: impl FnOnce(u32) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let process = self.first_process()?;
        let answer = ask(self.number()?);
        // Whose it is, is certain if that one still lives.
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => answer,
            _ => Err(self.not_running("is not running any more")),
        }
    }

    /// The number of its process 1, as its supervisor wrote it down.
    fn number(&self) -> Result<u32, BuildError> {
        match State::now(&self.directory)? {
            (State { status: Status::Running, pid: Some(pid), .. }, true) => Ok(pid),
            (State { status: Status::Restarting, .. }, true) => {
                Err(self.not_running("is about to be started again"))
            }
            _ => Err(self.not_running("is not running")),
        }
    }

    /// Whether the process was started by the helper of the container's supervisor, which is known
    /// by the lock that it holds.
    fn supervises(&self, process: u32) -> bool {
        let Some(supervisor) = parent(process).and_then(parent) else { return false };
        let Ok(lock) = fs_err::metadata(self.directory.join("lock")) else { return false };
        let files = fs_err::read_dir(format!("/proc/{supervisor}/fd"));
        files.into_iter().flatten().flatten().any(|file| {
            fs_err::metadata(file.path())
                .is_ok_and(|held| (held.dev(), held.ino()) == (lock.dev(), lock.ino()))
        })
    }

    fn not_running(&self, how: &str) -> BuildError {
        BuildError::Conflict { message: format!("container {} {how}", self.record.name) }
    }
}

impl Exec {
    /// A process that was started, once its program runs.
    pub(crate) fn of(
        mut running: Running,
        streams: ExecStreams,
        mut input: Option<Input>,
        held: Option<HeldByStep>,
    ) -> Result<Self, BuildError> {
        let mut terminal = None;
        if streams == ExecStreams::Terminal {
            let master = running.shared_terminal()?;
            input = Some(Input::terminal(master.try_clone().map_err(SandboxError::Io)?));
            terminal = Some(master);
        }
        running.executed()?;
        Ok(Self { running, input, terminal, _held: held, container: None })
    }

    /// Its standard input; for another thread than the one that waits. `None` when it has none, and
    /// when it was taken before.
    pub fn input(&mut self) -> Option<Input> {
        self.input.take()
    }

    /// A line to the process, which another thread may use while this one waits.
    ///
    /// # Errors
    ///
    /// [`BuildError::Sandbox`] when there are no descriptors left.
    pub fn line(&self) -> Result<Line, BuildError> {
        let terminal = self.terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let signals = self.running.signaller().map_err(SandboxError::Io)?;
        Ok(Line::to_process(signals, terminal.map_err(SandboxError::Io)?))
    }

    /// Waits for its end, and gives what it writes to `output`. What others write to the same pipes
    /// after that is lost. When `cancel` is cancelled it gets SIGTERM, and shortly after SIGKILL.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Cancelled`], or when it cannot be waited for.
    pub fn wait(
        self,
        cancel: &CancelToken,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit, BuildError> {
        // Nobody is left to write to it.
        drop(self.input);
        let exit = self.running.wait(cancel, output)?;
        if let Some((directory, attributes)) = &self.container {
            let ended = Event::of_container(directory, "exec_die").or_all(attributes);
            ended.with("exitCode", exit.code().to_string()).note_beside(directory);
        }
        Ok(exit)
    }
}
