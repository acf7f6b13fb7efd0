//! Starts a supervisor, and gives it its orders.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rbuild_sandbox::handover;

use crate::{Connection, ContainerError, Orders};

/// The name (`argv[0]`) under which the program is started as a supervisor.
pub const SUPERVISOR_NAME: &str = "rbuild-supervisor";

/// A supervisor without orders. One that is started early is ready when there are some; dropped, it
/// ends.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixStream,
}

impl Supervisor {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Supervisor`] when the program cannot be started.
    pub fn start(program: &Path) -> Result<Self, ContainerError> {
        let (mine, theirs) = UnixStream::pair()?;
        let failed =
            |source| ContainerError::Supervisor { program: program.display().to_string(), source };
        let mut supervisor = Command::new(program)
            .arg0(SUPERVISOR_NAME)
            // No directory, so that std can use vfork semantics: the supervisor changes its own.
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // It outlives this program as a rule; where it does not, it must not stay a zombie.
        std::thread::Builder::new()
            .name("reap".to_owned())
            .stack_size(64 << 10)
            .spawn(move || supervisor.wait())?;
        Ok(Self { socket: mine })
    }

    /// Lets it start a container. `lock` is the container's lock, held by the caller, and `held` what
    /// else is locked while it runs: the supervisor keeps them.
    ///
    /// Returns as soon as it has its orders: the first message is how the start went.
    ///
    /// # Errors
    ///
    /// [`ContainerError::NoAnswer`] when the program is none of ours.
    pub fn order(
        self,
        orders: &Orders,
        lock: File,
        held: &[OwnedFd],
    ) -> Result<Connection, ContainerError> {
        let mut descriptors = vec![lock.as_fd()];
        descriptors.extend(held.iter().map(|held| held.as_fd()));
        match handover::send(self.socket.as_fd(), orders, &descriptors) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Err(ContainerError::NoAnswer);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Connection::new(self.socket))
    }
}
