//! The supervisor: one process for each running container.
//!
//! The main thread starts the process, keeps what it writes, and waits for its end, again and
//! again where the restart policy says so. One thread accepts connections, one more serves each of
//! them, and one reads the terminal if there is one. They meet in the [`Hub`], whose locks are held
//! for moments; only writing to whoever is attached may take longer, and then the process waits as
//! it would for a pipe that is full.

mod clients;
mod hub;
mod run;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rbuild_rooted::Root;
use rbuild_sandbox::{Exit, handover};

use self::hub::Hub;
use crate::client::SOCKET;
use crate::frame::Kind;
use crate::state::{State, Status};
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
    // The socket arrives as standard input.
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(fs_err::File::open("/dev/null")?.file())?;
    // Ctrl-C at the terminal of whoever started it is not meant for it.
    let _ = rustix::process::setsid();
    let (orders, held) = handover::receive::<Orders>(control.as_fd())?;
    let hub = Arc::new(Hub::new(&orders)?);
    let listener = listen(&orders.directory)?;
    clients::serve(&hub, UnixStream::from(control), orders.tied)?;
    clients::accept(&hub, listener)?;
    let told = live(&orders, &hub);
    // In this order: whoever learns of the end may remove the container or start it again.
    let _ = fs_err::remove_file(orders.directory.join(SOCKET));
    if orders.auto_remove {
        // What cannot be removed now is swept by the next container.
        let _ = remove(&orders.directory);
    }
    drop(held);
    let (kind, content) = told?;
    hub.tell(kind, &content);
    Ok(())
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

fn remove(directory: &Path) -> Result<(), ContainerError> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(());
    };
    Ok(Root::open(parent)?.remove_all(name)?)
}

/// The container's life; what everybody is told at its end.
fn live(orders: &Orders, hub: &Arc<Hub>) -> io::Result<(Kind, Vec<u8>)> {
    let mut state = State::default();
    let mut backoff = BACKOFF;
    loop {
        let begun = Instant::now();
        let exit = match once(orders, hub, &mut state) {
            Ok(exit) => exit,
            Err(error) => {
                let failure = error.failure();
                let first = state.restarts == 0;
                state.end(Exit::Code(failure.code));
                state.status = if first { Status::Created } else { Status::Exited };
                state.error = Some(format!("cannot {}: {}", failure.action, failure.reason));
                let _ = state.write(&orders.directory);
                return Ok((Kind::Failed, serde_json::to_vec(&failure)?));
            }
        };
        state.end(exit);
        if begun.elapsed() >= STEADY {
            (backoff, state.restarts) = (BACKOFF, 0);
        }
        let again = orders.restart.wants(exit.code(), state.restarts) && !hub.is_stopping();
        state.status = if again { Status::Restarting } else { Status::Exited };
        // A disk that is full must not keep the container from ending.
        let _ = state.write(&orders.directory);
        if !again || hub.stopped_within(backoff) {
            state.status = Status::Exited;
            let _ = state.write(&orders.directory);
            return Ok((Kind::Ended, serde_json::to_vec(&exit)?));
        }
        backoff = (2 * backoff).min(BACKOFF_MAX);
        state.restarts += 1;
    }
}

/// One run of the process.
fn once(orders: &Orders, hub: &Arc<Hub>, state: &mut State) -> Result<Exit, ContainerError> {
    let (running, pid, pump) = run::start(orders, hub)?;
    state.status = Status::Running;
    state.pid = Some(pid);
    state.started = Some(instant::now());
    state.error = None;
    state.write(&orders.directory)?;
    let pid = serde_json::to_vec(&pid).map_err(io::Error::from)?;
    hub.tell(Kind::Started, &pid);
    let exit = running.wait(&Default::default(), &mut |stream, bytes| hub.wrote(stream, bytes));
    if let Some(pump) = pump {
        // Ends with the last process that has the terminal open.
        let _ = pump.join();
    }
    hub.process_ended();
    Ok(exit?)
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
