//! Those who are connected: orders are read by a thread for each.

use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_sandbox::handover::SIGNALS;

use super::hub::Hub;
use super::thread;
use crate::frame::{self, Kind};

/// How often a write that does not get on looks whether it is still worth it.
const PATIENCE: Duration = Duration::from_millis(200);

/// One who is connected.
pub(super) struct Client {
    stream: Mutex<UnixStream>,
    attached: AtomicBool,
}

impl Client {
    fn new(stream: &UnixStream, attached: bool) -> io::Result<Self> {
        let stream = stream.try_clone()?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: Mutex::new(stream), attached: AtomicBool::new(attached) })
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    /// Tells something short.
    fn tell(&self, kind: Kind, content: &[u8]) {
        self.tell_patiently(kind, content, || true);
    }

    /// Tells something. Who does not listen is waited for until `hurry`; who hung up, or was not
    /// waited for, is told nothing more.
    pub(super) fn tell_patiently(&self, kind: Kind, content: &[u8], hurry: impl Fn() -> bool) {
        let mut frame = Vec::with_capacity(content.len() + 5);
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if frame::write(&mut frame, kind, content).is_err() {
            return;
        }
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count @ 1..) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !hurry() => {}
                _ => {
                    self.attached.store(false, Ordering::SeqCst);
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
        }
    }
}

/// Serves everybody who comes.
pub(super) fn accept(hub: &Arc<Hub>, listener: UnixListener) -> io::Result<()> {
    let hub = hub.clone();
    thread("accept", move || {
        for stream in listener.incoming() {
            match stream {
                // Who cannot be served is hung up on.
                Ok(stream) => drop(serve(&hub, stream, Role::Guest)),
                Err(_) => std::thread::sleep(PATIENCE),
            }
        }
    })?;
    Ok(())
}

/// What hangs on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    Guest,
    /// It started the container.
    Starter {
        /// Whether it gets all that the container writes, and gives all that it reads.
        attached: bool,
        /// Whether the container ends with it.
        tied: bool,
    },
}

/// Serves one.
pub(super) fn serve(hub: &Arc<Hub>, stream: UnixStream, role: Role) -> io::Result<()> {
    let attached = matches!(role, Role::Starter { attached: true, .. });
    let client = Arc::new(Client::new(&stream, attached)?);
    hub.add(client.clone());
    let hub = hub.clone();
    thread("client", move || {
        // Who sends what cannot be understood is hung up on.
        while let Ok(Some((kind, content))) = frame::read(&stream) {
            obey(&hub, &client, &stream, kind, &content);
        }
        hub.let_go(&client);
        hub.remove(&client);
        if attached {
            hub.close_input();
        }
        if matches!(role, Role::Starter { tied: true, .. }) {
            hub.kill();
        }
    })?;
    Ok(())
}

fn obey(hub: &Hub, client: &Arc<Client>, stream: &UnixStream, kind: Kind, content: &[u8]) {
    let answer = match (kind, content) {
        (Kind::Attach, _) => {
            client.attached.store(true, Ordering::SeqCst);
            return;
        }
        (Kind::Input, bytes) => return hub.input(bytes, stream),
        (Kind::EndOfInput, _) => return hub.end_input(),
        (Kind::Stop, stop) => match serde_json::from_slice(stop) {
            Ok(stop) => return hub.stop(stop),
            Err(error) => Err(error.to_string()),
        },
        (Kind::Signal, &[number]) => match SIGNALS.contains(&number) {
            true => {
                hub.signal(number.into());
                Ok(())
            }
            false => Err(format!("there is no signal {number}")),
        },
        (Kind::Join, joining) => match serde_json::from_slice(joining) {
            Ok(joining) => hub.change_networks(|live| live.join(&joining)),
            Err(error) => Err(error.to_string()),
        },
        (Kind::Allow, allowance) => match serde_json::from_slice(allowance) {
            Ok(allowance) => hub.allow(allowance),
            Err(error) => Err(error.to_string()),
        },
        (Kind::Leave, name) => {
            let name = String::from_utf8_lossy(name);
            hub.change_networks(|live| live.part(&name))
        }
        (Kind::Pause, _) => hub.pause(None),
        (Kind::Hold, _) => hub.pause(Some(client)),
        (Kind::Unpause, _) => hub.unpause(),
        (Kind::Resize, &[a, b, c, d]) => {
            hub.resize(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        }
        _ => Err("the container's supervisor does not know this order".to_owned()),
    };
    match answer {
        Ok(()) => client.tell(Kind::Done, &[]),
        Err(why) => client.tell(Kind::Refused, why.as_bytes()),
    }
}
