//! The engine's side: starts the helper, hands over the work, waits.

use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rbuild_types::{CancelToken, Cancelled, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::handover;
use crate::output::Output;
use crate::spec::{Order, Place, Report};
use crate::{Exit, SandboxError, Spec};

/// The name (`argv[0]`) under which the program is started as the helper.
pub const HELPER_NAME: &str = "rbuild-sandbox-helper";

/// How long a process may take to end after SIGTERM before it is killed, and its helper after
/// that.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Where standard input, output and error of the process go.
#[derive(Debug)]
pub enum Stdio {
    /// Output and error are read by [`Running::wait`].
    Capture {
        /// Standard input; without it there is none.
        stdin: Option<OwnedFd>,
    },
    /// The given descriptors.
    Given {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal inside; its master side is [`Running::terminal`].
    Terminal,
}

/// Everything that one start needs.
#[derive(Debug)]
pub struct Launch {
    /// The program to start as the helper: this one, or an installed rbuild.
    pub helper: PathBuf,
    /// What to run.
    pub spec: Spec,
    /// The root filesystem: a detached mount.
    pub root: OwnedFd,
    /// Detached mounts that the spec names by number.
    pub mounts: Vec<OwnedFd>,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// The network namespace, with [`crate::Network::Given`].
    pub network: Option<OwnedFd>,
}

/// A started process. Dropping it kills the process and all its descendants.
#[derive(Debug)]
pub struct Running {
    helper_name: String,
    helper: Child,
    control: OwnedFd,
    buffered: Vec<u8>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    pid: Option<u32>,
    place: Place,
    /// Whether it lives on without this program.
    left: bool,
}

impl Launch {
    /// The program that runs now, for use as the helper.
    pub fn this_program() -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }

    /// Starts the process. Returns as soon as the helper has its orders; failures to set up come
    /// from [`Running::wait`].
    pub fn start(self) -> Result<Running, SandboxError> {
        Helper::start(&self.helper)?.launch(self)
    }
}

/// A helper without orders. One that is started early is ready when there are some; dropped, it ends.
#[derive(Debug)]
pub struct Helper(Running);

impl Helper {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Helper`] when the program cannot be started.
    pub fn start(program: &Path) -> Result<Self, SandboxError> {
        let (mine, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        Ok(Self(Running {
            helper_name: program.display().to_string(),
            helper: start_helper(program, theirs)?,
            control: mine,
            buffered: Vec::new(),
            stdout: None,
            stderr: None,
            terminal: None,
            pid: None,
            place: Place::Own,
            left: false,
        }))
    }

    /// Starts the process, as [`Launch::start`] does with a helper of its own.
    ///
    /// # Errors
    ///
    /// [`SandboxError::NoAnswer`] when it is no helper.
    pub fn launch(self, launch: Launch) -> Result<Running, SandboxError> {
        let order = Order { spec: launch.spec, place: Place::Own };
        let mut others = launch.mounts;
        // The last, because the helper takes it before anybody counts.
        others.extend(launch.network);
        self.hand_over(&order, launch.root, launch.stdio, others)
    }

    /// Hands it its orders; `first` is what they say that it is.
    pub(crate) fn hand_over(
        self,
        order: &Order,
        first: OwnedFd,
        stdio: Stdio,
        mounts: Vec<OwnedFd>,
    ) -> Result<Running, SandboxError> {
        let mut running = self.0;
        running.place = order.place;
        let mut descriptors = vec![first];
        match stdio {
            Stdio::Terminal => {}
            Stdio::Given { stdin, stdout, stderr } => descriptors.extend([stdin, stdout, stderr]),
            Stdio::Capture { stdin } => {
                let (out_read, out_write) =
                    pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
                let (err_read, err_write) =
                    pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
                let stdin = match stdin {
                    Some(stdin) => stdin,
                    None => fs_open_null()?,
                };
                descriptors.extend([stdin, out_write, err_write]);
                running.stdout = Some(out_read);
                running.stderr = Some(err_read);
            }
        }
        descriptors.extend(mounts);
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match handover::send(running.control.as_fd(), order, &borrowed) {
            // It ended without reading: it is no helper.
            Err(error) if is_hangup(&error) => Err(running.no_answer()),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(running),
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn fs_open_null() -> io::Result<OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    Ok(openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn start_helper(program: &Path, control: OwnedFd) -> Result<Child, SandboxError> {
    // No `pre_exec`, so that std can use vfork semantics: starting costs the same however much
    // memory the engine's host uses.
    Command::new(program)
        .arg0(OsStr::new(HELPER_NAME))
        .env_clear()
        .stdin(control)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(|source| SandboxError::Helper { helper: program.display().to_string(), source })
}

impl Running {
    /// The master side of the terminal, once it was made; waits for that.
    pub fn terminal(&mut self) -> Result<OwnedFd, SandboxError> {
        loop {
            if let Some(terminal) = self.terminal.take() {
                return Ok(terminal);
            }
            match self.next_report()? {
                Some(Report::Failed(failure)) => return Err(SandboxError::Start(failure)),
                Some(Report::Started { pid }) => self.pid = Some(pid),
                Some(Report::Terminal) => {}
                Some(Report::Executed | Report::Exited(_)) | None => return Err(self.no_answer()),
            }
        }
    }

    /// The same, and what is written to the terminal comes from [`Running::wait`].
    pub fn shared_terminal(&mut self) -> Result<OwnedFd, SandboxError> {
        let terminal = self.terminal()?;
        self.stdout = Some(terminal.try_clone()?);
        Ok(terminal)
    }

    /// Lets the process go once its program runs: it lives on without this program.
    ///
    /// # Errors
    ///
    /// As for [`Running::executed`].
    pub fn leave(mut self) -> Result<(), SandboxError> {
        self.executed()?;
        match rustix::net::send(&self.control, &[handover::LEAVE], SendFlags::NOSIGNAL) {
            Err(errno) if !is_hangup(&errno.into()) => return Err(io::Error::from(errno).into()),
            // Without a listener it has ended already.
            Ok(_) | Err(_) => {}
        }
        self.left = true;
        // Where this program lives longer than the helper, that must not stay a zombie.
        if let Some(helper) = Pid::from_raw(self.helper.id().cast_signed()) {
            std::thread::Builder::new()
                .name("reap".to_owned())
                .stack_size(64 << 10)
                .spawn(move || rustix::process::waitpid(Some(helper), WaitOptions::empty()))?;
        }
        Ok(())
    }

    /// Waits until the program runs; its process' number on the host.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Start`] when it does not come to that.
    pub fn executed(&mut self) -> Result<u32, SandboxError> {
        loop {
            match (self.next_report()?, self.pid) {
                (Some(Report::Failed(failure)), _) => return Err(SandboxError::Start(failure)),
                (Some(Report::Started { pid }), _) => self.pid = Some(pid),
                (Some(Report::Terminal), _) => {}
                (Some(Report::Executed), Some(pid)) => return Ok(pid),
                (Some(Report::Executed | Report::Exited(_)) | None, _) => {
                    return Err(self.no_answer());
                }
            }
        }
    }

    /// The process' number on the host, once it started.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Sends a signal, by number, to the process.
    ///
    /// # Errors
    ///
    /// As [`Signaller::send`].
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(&self.control, signal)
    }

    /// A line to the process that another thread may use while this one waits.
    pub fn signaller(&self) -> io::Result<Signaller> {
        Ok(Signaller(self.control.try_clone()?))
    }

    /// Waits for the end, giving what the process writes to `output` (only with
    /// [`Stdio::Capture`] and [`Running::shared_terminal`]). When `cancel` is cancelled the process gets SIGTERM, shortly after
    /// SIGKILL, and the call fails with [`SandboxError::Cancelled`].
    pub fn wait(
        mut self,
        cancel: &CancelToken,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit, SandboxError> {
        let mut streams = Output::new(self.stdout.take(), self.stderr.take());
        let mut outcome = None;
        let mut deadline: Option<Instant> = None;
        let mut patience = 2;
        while outcome.is_none() {
            let ready = self.poll(cancel, &streams, deadline)?;
            if ready.cancelled && deadline.is_none() {
                // The process may be gone already; its report is then on the way.
                let _ = self.signal(Signal::TERM.as_raw());
                deadline = Some(Instant::now() + STOP_GRACE);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let _ = self.signal(Signal::KILL.as_raw());
                // A helper that does not listen goes as well, and its child with it.
                if patience == 0 {
                    let _ = self.helper.kill();
                }
                patience -= i32::from(patience > 0);
                deadline = Some(Instant::now() + STOP_GRACE);
            }
            streams.read_ready(output)?;
            if ready.control {
                match self.next_report()? {
                    Some(Report::Started { pid }) => self.pid = Some(pid),
                    Some(Report::Terminal | Report::Executed) => {}
                    Some(Report::Exited(exit)) => outcome = Some(Ok(exit)),
                    Some(Report::Failed(failure)) => {
                        outcome = Some(Err(SandboxError::Start(failure)));
                    }
                    None => outcome = Some(Err(self.no_answer())),
                }
            }
        }
        match self.place {
            // All of the namespace is gone, so the pipes end.
            Place::Own => streams.read_to_end(output)?,
            // Others may have them still.
            Place::Joined => streams.read_rest(output)?,
        }
        // The helper exits right after its last report.
        self.helper.wait()?;
        if deadline.is_some() {
            return Err(Cancelled.into());
        }
        outcome.unwrap_or_else(|| Err(self.no_answer()))
    }

    fn no_answer(&self) -> SandboxError {
        SandboxError::NoAnswer { helper: self.helper_name.clone() }
    }

    fn poll(
        &self,
        cancel: &CancelToken,
        streams: &Output,
        deadline: Option<Instant>,
    ) -> io::Result<Ready> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN)];
        // Once it is cancelled the descriptor stays readable and would make the loop spin.
        let cancel_fd = if deadline.is_none() { cancel.fd() } else { None };
        if let Some(fd) = &cancel_fd {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        fds.extend(streams.open().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let control = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready { control, cancelled: cancel.is_cancelled() })
    }

    /// The next line of the helper, or `None` when it hung up.
    fn next_report(&mut self) -> io::Result<Option<Report>> {
        loop {
            if let Some(end) = self.buffered.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffered.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::from);
            }
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(&self.control, &mut slices, &mut ancillary, flags) {
                Ok(received) => received.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                // The helper died with orders unread.
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(errno) => return Err(errno.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.terminal = descriptors.last();
                }
            }
            if received == 0 {
                return Ok(None);
            }
            self.buffered.extend_from_slice(bytes.get(..received).unwrap_or_default());
        }
    }
}

/// A second line to a process, for another thread.
#[derive(Debug)]
pub struct Signaller(OwnedFd);

impl Signaller {
    /// Sends a signal, by number, to the process.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when there is no such signal; others when the process has ended.
    pub fn send(&self, signal: i32) -> io::Result<()> {
        send_signal(&self.0, signal)
    }
}

fn send_signal(control: &OwnedFd, signal: i32) -> io::Result<()> {
    let byte = match u8::try_from(signal) {
        Ok(byte) if handover::SIGNALS.contains(&byte) => byte,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    rustix::net::send(control, &[byte], SendFlags::NOSIGNAL)?;
    Ok(())
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Closing the socket is the order to kill; it happens after this body, so kill by hand
        // and leave no zombie.
        let _ = self.signal(Signal::KILL.as_raw());
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Write);
        let deadline = Instant::now() + 4 * STOP_GRACE;
        while matches!(self.helper.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.helper.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.helper.wait();
    }
}

struct Ready {
    control: bool,
    cancelled: bool,
}
