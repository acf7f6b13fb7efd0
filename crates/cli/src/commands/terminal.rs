//! The caller's terminal while a container has one of its own: raw, and put back however the
//! command ends.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rbuild::{Input, Line};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::exit_code;
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

/// Puts the terminal back as it was.
pub fn restore() {
    let before = BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(before) = before {
        // What is typed ahead stays for the shell.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Tells the container's terminal the size of ours. Without one it keeps its own size.
pub fn tell_size(line: &Line) {
    let streams: [&dyn AsFd; 3] = [&std::io::stdout(), &std::io::stdin(), &std::io::stderr()];
    if let Some(size) = streams.iter().find_map(|stream| tcgetwinsize(stream.as_fd()).ok()) {
        line.resize(size.ws_row, size.ws_col);
    }
}

/// Passes what is typed on until either side ends. With keys to look for, Ctrl-P and Ctrl-Q end the
/// command and leave the container alone, as in Docker.
pub fn pass_input(mut input: Input, mut keys: Option<DetachKeys>) {
    let mut stdin = std::io::stdin().lock();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdin.read(&mut buffer) {
        let mut typed = buffer[..count].to_vec();
        let detached = keys.as_mut().is_some_and(|keys| keys.take(&mut typed));
        if input.write(&typed).is_err() {
            return;
        }
        if detached {
            restore();
            crate::output::say("\rdetached: the container runs on");
            std::process::exit(exit_code::SUCCESS);
        }
    }
    // It may have ended.
    let _ = input.close();
}

/// Looks for the keys that detach.
#[derive(Debug, Default)]
pub struct DetachKeys {
    /// Whether the first of them was typed last.
    begun: bool,
}

impl DetachKeys {
    const FIRST: u8 = 16;
    const SECOND: u8 = 17;

    /// Takes the keys out of what was typed; whether both were. The first is held back until it is
    /// known what follows.
    fn take(&mut self, typed: &mut Vec<u8>) -> bool {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        let mut found = false;
        for byte in typed.drain(..) {
            match (std::mem::take(&mut self.begun), byte) {
                (true, Self::SECOND) => {
                    found = true;
                    break;
                }
                (begun, Self::FIRST) => {
                    passed.extend(begun.then_some(Self::FIRST));
                    self.begun = true;
                }
                (begun, byte) => {
                    passed.extend(begun.then_some(Self::FIRST));
                    passed.push(byte);
                }
            }
        }
        *typed = passed;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    #[test]
    fn two_keys_detach_and_nothing_else_is_lost() {
        let take = |pieces: &[&[u8]]| {
            let mut keys = DetachKeys::default();
            let mut passed = Vec::new();
            for piece in pieces {
                let mut typed = piece.to_vec();
                let found = keys.take(&mut typed);
                passed.extend(typed);
                if found {
                    return (passed, true);
                }
            }
            (passed, false)
        };
        assert_eq!(take(&[b"ab\x10\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(take(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(take(&[b"\x10", b"\x10", b"x\x11"]), (b"\x10\x10x\x11".to_vec(), false));
    }
}
