//! The supervisor: one process for each running container.
//!
//! The main thread starts the process, keeps what it writes, and waits for its end, again and
//! again where the restart policy says so. One thread accepts connections, one more serves each of
//! them, one reads the terminal if there is one, and one checks the health if that is wanted. They meet in the [`Hub`], whose locks are held
//! for moments; only writing to whoever is attached may take longer, and then the process waits as
//! it would for a pipe that is full.

mod clients;
mod health;
mod hub;
mod run;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_sandbox::{Exit, handover};

use self::clients::Role;
use self::hub::Hub;
use crate::client::SOCKET;
use crate::frame::Kind;
use crate::health::Health;
use crate::network::{Connected, Live};
use crate::state::Status;
use crate::{ContainerError, Orders, SUPERVISOR_NAME, instant};

/// Stacks of the supervisor's threads: there may be many supervisors.
const STACK: usize = 128 << 10;
/// Wait before the first restart; doubles with each further one, as in Docker.
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Whoever ran so long has not failed in a row.
const STEADY: Duration = Duration::from_secs(10);

/// Becomes a supervisor when the program was started as one; otherwise returns at once.
///
/// Call it first thing in `main`, before any thread is started.
pub fn supervisor_main() {
    if std::env::args_os().next().is_some_and(|name| name == SUPERVISOR_NAME) {
        std::process::exit(match supervise() {
            Ok(()) => 0,
            Err(_) => 125,
        });
    }
}

fn supervise() -> io::Result<()> {
    // What whoever started it had open would stay open as long as the container runs.
    rbuild_sandbox::close_from(3)?;
    // The socket arrives as standard input.
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(fs_err::File::open("/dev/null")?.file())?;
    // Ctrl-C at the terminal of whoever started it is not meant for it.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    let (orders, held) = handover::receive::<Orders>(control.as_fd())?;
    let hub = Arc::new(Hub::new(&orders)?);
    let listener = listen(&orders.directory)?;
    let starter = Role::Starter { attached: orders.attach, tied: orders.tied };
    clients::serve(&hub, UnixStream::from(control), starter)?;
    clients::accept(&hub, listener)?;
    let (told, clean) = connect_and_live(&orders, &hub);
    // In this order: whoever learns of the end may remove the container or start it again.
    let _ = fs_err::remove_file(orders.directory.join(SOCKET));
    if orders.auto_remove && !hub.is_kept() {
        // What cannot be removed now is swept by the next container.
        let _ = crate::remove(&orders.directory);
    }
    drop(held);
    let (kind, content) = told?;
    std::thread::scope(|scope| {
        // Who does not listen does not keep the host's devices.
        scope.spawn(clean);
        hub.tell(kind, &content);
    });
    Ok(())
}

/// What is left to do when everybody may know that the container ended.
type Cleaning = Box<dyn FnOnce() + Send>;

/// The container's life, with its networks around it; what everybody is told at its end, and what is
/// to be cleaned up after that.
fn connect_and_live(orders: &Orders, hub: &Arc<Hub>) -> (io::Result<(Kind, Vec<u8>)>, Cleaning) {
    let id = orders.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(connect) = &orders.connect {
        match Live::connect(id, orders.directory.clone(), connect) {
            Ok(network) => *hub.network() = Some(network),
            Err(error) => return (not_started(hub, error), Box::new(|| {})),
        }
    }
    let told = live(orders, hub);
    let network = hub.network().take();
    match network {
        Some(network) => (told, Box::new(network.leave())),
        None => (told, Box::new(|| {})),
    }
}

/// A path of a socket may have 107 bytes, so its name is bound from its directory.
fn listen(directory: &Path) -> io::Result<UnixListener> {
    match fs_err::remove_file(directory.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    rustix::process::chdir(directory)?;
    let listener = UnixListener::bind(SOCKET);
    rustix::process::chdir("/")?;
    listener
}

/// The container's life; what everybody is told at its end.
fn live(orders: &Orders, hub: &Arc<Hub>) -> io::Result<(Kind, Vec<u8>)> {
    let mut backoff = BACKOFF;
    loop {
        let begun = Instant::now();
        let exit = match once(orders, hub) {
            Ok(exit) => exit,
            Err(error) => return not_started(hub, error),
        };
        if begun.elapsed() >= STEADY {
            backoff = BACKOFF;
        }
        let restart = hub.allowance().restart;
        let again = restart.wants(exit.code(), hub.state().restarts) && !hub.is_stopping();
        // A disk that is full must not keep the container from ending.
        let _ = hub.note(|state| {
            state.end(exit);
            state.status = if again { Status::Restarting } else { Status::Exited };
        });
        if !again || hub.stopped_within(backoff) {
            // What is kept for the next start waits as if it had never been started.
            let waits = orders.auto_remove && hub.is_kept();
            let _ = hub.note(|state| {
                state.status = if waits { Status::Created } else { Status::Exited };
                state.connected = Connected::default();
            });
            if hub.is_ordered_to_stop() {
                hub.happened("stop", None);
            }
            return Ok((Kind::Ended, serde_json::to_vec(&exit)?));
        }
        backoff = (2 * backoff).min(BACKOFF_MAX);
        let _ = hub.note(|state| state.restarts += 1);
    }
}

/// Notes that it could not be started, and what everybody is told of that.
fn not_started(hub: &Hub, error: ContainerError) -> io::Result<(Kind, Vec<u8>)> {
    let failure = error.failure();
    let _ = hub.note(|state| {
        state.end(Exit::Code(failure.code));
        state.status = if state.started.is_none() { Status::Created } else { Status::Exited };
        state.error = Some(format!("cannot {}: {}", failure.action, failure.reason));
        state.connected = Connected::default();
    });
    Ok((Kind::Failed, serde_json::to_vec(&failure)?))
}

/// One run of the process.
fn once(orders: &Orders, hub: &Arc<Hub>) -> Result<Exit, ContainerError> {
    let allowance = hub.allowance();
    let (running, pid, terminal) = run::start(orders, hub, &allowance.resources)?;
    {
        let network = hub.network();
        hub.note(|state| {
            state.status = Status::Running;
            state.pid = Some(pid);
            state.started = Some(instant::now());
            state.error = None;
            state.health = orders.health.as_ref().map(|_| Health::default());
            state.connected = network.as_ref().map(Live::connected).unwrap_or_default();
        })?;
    }
    drop(allowance);
    if let Some(checks) = &orders.health {
        health::watch(hub, orders, checks)?;
    }
    let pid = serde_json::to_vec(&pid).map_err(io::Error::from)?;
    hub.tell(Kind::Started, &pid);
    // Not before: who started it is told that first.
    let pump = terminal.map(|terminal| run::pump(hub, terminal)).transpose()?;
    let exit = running.wait(&Default::default(), &mut |stream, bytes| hub.wrote(stream, bytes));
    if let Some(pump) = pump {
        let _ = pump.join();
    }
    hub.process_ended();
    // Once it ran, that its helper was killed is an end like others.
    Ok(exit.unwrap_or(Exit::Signal(9)))
}

/// Starts a thread with a small stack.
fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body)
}

/// A pipe that no program inherits.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
