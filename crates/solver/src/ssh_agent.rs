//! SSH agents of the caller, and what a step may ask of them.
//!
//! A step never gets the agent's own socket: it gets one of the engine's, and a thread of the
//! engine passes requests on. A step may list keys and have something signed. It may not add,
//! remove or lock keys, nor use extensions, which could do the same: those requests are answered
//! as failed and never leave the engine (BuildKit's `readOnlyAgent`, `session/sshforward`).
//!
//! # Threads
//!
//! [`Forwarding`] owns one thread that accepts connections; it starts one for each connection and
//! waits for them in the end. All of them poll the token that [`Forwarding`] cancels when it is
//! dropped, so none outlives the step, and with them go their descriptors.

mod keys;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rbuild_types::CancelToken;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send,
    socket_with,
};

pub use self::keys::InvalidSshKey;
use self::keys::Key;

/// Longest message that passes: OpenSSH's own limit (`AGENT_MAX_LEN` in `authfd.c`).
const MAX_MESSAGE: usize = 256 * 1024;
/// Connections of one step at once; more wait until one ends.
const MAX_CONNECTIONS: usize = 64;
/// How often that, and an agent that is busy, is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Requests that a step may make: list the keys, sign (`draft-miller-ssh-agent`, section 6.1).
const ALLOWED: [u8; 2] = [11, 13];
/// `SSH_AGENT_FAILURE`, with its length in front.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// SSH agents by id, for `RUN --mount=type=ssh`. `Debug` shows sockets and comments of keys.
#[derive(Debug, Clone, Default)]
pub struct SshAgents(BTreeMap<String, SshAgent>);

/// Who answers.
#[derive(Debug, Clone)]
pub(crate) enum SshAgent {
    /// Whoever listens there.
    Socket(PathBuf),
    /// The engine itself.
    Keys(Arc<[Key]>),
}

impl SshAgents {
    /// Adds the agent that listens on `socket`.
    pub fn insert(&mut self, id: impl Into<String>, socket: impl Into<PathBuf>) {
        self.0.insert(id.into(), SshAgent::Socket(socket.into()));
    }

    /// Adds an agent of the engine's own that has these private keys, given as `ssh-keygen`
    /// writes them.
    ///
    /// # Errors
    ///
    /// The number of the first key that cannot be used, and why.
    pub fn insert_keys(
        &mut self,
        id: impl Into<String>,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<(), (usize, InvalidSshKey)> {
        let read = |(number, text): (usize, &_)| {
            Key::read(AsRef::<[u8]>::as_ref(text)).map_err(|error| (number, error))
        };
        let keys: Result<Vec<_>, _> = keys.iter().enumerate().map(read).collect();
        self.0.insert(id.into(), SshAgent::Keys(keys?.into()));
        Ok(())
    }

    /// Connects to an agent, with what a step may ask of it; `None` when there is none of that id.
    ///
    /// # Errors
    ///
    /// When there is no room for another connection. An agent that does not answer shows as a
    /// connection that is closed.
    pub fn connect(&self, id: &str) -> io::Result<Option<UnixStream>> {
        let Some(agent) = self.get(id).cloned() else { return Ok(None) };
        let (ours, theirs) = UnixStream::pair()?;
        let serve = move || {
            // As for steps; it ends when the other end is closed.
            let _ = serve(&theirs, &agent, &CancelToken::default());
        };
        std::thread::Builder::new().name("rbuild-ssh-client".to_owned()).spawn(serve)?;
        Ok(Some(ours))
    }

    pub(crate) fn get(&self, id: &str) -> Option<&SshAgent> {
        self.0.get(id)
    }
}

/// A socket that leads to an agent as long as this lives.
#[derive(Debug)]
pub(crate) struct Forwarding {
    stop: CancelToken,
    thread: Option<JoinHandle<()>>,
}

impl Forwarding {
    /// Listens on a new socket at `path`, which may be longer than the address of a socket.
    pub(crate) fn start(path: &Path, agent: &SshAgent) -> io::Result<Self> {
        let listener = listen(path)?;
        listener.set_nonblocking(true)?;
        let stop = CancelToken::default();
        let (agent, token) = (agent.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("rbuild-ssh-agent".to_owned())
            .spawn(move || accept(&listener, &agent, &token))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It ends as soon as it sees the token.
            let _ = thread.join();
        }
    }
}

/// Binds by way of the directory's descriptor: an address holds 107 bytes, and a store may lie
/// deeper than that.
fn listen(path: &Path) -> io::Result<UnixListener> {
    use std::os::fd::AsRawFd as _;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = fs_err::File::open(directory)?;
    let by_fd = format!("/proc/self/fd/{}", directory.file().as_raw_fd());
    UnixListener::bind(Path::new(&by_fd).join(name))
}

fn accept(listener: &UnixListener, agent: &SshAgent, stop: &CancelToken) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !stop.is_cancelled() {
        connections.retain(|connection| !connection.is_finished());
        let full = connections.len() >= MAX_CONNECTIONS;
        if full {
            std::thread::sleep(TICK);
            continue;
        }
        if wait(listener.as_fd(), PollFlags::IN, stop).is_err() {
            break;
        }
        let Ok((client, _)) = listener.accept() else {
            // Perhaps there are no descriptors left: the next try may find some.
            std::thread::sleep(TICK);
            continue;
        };
        let (agent, stop) = (agent.clone(), stop.clone());
        let serve = move || {
            // What goes wrong shows as a connection that is closed, as with every agent.
            let _ = serve(&client, &agent, &stop);
        };
        let thread = std::thread::Builder::new().name("rbuild-ssh-client".to_owned()).spawn(serve);
        connections.extend(thread.ok());
    }
    for connection in connections {
        let _ = connection.join();
    }
}

/// Answers the requests of one connection, one after the other, until either side hangs up.
fn serve(client: &UnixStream, agent: &SshAgent, stop: &CancelToken) -> io::Result<()> {
    let mut upstream = None;
    while let Some(request) = read_message(client.as_fd(), stop)? {
        let is_allowed = request.get(4).is_some_and(|kind| ALLOWED.contains(kind));
        if !is_allowed {
            write(client.as_fd(), &FAILURE, stop)?;
            continue;
        }
        let socket = match agent {
            SshAgent::Socket(socket) => socket,
            SshAgent::Keys(keys) => {
                let answer = keys::answer(keys, &request).unwrap_or_else(|| FAILURE.to_vec());
                write(client.as_fd(), &answer, stop)?;
                continue;
            }
        };
        if upstream.is_none() {
            upstream = Some(connect(socket, stop)?);
        }
        let Some(agent) = &upstream else { return Ok(()) };
        write(agent.as_fd(), &request, stop)?;
        let Some(answer) = read_message(agent.as_fd(), stop)? else { return Ok(()) };
        write(client.as_fd(), &answer, stop)?;
    }
    Ok(())
}

/// Connects without being held up by an agent that does not accept.
fn connect(agent: &Path, stop: &CancelToken) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(agent)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            // Too many wait there already.
            Err(Errno::AGAIN) if !stop.is_cancelled() => std::thread::sleep(TICK),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One message with its length in front; `None` at the end.
fn read_message(from: BorrowedFd<'_>, stop: &CancelToken) -> io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    if !read(from, &mut message, 4, stop)? {
        return Ok(None);
    }
    let length = message.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Grows with what really comes.
    if !read(from, &mut message, 4 + length, stop)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

/// Reads until `into` holds `length` bytes; whether they came.
fn read(
    from: BorrowedFd<'_>,
    into: &mut Vec<u8>,
    length: usize,
    stop: &CancelToken,
) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    while into.len() < length {
        wait(from, PollFlags::IN, stop)?;
        let wanted = (length - into.len()).min(bytes.len());
        let space = bytes.get_mut(..wanted).unwrap_or_default();
        // Descriptors that come along are not asked for, and so never arrive.
        match recv(from, space, RecvFlags::DONTWAIT) {
            Ok((_, 0)) if into.is_empty() => return Ok(false),
            Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, count)) => into.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

fn write(to: BorrowedFd<'_>, mut bytes: &[u8], stop: &CancelToken) -> io::Result<()> {
    while !bytes.is_empty() {
        wait(to, PollFlags::OUT, stop)?;
        match send(to, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Waits until `fd` is ready; an error once the step has ended.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, stop: &CancelToken) -> io::Result<()> {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(fd, flags)];
        fds.extend(stop.fd().map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
        // Without an eventfd the flag is looked at now and then.
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        match poll(&mut fds, Some(&tick)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if stop.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// An agent that answers every message with its own kind and keeps what it was asked.
    fn agent(path: &Path) -> JoinHandle<Vec<u8>> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let mut asked = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            let mut message = [0; 5];
            while stream.read_exact(&mut message).is_ok() {
                asked.push(message[4]);
                stream.write_all(&[0, 0, 0, 2, 12, message[4]]).unwrap();
            }
            asked
        })
    }

    fn ask(stream: &mut UnixStream, kind: u8) -> Vec<u8> {
        stream.write_all(&[0, 0, 0, 1, kind]).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; length[3].into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    #[test]
    fn keys_are_listed_and_used_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (real, socket) = (directory.path().join("real"), directory.path().join("step"));
        let agent = agent(&real);
        let forwarding = Forwarding::start(&socket, &SshAgent::Socket(real)).unwrap();
        let mut stream = UnixStream::connect(&socket).unwrap();
        for kind in 0..=255 {
            let expected = if [11, 13].contains(&kind) { vec![12, kind] } else { vec![5] };
            assert_eq!(ask(&mut stream, kind), expected, "{kind}");
        }
        drop(stream);
        assert_eq!(agent.join().unwrap(), [11, 13]);
        drop(forwarding);
    }

    #[test]
    fn the_engine_asks_as_a_step_may() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        let agent = agent(&real);
        let mut agents = SshAgents::default();
        agents.insert("default", &real);
        assert!(agents.connect("other").unwrap().is_none());
        let mut stream = agents.connect("default").unwrap().unwrap();
        assert_eq!((ask(&mut stream, 11), ask(&mut stream, 17)), (vec![12, 11], vec![5]));
        drop(stream);
        assert_eq!(agent.join().unwrap(), [11]);
    }

    #[test]
    fn what_is_no_message_ends_the_connection() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("step");
        let _forwarding = Forwarding::start(&socket, &SshAgent::Socket("/none".into())).unwrap();
        for bytes in [&[0xff; 8][..], &[0, 0, 0, 0], &[0, 4, 0, 1, 11]] {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(bytes).unwrap();
            assert!(matches!(stream.read(&mut [0; 9]), Ok(0) | Err(_)), "{bytes:?}");
        }
    }

    /// Also while a client waits, one is in the middle of a message, and the agent says nothing.
    #[test]
    fn nothing_is_left_when_the_step_ends() {
        let directory = tempfile::tempdir().unwrap();
        // The path of a socket's address would be too long.
        let deep = directory.path().join("d".repeat(120));
        fs_err::create_dir(&deep).unwrap();
        let real = directory.path().join("real");
        let silent = UnixListener::bind(&real).unwrap();
        let forwarding = Forwarding::start(&deep.join("step"), &SshAgent::Socket(real)).unwrap();
        fs_err::os::unix::fs::symlink(&deep, directory.path().join("short")).unwrap();
        let connect = || UnixStream::connect(directory.path().join("short/step")).unwrap();
        let (idle, mut half, mut waiting) = (connect(), connect(), connect());
        half.write_all(&[0, 0]).unwrap();
        waiting.write_all(&[0, 0, 0, 1, 11]).unwrap();
        let (mut asked, _) = silent.accept().unwrap();
        asked.read_exact(&mut [0; 5]).unwrap();
        drop(forwarding);
        // Every end that the engine held is closed.
        for mut stream in [idle, half, waiting, asked] {
            stream.set_nonblocking(true).unwrap();
            match stream.read(&mut [0; 1]) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(UnixStream::connect(directory.path().join("short/step")).is_err());
    }
}
