//! What crosses the supervisor's socket: a letter, the length of what follows (4 bytes, little
//! endian), and that.

use std::io::{self, Read, Write};

/// Longest content of a frame.
const LONGEST: usize = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    // To the supervisor.
    /// Output and error are wanted from now on.
    Attach = b'A',
    /// For standard input.
    Input = b'I',
    /// Standard input has ended.
    EndOfInput = b'E',
    /// A signal for the process: its number, one byte.
    Signal = b'S',
    /// The size of the terminal: rows and columns, two bytes each.
    Resize = b'R',
    /// All processes are to be held.
    Pause = b'P',
    /// They are to be held until whoever says so hangs up.
    Hold = b'H',
    /// They are to go on.
    Unpause = b'U',
    /// The container is to stop: a `StopOrder` in JSON.
    Stop = b'K',
    /// The container is to join a network: a `Joining` in JSON.
    Join = b'J',
    /// The container is to leave the network of this name.
    Leave = b'L',
    /// The container may use more or less: `Allowance` in JSON.
    Allow = b'W',
    // From the supervisor.
    /// The order was carried out.
    Done = b'd',
    /// The order could not be carried out: why.
    Refused = b'r',
    /// The process runs: its number on the host in JSON.
    Started = b's',
    /// It could not be started: a `StartFailure` in JSON.
    Failed = b'f',
    /// It wrote to standard output, or the terminal.
    Output = b'1',
    /// It wrote to standard error.
    Error = b'2',
    /// The container ended: an `Exit` in JSON.
    Ended = b'x',
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        let all = [
            Attach, Input, EndOfInput, Signal, Resize, Pause, Hold, Unpause, Stop, Join, Leave,
            Allow, Done, Refused, Started, Failed, Output, Error, Ended,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Writes a frame in one piece.
pub(crate) fn write(mut to: impl Write, kind: Kind, content: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(content.len() + 5);
    frame.push(kind as u8);
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(content);
    to.write_all(&frame)
}

/// Reads a frame; `None` at the end.
pub(crate) fn read(mut from: impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0; 5];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        // Who was killed with something unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        read => read?,
    }
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    match Kind::of(kind) {
        Some(kind) if length <= LONGEST => {
            let mut content = vec![0; length];
            match from.read_exact(&mut content) {
                // Who was not waited for is hung up on in the middle.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            Ok(Some((kind, content)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no frame")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back(content in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Vec::new();
            write(&mut bytes, Kind::Output, &content).unwrap();
            prop_assert_eq!(read(bytes.as_slice()).unwrap(), Some((Kind::Output, content)));
        }

        #[test]
        fn other_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(bytes.as_slice());
        }
    }
}
