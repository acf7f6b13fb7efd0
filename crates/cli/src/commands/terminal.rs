//! The caller's terminal while a container has one of its own: raw, and put back however the
//! command ends.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::failure::Failure;

/// How the terminal was before it became raw. Global, because a panic must put it back too, and
/// a release does not unwind.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Makes the terminal at standard input raw for as long as it lives.
pub struct Raw;

impl Raw {
    /// Keys go through as they are typed.
    pub fn enter() -> Result<Self, Failure> {
        let io = |error: rustix::io::Errno| Failure::io("set up the terminal")(error.into());
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).map_err(io)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(before);
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            print(info);
        }));
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(io)?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(before) = before {
        // What is typed ahead stays for the shell.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Gives the container's terminal the size of ours. Without one it keeps its own size.
pub fn copy_size(master: BorrowedFd<'_>) {
    let streams: [&dyn AsFd; 3] = [&std::io::stdout(), &std::io::stdin(), &std::io::stderr()];
    if let Some(size) = streams.iter().find_map(|stream| tcgetwinsize(stream.as_fd()).ok()) {
        let _ = tcsetwinsize(master, size);
    }
}

/// Passes what is typed on until either side ends.
pub fn pass_input(master: OwnedFd) {
    let mut master = std::fs::File::from(master);
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdin.read(&mut buffer) {
        if master.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    // End of input: what the terminal's line discipline takes for Ctrl-D.
    let _ = master.write_all(&[4]);
}

/// Passes on what the container writes until its last process is gone, which reads as `EIO`.
pub fn pass_output(master: OwnedFd) {
    let mut master = std::fs::File::from(master);
    let mut stdout = std::io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match master.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                if stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
