//! Containers: made here, run by supervisors (`rbuild-container`).
//!
//! A [`Container`] is a handle. One that is *tied* ends with its handle and leaves nothing behind,
//! which is what a program wants that runs something on the way; all others stay, running or not,
//! until somebody removes them, and [`Engine::container`] finds them again.

mod changes;
mod commit;
mod connect;
mod create;
mod devices;
pub(crate) mod directory;
mod exec;
mod files;
mod health;
mod line;
mod list;
mod membership;
mod privileges;
pub(crate) mod process;
mod record;
mod tmpfs;
mod update;
mod volumes;
mod watch;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_cache::{SnapshotId, Store};
use rbuild_container::events::Event;
use rbuild_container::{Connection as Wire, ContainerError, Orders, State, Stop, Supervisor};
use rbuild_sandbox::Exit;
use rbuild_types::{CancelToken, Cancelled, Stream};
use rustix::event::{PollFd, PollFlags, poll};

pub use changes::{ContainerChange, ContainerChangeKind};
pub use commit::CommitRequest;
pub use create::ContainerOptions;
pub(crate) use create::{check_name, now};
pub use exec::{Exec, ExecOptions, ExecStreams};
pub(crate) use files::{Access, ContainerFiles, Hidden};
pub use line::{Input, Line};
pub use list::{ContainerList, UnreadableContainer};
pub use privileges::{DeviceRequest, Privileges, SystemCalls};
pub use process::{Connection, ContainerNetwork, Dns, Membership, Process};
pub use record::ContainerRecord;
pub use tmpfs::Tmpfs;
pub use update::ContainerUpdate;
pub use volumes::{MountRecord, MountedFrom};
pub use watch::{ContainerProcess, ContainerUsage};

use crate::{BuildError, Engine};

/// How long a cancelled container may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_millis(500);
/// How long the lock of a container or volume is tried for: others who only look hold it for moments.
pub(crate) const MOMENT: Duration = Duration::from_millis(500);

/// Whether whoever starts a container stays with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// [`Container::wait`] brings all that it writes, from the first byte on, and its input ends
    /// with [`Container::input`].
    Yes,
    /// It is on its own.
    No,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    record: ContainerRecord,
    directory: PathBuf,
    store: Store,
    /// The program that supervises it and starts its process.
    program: PathBuf,
    resolv_conf: String,
    /// Where devices are described.
    cdi_directories: Vec<PathBuf>,
    /// Held while it is made, and until it is started if it is tied.
    lock: Option<File>,
    /// The process that is to supervise it, if there is one already.
    supervisor: Option<Supervisor>,
    /// To its supervisor, once it was started here.
    connection: Option<Wire>,
    /// Whether it goes with this handle.
    goes: bool,
}

impl Container {
    fn new(
        engine: &Engine,
        directory: PathBuf,
        lock: Option<File>,
        record: ContainerRecord,
    ) -> Self {
        Self {
            record,
            directory,
            store: engine.store.clone(),
            program: engine.helper(),
            resolv_conf: engine.resolv_conf(),
            cdi_directories: engine.options.cdi_directories.clone(),
            goes: lock.is_some(),
            lock,
            supervisor: None,
            connection: None,
        }
    }

    /// 64 hex digits.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What it is.
    pub fn record(&self) -> &ContainerRecord {
        &self.record
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes down what happened to it.
    fn happened(&self, action: impl Into<String>) {
        let event = Event::of_container(&self.directory, action).or_all(&self.record.attributes());
        event.note(self.store.root());
    }

    /// How it is now.
    ///
    /// # Errors
    ///
    /// When it was removed.
    pub fn state(&self) -> Result<State, BuildError> {
        Ok(State::now(&self.directory)?.0)
    }

    /// Starts the process; returns once it runs. With [`Attach::Yes`], [`Container::wait`] brings
    /// all that it writes.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it runs; [`rbuild_sandbox::SandboxError::Start`] when the
    /// program cannot be executed.
    pub fn start(&mut self, attach: Attach) -> Result<(), BuildError> {
        let lock = match self.lock.take() {
            Some(lock) => lock,
            None => {
                let lock = self.take_lock("it is running already")?;
                // Somebody may have changed it since it was read.
                self.record = ContainerRecord::read(&self.directory)?.ok_or_else(not_running)?;
                lock
            }
        };
        State::tell_unseen_end(&self.directory, &self.record.attributes());
        let cancel = CancelToken::default();
        let (mut binds, held) =
            volumes::binds(&self.record.mounts, &self.directory, &self.store, &cancel)?;
        let mut spec = self.record.spec.clone();
        let (connect, resolv_conf, hosts) = connect::settle(self)?;
        spec.files = process::files(&spec, &hosts, &resolv_conf);
        process::add_sysctls(&mut spec);
        devices::add(&self.record.privileges, &self.cdi_directories, &mut spec, &mut binds)?;
        let orders = Orders {
            directory: self.directory.clone(),
            helper: self.program.clone(),
            spec,
            lowers: self.lowers()?,
            binds,
            lasting: !self.record.auto_remove,
            open_stdin: self.record.open_stdin,
            auto_remove: self.record.auto_remove,
            attach: attach == Attach::Yes,
            tied: self.record.tied,
            connect,
            restart: self.record.restart,
            stop: self.record.stop,
            log: self.record.log,
            attributes: self.record.attributes(),
            health: self.record.health.clone(),
        };
        let supervisor = match self.supervisor.take() {
            Some(supervisor) => supervisor,
            None => Supervisor::start(&self.program)?,
        };
        let connection = supervisor.order(&orders, lock, &held)?;
        drop(held);
        connection.started()?;
        self.connection = Some(connection);
        Ok(())
    }

    /// The directories of its root filesystem, the bottom first.
    fn lowers(&self) -> Result<Vec<PathBuf>, BuildError> {
        lowers(&self.store, &self.record.layers)
    }

    /// Passes standard input on; for another thread than the one that waits.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it was not started, or attached to, here.
    pub fn input(&self) -> Result<Input, BuildError> {
        Ok(Input::supervisor(self.attached()?.input()?))
    }

    /// Attaches to the running container: [`Container::wait`] brings what it writes from now on.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it does not run.
    pub fn attach(&mut self) -> Result<(), BuildError> {
        let connection = Wire::open(&self.directory)?;
        connection.attach()?;
        self.connection = Some(connection);
        Ok(())
    }

    /// A line to the running process, which another thread may use while this one waits.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it does not run.
    pub fn line(&self) -> Result<Line, BuildError> {
        Ok(Line::to_supervisor(Wire::open(&self.directory)?))
    }

    /// Sends a signal, by number, to the process.
    ///
    /// # Errors
    ///
    /// [`BuildError::Request`] when there is no such signal, [`BuildError::Conflict`] when the
    /// container does not run.
    pub fn signal(&self, signal: i32) -> Result<(), BuildError> {
        let none = || BuildError::Request { message: format!("there is no signal {signal}") };
        let number = u8::try_from(signal).map_err(|_| none())?;
        match Wire::open(&self.directory)?.signal(number) {
            Err(ContainerError::Refused(message)) => Err(BuildError::Request { message }),
            sent => Ok(sent?),
        }
    }

    /// Holds all processes of the container.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it does not run or is paused.
    pub fn pause(&self) -> Result<(), BuildError> {
        self.done(Wire::open(&self.directory).and_then(|wire| wire.pause()))
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it is not paused.
    pub fn unpause(&self) -> Result<(), BuildError> {
        self.done(Wire::open(&self.directory).and_then(|wire| wire.unpause()))
    }

    fn done<T>(&self, order: Result<T, ContainerError>) -> Result<T, BuildError> {
        order.map_err(|error| match error {
            ContainerError::Refused(why) => {
                BuildError::Conflict { message: format!("container {}: {why}", self.record.name) }
            }
            error => error.into(),
        })
    }

    /// Waits for the end of the container, and gives what it writes to `output` if it is attached
    /// to. When `cancel` is cancelled it is stopped: SIGTERM, and shortly after SIGKILL.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it was not started; [`ContainerError::NoAnswer`] when its
    /// supervisor was killed.
    pub fn wait(
        &mut self,
        cancel: &CancelToken,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Exit, BuildError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Wire::open(&self.directory) {
                Ok(connection) => connection,
                Err(ContainerError::NotRunning) => return self.last_exit(),
                Err(error) => return Err(error.into()),
            },
        };
        loop {
            if cancel.is_cancelled() {
                // Who is not listened to while it is stopped is hung up on.
                self.stop(Some(Stop { signal: 15, patience: Some(GRACE) }))?;
                return Err(Cancelled.into());
            }
            let cancelled = cancel.fd();
            let mut fds = vec![PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::IN)];
            fds.extend(cancelled.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(ContainerError::Io(errno.into()).into()),
            }
            if fds.first().is_none_or(|fd| fd.revents().is_empty()) {
                continue;
            }
            match connection.end(output) {
                Ok(None) => {}
                Ok(Some(exit)) => return Ok(exit),
                Err(ContainerError::NoAnswer) => return self.exit_after_kill(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How it ended when its supervisor was killed: what the state says once the kernel has let go
    /// of the lock.
    fn exit_after_kill(&self) -> Result<Exit, BuildError> {
        let deadline = Instant::now() + MOMENT;
        while Instant::now() < deadline {
            match State::now(&self.directory) {
                // It hung up because nobody read, and lives.
                Ok((_, true)) => match Wire::open(&self.directory) {
                    Ok(again) => match again.ended(&mut |_, _| {}) {
                        Err(ContainerError::NoAnswer) => {}
                        ended => return Ok(ended?),
                    },
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                },
                Ok((State { ended: Some(ended), .. }, false)) => return Ok(ended.exit),
                Ok(_) | Err(_) => break,
            }
        }
        Err(ContainerError::NoAnswer.into())
    }

    /// How it ended last.
    fn last_exit(&self) -> Result<Exit, BuildError> {
        match self.state() {
            Ok(State { ended: Some(ended), .. }) => Ok(ended.exit),
            Ok(_) => Err(not_running()),
            // It is gone.
            Err(_) => Err(not_running()),
        }
    }

    fn attached(&self) -> Result<&Wire, BuildError> {
        self.connection.as_ref().ok_or_else(not_running)
    }

    /// Stops the process if it runs, with its own signal and patience, or others.
    ///
    /// # Errors
    ///
    /// When the supervisor cannot be reached.
    pub fn stop(&self, stop: Option<Stop>) -> Result<(), BuildError> {
        self.stop_and(stop, false)
    }

    /// Stops the process if it runs, and starts it again. One that goes when it ends stays.
    ///
    /// # Errors
    ///
    /// As those of [`Container::stop`] and [`Container::start`].
    pub fn restart(&mut self, stop: Option<Stop>) -> Result<(), BuildError> {
        self.stop_and(stop, true)?;
        self.start(Attach::No)?;
        self.happened("restart");
        Ok(())
    }

    fn stop_and(&self, stop: Option<Stop>, keep: bool) -> Result<(), BuildError> {
        stop_at(&self.directory, stop.unwrap_or(self.record.stop), keep)
    }

    /// Stops the process if it runs, and removes everything that the container wrote.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn delete(mut self) -> Result<(), BuildError> {
        self.remove(true)
    }

    /// Removes it; one that runs is killed first if that is wanted.
    ///
    /// # Errors
    ///
    /// [`BuildError::Conflict`] when it runs and `force` is not given.
    pub fn remove(&mut self, force: bool) -> Result<(), BuildError> {
        self.goes = false;
        self.connection = None;
        if force {
            kill(&self.directory)?;
        }
        let running = "it is running: stop it first, or remove it by force (rm -f)";
        let lock = match self.lock.take() {
            Some(lock) => lock,
            None => match self.take_lock(running) {
                Ok(lock) => lock,
                // Its supervisor did it.
                Err(_) if !self.directory.exists() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        self.forget_networks();
        State::tell_unseen_end(&self.directory, &self.record.attributes());
        rbuild_container::remove(&self.directory)?;
        drop(lock);
        Ok(())
    }

    /// Its lock; `busy` says why not.
    fn take_lock(&self, busy: &str) -> Result<File, BuildError> {
        take_lock(&self.directory, &self.record.name, busy)
    }
}

/// Removes a container of which nothing is known but where it is, whatever it does.
fn remove_at(directory: &Path, name: &str) -> Result<(), BuildError> {
    kill(directory)?;
    let lock = match take_lock(directory, name, "it is being made or removed") {
        Ok(lock) => lock,
        Err(_) if !directory.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    rbuild_container::remove(directory)?;
    drop(lock);
    Ok(())
}

/// Kills a container if it runs.
fn kill(directory: &Path) -> Result<(), BuildError> {
    stop_at(directory, Stop { signal: 9, patience: None }, false)
}

/// Stops a container if it runs.
fn stop_at(directory: &Path, stop: Stop, keep: bool) -> Result<(), BuildError> {
    match Wire::open(directory) {
        Ok(connection) => match connection.stop(stop, keep) {
            // It was killed, and the container with it.
            Ok(_) | Err(ContainerError::NoAnswer) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Err(ContainerError::NotRunning) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The lock of the container in `directory`; `busy` says why not.
fn take_lock(directory: &Path, name: &str, busy: &str) -> Result<File, BuildError> {
    let refused = |why: &str| BuildError::Conflict { message: format!("container {name}: {why}") };
    let path = directory.join("lock");
    let lock = match fs_err::File::open(&path) {
        Ok(lock) => lock.into_file(),
        Err(_) => return Err(refused("it is gone")),
    };
    let deadline = Instant::now() + MOMENT;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            return Err(refused(busy));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    match path.exists() {
        true => Ok(lock),
        false => Err(refused("it is gone")),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.goes {
            // What cannot be removed now is swept by the next container.
            let _ = self.remove(true);
        }
    }
}

fn lowers(store: &Store, layers: &[SnapshotId]) -> Result<Vec<PathBuf>, BuildError> {
    let stubs = rbuild_solver::stubs(store)
        .map_err(|source| BuildError::Io { what: "prepare the store".to_owned(), source })?;
    let snapshots = store.snapshots();
    let layers = layers.iter().map(|snapshot| snapshots.path(snapshot).join("fs"));
    Ok(std::iter::once(stubs).chain(layers).collect())
}

fn not_running() -> BuildError {
    BuildError::Conflict { message: "the container is not running".to_owned() }
}
