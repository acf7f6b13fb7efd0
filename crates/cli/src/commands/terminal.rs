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

/// Passes what is typed on until either side ends. With keys to look for, those end the command and
/// leave the container alone, as in Docker.
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
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were typed last.
    typed: usize,
}

impl Default for DetachKeys {
    /// Ctrl-P and Ctrl-Q.
    fn default() -> Self {
        Self { keys: vec![16, 17], typed: 0 }
    }
}

impl DetachKeys {
    /// Those of `--detach-keys`, or the usual ones.
    pub fn of(given: Option<&str>) -> Result<Self, Failure> {
        given.map_or_else(|| Ok(Self::default()), Self::parse)
    }

    /// Reads what `--detach-keys` says: keys with commas between them, each a character or `ctrl-`
    /// and a letter or one of `@[\\]^_`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let key = |key: &str| match key.strip_prefix("ctrl-").unwrap_or(key).as_bytes() {
            [letter @ (b'a'..=b'z')] if key.len() > 1 => Some(letter - b'a' + 1),
            [sign @ (b'@' | b'['..=b'_')] if key.len() > 1 => Some(sign - b'@'),
            [byte] if key.len() == 1 && byte.is_ascii() => Some(*byte),
            _ => None,
        };
        match text.split(',').map(key).collect::<Option<Vec<u8>>>() {
            Some(keys) => Ok(Self { keys, typed: 0 }),
            None => Err(Failure::usage_hint(
                format!("--detach-keys {text}: no such keys"),
                "give keys such as ctrl-p,ctrl-q or ctrl-],x",
            )),
        }
    }

    /// Takes the keys out of what was typed; whether all were. Those that were typed are held back
    /// until it is known what follows.
    fn take(&mut self, typed: &mut Vec<u8>) -> bool {
        let mut passed = Vec::with_capacity(typed.len() + self.typed);
        for byte in std::mem::take(typed) {
            // The longest beginning of the keys that what was typed ends with.
            let mut held = self.keys[..self.typed].to_vec();
            held.push(byte);
            let fits = |from: &usize| self.keys.starts_with(&held[*from..]);
            let from = (0..held.len()).find(fits).unwrap_or(held.len());
            passed.extend_from_slice(&held[..from]);
            self.typed = held.len() - from;
            if self.typed == self.keys.len() {
                *typed = passed;
                return true;
            }
        }
        *typed = passed;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::DetachKeys;

    fn take(mut keys: DetachKeys, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
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
    }

    #[test]
    fn two_keys_detach_and_nothing_else_is_lost() {
        let take = |pieces: &[&[u8]]| take(DetachKeys::default(), pieces);
        assert_eq!(take(&[b"ab\x10\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(take(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(take(&[b"\x10", b"\x10", b"x\x11"]), (b"\x10\x10x\x11".to_vec(), false));
        assert_eq!(take(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn others_can_be_chosen() {
        let keys = |text: &str| DetachKeys::parse(text).unwrap();
        assert_eq!(take(keys("ctrl-],x"), &[b"a\x1dx"]), (b"a".to_vec(), true));
        assert_eq!(take(keys("a,a,b"), &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(take(keys("ctrl-@"), &[b"\x10\x11\0"]), (b"\x10\x11".to_vec(), true));
        for wrong in ["", "ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }
}
