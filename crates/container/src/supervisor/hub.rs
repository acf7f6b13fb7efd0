//! Where the supervisor's threads meet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rbuild_sandbox::{Freezer, Signaller};
use rbuild_types::Stream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{Winsize, tcsetwinsize};

use super::clients::Client;
use crate::events::{self, Event};
use crate::frame::Kind;
use crate::logs::LogWriter;
use crate::network::Live;
use crate::orders::StopOrder;
use crate::state::State;
use crate::{Allowance, ContainerError, Orders};

/// What a pipe that is ready for writing takes at once (pipe(7)).
const PIPE_BUF: usize = 4096;

/// The signal that cannot be caught.
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

/// What all threads know of the container.
pub(super) struct Hub {
    clients: Mutex<Vec<Arc<Client>>>,
    log: Mutex<LogWriter>,
    directory: PathBuf,
    /// What is said of the container in events.
    attributes: BTreeMap<String, String>,
    state: Mutex<State>,
    network: Mutex<Option<Live>>,
    allowance: Mutex<Allowance>,
    process: Mutex<Process>,
    /// While the process is held.
    held: Mutex<Option<Held>>,
    life: Mutex<Life>,
    changed: Condvar,
    signal_of_stop: i32,
    /// Whether the input ends when somebody says so.
    input_ends: bool,
}

/// The ways to the process that runs now.
#[derive(Default)]
struct Process {
    signals: Option<Signaller>,
    input: Option<Arc<File>>,
    terminal: Option<Arc<File>>,
    /// It, by its number and its pidfd.
    first: Option<(u32, Arc<OwnedFd>)>,
}

/// A process that is held.
struct Held {
    freezer: Freezer,
    /// Who has to be there for that; nobody when not given.
    holder: Option<Arc<Client>>,
}

#[derive(Default)]
struct Life {
    /// Somebody wants it to end.
    stopping: bool,
    /// Somebody ordered it to stop.
    ordered: bool,
    /// It is about to be started again by somebody.
    keep: bool,
    /// It has ended for good.
    over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(super) fn new(orders: &Orders) -> io::Result<Self> {
        Ok(Self {
            clients: Mutex::default(),
            log: Mutex::new(LogWriter::open(&orders.directory, orders.log)?),
            directory: orders.directory.clone(),
            attributes: orders.attributes.clone(),
            state: Mutex::default(),
            network: Mutex::default(),
            allowance: Mutex::new(Allowance {
                resources: orders.spec.resources.clone(),
                restart: orders.restart,
            }),
            process: Mutex::default(),
            held: Mutex::default(),
            life: Mutex::default(),
            changed: Condvar::new(),
            signal_of_stop: orders.stop.signal,
            input_ends: orders.attach,
        })
    }

    /// Changes what is known of the container, and writes it down. What changes nothing is not
    /// written: whoever comes too late must not write over what a later supervisor wrote.
    pub(super) fn note(&self, change: impl FnOnce(&mut State)) -> Result<(), ContainerError> {
        let mut state = lock(&self.state);
        let before = state.clone();
        change(&mut state);
        if *state == before {
            return Ok(());
        }
        let written = state.write(&self.directory);
        for event in events::told(&self.directory, &self.attributes, &before, &state) {
            event.note_beside(&self.directory);
        }
        written
    }

    /// Writes an event of the container.
    pub(super) fn happened(&self, action: &str, attribute: Option<(&str, String)>) {
        let event = Event::of_container(&self.directory, action).or_all(&self.attributes);
        let event = match attribute {
            Some((name, value)) => event.with(name, value),
            None => event,
        };
        event.note_beside(&self.directory);
    }

    /// What is known of the container.
    pub(super) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// How it is connected to networks, if it is. Locked before the state.
    pub(super) fn network(&self) -> MutexGuard<'_, Option<Live>> {
        lock(&self.network)
    }

    /// Changes to which networks it is connected.
    pub(super) fn change_networks(
        &self,
        change: impl FnOnce(&mut Live) -> Result<(), ContainerError>,
    ) -> Result<(), String> {
        let mut network = self.network();
        let live = network.as_mut().ok_or("it has no network of its own, or is about to end")?;
        let changed = change(live);
        let connected = live.connected();
        self.note(|state| state.connected = connected)
            .and(changed)
            .map_err(|error| error.to_string())
    }

    /// What it may use, and when it is started again. Held while the process is started, so that
    /// what changes meanwhile reaches it.
    pub(super) fn allowance(&self) -> MutexGuard<'_, Allowance> {
        lock(&self.allowance)
    }

    /// Changes that, for the process that runs too.
    pub(super) fn allow(&self, allowance: Allowance) -> Result<(), String> {
        let mut current = self.allowance();
        if current.resources != allowance.resources
            && let Some((pid, _process)) = self.first()
        {
            allowance.resources.change(pid).map_err(|error| error.to_string())?;
        }
        *current = allowance;
        Ok(())
    }

    /// The process was started. If somebody wanted it to end just before, it does.
    pub(super) fn process_started(
        &self,
        signals: Signaller,
        input: Option<OwnedFd>,
        terminal: Option<OwnedFd>,
        first: Option<(u32, Arc<OwnedFd>)>,
    ) {
        let file = |fd: OwnedFd| Arc::new(File::from(fd));
        let terminal = terminal.map(file);
        let input = input.map(file).or_else(|| terminal.clone());
        *lock(&self.process) = Process { signals: Some(signals), input, terminal, first };
        if self.is_stopping() {
            self.send(KILL);
        }
    }

    /// The process, by its number and its pidfd. The number is its own as long as it has not ended.
    pub(super) fn first(&self) -> Option<(u32, Arc<OwnedFd>)> {
        lock(&self.process).first.clone()
    }

    pub(super) fn process_ended(&self) {
        *lock(&self.process) = Process::default();
        if let Some(held) = lock(&self.held).take() {
            held.freezer.forget();
        }
        // A full disk costs the rest of a line.
        let _ = lock(&self.log).flush();
    }

    /// Keeps what the process wrote, and passes it on.
    pub(super) fn wrote(&self, stream: Stream, bytes: &[u8]) {
        // A full disk must not stop the process.
        let _ = lock(&self.log).write(stream, bytes);
        let kind = match stream {
            Stream::Stdout => Kind::Output,
            Stream::Stderr => Kind::Error,
        };
        for client in self.clients().iter().filter(|client| client.is_attached()) {
            client.tell_patiently(kind, bytes, || self.is_stopping());
        }
    }

    /// Tells everybody.
    pub(super) fn tell(&self, kind: Kind, content: &[u8]) {
        if matches!(kind, Kind::Ended | Kind::Failed) {
            lock(&self.life).over = true;
            self.changed.notify_all();
        }
        let over = self.is_over();
        let hurry = || !over && self.is_stopping();
        let clients = self.clients();
        let Some((first, others)) = clients.split_first() else { return };
        // One who does not listen keeps nobody else from learning it.
        std::thread::scope(|scope| {
            for client in others {
                scope.spawn(move || client.tell_patiently(kind, content, hurry));
            }
            first.tell_patiently(kind, content, hurry);
        });
    }

    fn is_over(&self) -> bool {
        lock(&self.life).over
    }

    /// Whether somebody ordered it to stop, and did not just send a signal.
    pub(super) fn is_ordered_to_stop(&self) -> bool {
        lock(&self.life).ordered
    }

    /// Whether it is about to be started again by somebody.
    pub(super) fn is_kept(&self) -> bool {
        lock(&self.life).keep
    }

    fn clients(&self) -> Vec<Arc<Client>> {
        lock(&self.clients).clone()
    }

    pub(super) fn add(&self, client: Arc<Client>) {
        lock(&self.clients).push(client);
    }

    pub(super) fn remove(&self, client: &Arc<Client>) {
        lock(&self.clients).retain(|other| !Arc::ptr_eq(other, client));
    }

    /// Passes a signal on. Killing it, or the signal that stops it, is an order not to start it
    /// again, as in Docker.
    pub(super) fn signal(&self, signal: i32) {
        if signal == KILL || signal == self.signal_of_stop {
            self.want_end();
        }
        self.send(signal);
        self.happened("kill", Some(("signal", signal.to_string())));
        if self.is_stopping() {
            let _ = self.unpause();
        }
    }

    fn send(&self, signal: i32) {
        if let Some(signals) = &lock(&self.process).signals {
            // It may have ended.
            let _ = signals.send(signal);
        }
    }

    fn want_end(&self) {
        lock(&self.life).stopping = true;
        self.changed.notify_all();
    }

    /// Whether somebody wants it to end.
    pub(super) fn is_stopping(&self) -> bool {
        lock(&self.life).stopping
    }

    /// Waits; whether somebody wanted it to end meanwhile.
    pub(super) fn stopped_within(&self, time: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(lock(&self.life), time, |life| !life.stopping);
        wait.unwrap_or_else(PoisonError::into_inner).0.stopping
    }

    /// Stops the process, by force if it takes too long.
    pub(super) fn stop(&self, StopOrder { stop, keep }: StopOrder) {
        {
            let mut life = lock(&self.life);
            life.keep |= keep;
            life.ordered = true;
        }
        self.want_end();
        self.send(stop.signal);
        self.happened("kill", Some(("signal", stop.signal.to_string())));
        // One that is held gets the signal when it goes on.
        let _ = self.unpause();
        let Some(patience) = stop.patience else { return };
        let wait = self.changed.wait_timeout_while(lock(&self.life), patience, |life| !life.over);
        let over = wait.unwrap_or_else(PoisonError::into_inner).0.over;
        if !over {
            self.send(KILL);
            self.happened("kill", Some(("signal", KILL.to_string())));
        }
    }

    /// Holds all processes of the container: until somebody lets them go on, or the holder is gone.
    pub(super) fn pause(&self, holder: Option<&Arc<Client>>) -> Result<(), String> {
        let mut held = lock(&self.held);
        if held.is_some() {
            return Err("it is paused already".to_owned());
        }
        let (pid, process) = self.first().ok_or("it is not running")?;
        let freezer = Freezer::freeze(pid, process.as_fd());
        let freezer = freezer.map_err(|error| format!("cannot pause: {error}"))?;
        *held = Some(Held { freezer, holder: holder.cloned() });
        self.note(|state| state.paused = state.pid == Some(pid)).map_err(|error| error.to_string())
    }

    /// Lets them go on.
    pub(super) fn unpause(&self) -> Result<(), String> {
        self.thaw(&mut lock(&self.held))
    }

    /// One is gone: what it held goes on.
    pub(super) fn let_go(&self, client: &Arc<Client>) {
        let mut held = lock(&self.held);
        let holder = held.as_ref().and_then(|held| held.holder.as_ref());
        if holder.is_some_and(|holder| Arc::ptr_eq(holder, client)) {
            // Nobody is there to be told.
            let _ = self.thaw(&mut held);
        }
    }

    fn thaw(&self, held: &mut Option<Held>) -> Result<(), String> {
        let freezer = &held.as_ref().ok_or("it is not paused")?.freezer;
        freezer.thaw().map_err(|error| format!("cannot unpause: {error}"))?;
        held.take().into_iter().for_each(|held| held.freezer.forget());
        self.note(|state| state.paused = false).map_err(|error| error.to_string())
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        self.signal(KILL);
    }

    /// Passes input on, as fast as the process reads and as long as the giver is there.
    pub(super) fn input(&self, bytes: &[u8], giver: &UnixStream) {
        let input = lock(&self.process).input.clone();
        let Some(input) = input else { return };
        // A pipe that is ready takes as much at once.
        for piece in bytes.chunks(PIPE_BUF) {
            let mut fds =
                [PollFd::new(&*input, PollFlags::OUT), PollFd::new(giver, PollFlags::RDHUP)];
            while let Err(rustix::io::Errno::INTR) = poll(&mut fds, None) {}
            let ready = fds[0].revents().contains(PollFlags::OUT);
            // Whoever does not read does without.
            if !ready || (&*input).write_all(piece).is_err() {
                return;
            }
        }
    }

    /// Who gave the input is gone: a pipe is closed.
    pub(super) fn close_input(&self) {
        let mut process = lock(&self.process);
        if process.terminal.is_none() {
            process.input = None;
        }
    }

    /// Ends the input: a pipe is closed, a terminal is told what Ctrl-D tells it. One that does not
    /// end with anybody's stays open, as in Docker.
    pub(super) fn end_input(&self) {
        if !self.input_ends {
            return;
        }
        let mut process = lock(&self.process);
        match process.terminal.clone() {
            Some(terminal) => {
                drop(process);
                let _ = (&*terminal).write_all(&[4]);
            }
            None => process.input = None,
        }
    }

    /// Tells the terminal its size.
    pub(super) fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        let terminal = lock(&self.process).terminal.clone();
        let terminal = terminal.ok_or("the container has no terminal")?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&*terminal, size).map_err(|errno| errno.to_string())
    }
}
