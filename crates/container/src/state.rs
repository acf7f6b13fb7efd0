//! `state.json`: how a container is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_sandbox::Exit;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::network::Connected;
use crate::{ContainerError, events, instant};

/// The file's name.
const FILE: &str = "state.json";
/// The lock's.
const LOCK: &str = "lock";
/// Longest that is read.
const MAX_STATE: u64 = 1 << 20;
/// The exit code of a process of which nobody saw the end, as after SIGKILL.
const UNSEEN: i32 = 137;

/// What a container does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was never started, or could not be.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its process ended and is about to be started again.
    Restarting,
    /// Its process ended.
    Exited,
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What it does.
    pub status: Status,
    /// The number of its process on the host, while that runs. To be believed only while the
    /// supervisor lives.
    pub pid: Option<u32>,
    /// When its process was started last, in nanoseconds since 1970.
    pub started: Option<i64>,
    /// How and when it ended last.
    pub ended: Option<Ended>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether its processes are held, while it runs.
    #[serde(default)]
    pub paused: bool,
    /// How often it was started again by its restart policy.
    pub restarts: u32,
    /// How it is connected, while its supervisor lives.
    #[serde(default)]
    pub connected: Connected,
    /// How its process did in the checks of its health, if there are any.
    #[serde(default)]
    pub health: Option<Health>,
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// When, in nanoseconds since 1970.
    pub at: i64,
}

impl State {
    /// The state of the container in `directory`, and whether its lock is held: by its supervisor,
    /// or by somebody who makes or removes it.
    ///
    /// What a dead supervisor left behind is told as the end that it did not see.
    ///
    /// # Errors
    ///
    /// [`ContainerError::File`] when the container is not there, or its files cannot be read.
    pub fn now(directory: &Path) -> Result<(Self, bool), ContainerError> {
        // In this order: a supervisor that ends meanwhile has written before it lets go.
        let mut before = Self::read(directory)?;
        let held = is_held(directory)?;
        if !held && matches!(before.status, Status::Running | Status::Restarting) {
            before = Self::read(directory)?;
        }
        if !held && matches!(before.status, Status::Running | Status::Restarting) {
            before = before.after_unseen_end();
        }
        Ok((before, held))
    }

    fn after_unseen_end(self) -> Self {
        let at = self.started.unwrap_or_default();
        // The end that was seen before a restart is still the last one known.
        let ended = self.ended.filter(|_| self.status == Status::Restarting);
        Self {
            ended: Some(ended.unwrap_or(Ended { exit: Exit::Code(UNSEEN), at })),
            status: Status::Exited,
            pid: None,
            paused: false,
            connected: Connected::default(),
            error: Some("nobody saw how it ended: its supervisor was killed".to_owned()),
            ..self
        }
    }

    /// Tells in events of the end that a supervisor which was killed did not see, for who holds the
    /// lock; `attributes` is what is said of the container besides.
    pub fn tell_unseen_end(directory: &Path, attributes: &BTreeMap<String, String>) {
        if let Ok(last) = Self::read(directory)
            && last.pid.is_some()
        {
            let after = last.clone().after_unseen_end();
            for event in events::told(directory, attributes, &last, &after) {
                event.note_beside(directory);
            }
        }
    }

    /// What was written last, for who holds the lock.
    ///
    /// # Errors
    ///
    /// [`ContainerError::File`].
    pub fn last(directory: &Path) -> Result<Self, ContainerError> {
        Self::read(directory)
    }

    fn read(directory: &Path) -> Result<Self, ContainerError> {
        let path = directory.join(FILE);
        let failed = |source| ContainerError::File { action: "read", path: path.clone(), source };
        let file = match fs_err::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory.exists() => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_reader(io::Read::take(file, MAX_STATE))
            .map_err(|error| failed(error.into()))
    }

    /// Writes it; whoever reads meanwhile sees the old one or the new one. The caller holds the
    /// container's lock.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), ContainerError> {
        let path = directory.join(FILE);
        let failed = |source| ContainerError::File { action: "write", path: path.clone(), source };
        let new = directory.join("state.json.new");
        let mut file = fs_err::File::create(&new).map_err(failed)?;
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file.write_all(&text).map_err(failed)?;
        fs_err::rename(&new, &path).map_err(failed)
    }

    /// Notes the end of the process.
    pub(crate) fn end(&mut self, exit: Exit) {
        self.pid = None;
        self.paused = false;
        self.ended = Some(Ended { exit, at: instant::now() });
    }
}

/// The lock of the container in `directory`.
pub(crate) fn lock_file(directory: &Path) -> PathBuf {
    directory.join(LOCK)
}

/// Whether somebody holds the lock of the container in `directory`.
///
/// # Errors
///
/// [`ContainerError::File`] when there is no container.
pub fn is_held(directory: &Path) -> Result<bool, ContainerError> {
    let path = lock_file(directory);
    let failed = |source| ContainerError::File { action: "open", path: path.clone(), source };
    let file: File = fs_err::File::open(&path).map_err(failed)?.into_file();
    // Shared: others who only ask do not see each other.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(std::fs::TryLockError::WouldBlock) => Ok(true),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_supervisor_left_is_an_end() {
        let directory = tempfile::tempdir().unwrap();
        let lock = fs_err::File::create(lock_file(directory.path())).unwrap();
        let now = || State::now(directory.path()).unwrap();
        assert_eq!(now(), (State::default(), false));
        let running =
            State { status: Status::Running, pid: Some(7), started: Some(5), ..State::default() };
        running.write(directory.path()).unwrap();
        lock.file().lock().unwrap();
        assert_eq!(now(), (running, true));
        drop(lock);
        let (state, held) = now();
        assert!(!held && state.status == Status::Exited && state.pid.is_none());
        assert_eq!(state.ended, Some(Ended { exit: Exit::Code(137), at: 5 }));
        assert!(state.error.is_some());
    }
}
