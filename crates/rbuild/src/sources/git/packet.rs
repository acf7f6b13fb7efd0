//! Packet lines: the frames of git's protocol, and the answer that carries a pack.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};

use rbuild_registry::BlobSink;

use super::error::GitError;
use super::object::ObjectId;

/// Longest packet, its length included.
const MAX_PACKET: usize = 65_520;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Data(&'a [u8]),
    /// A flush, a delimiter or an end: all of them only divide.
    Mark,
}

/// The first frame of `bytes` and how long it is; `None` when more bytes are needed.
pub(super) fn split(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>, &'static str> {
    let Some(digits) = bytes.get(..4) else { return Ok(None) };
    let mut length = [0; 2];
    hex::decode_to_slice(digits, &mut length).map_err(|_| "a packet has no length")?;
    match usize::from(u16::from_be_bytes(length)) {
        0..=3 => Ok(Some((Packet::Mark, 4))),
        length if length > MAX_PACKET => Err("a packet is too long"),
        length => Ok(bytes.get(4..length).map(|data| (Packet::Data(data), length))),
    }
}

/// All frames of a whole text.
pub(super) fn all(mut bytes: &[u8]) -> Result<Vec<Packet<'_>>, &'static str> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let (packet, length) = split(bytes)?.ok_or("the last packet is cut off")?;
        packets.push(packet);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(packets)
}

/// One text as a frame.
pub(super) fn frame(text: &str) -> Result<Vec<u8>, &'static str> {
    match text.len() + 4 {
        length if length > MAX_PACKET => Err("its path is too long"),
        length => Ok(format!("{length:04x}{text}").into_bytes()),
    }
}

/// A request in the making.
#[derive(Default)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn line(mut self, text: &str) -> Self {
        // Texts are short: a reference's name is the longest part.
        self.0.extend(format!("{:04x}{text}\n", text.len() + 5).bytes());
        self
    }

    pub(super) fn delimiter(mut self) -> Self {
        self.0.extend(b"0001");
        self
    }

    pub(super) fn flush(mut self) -> Self {
        self.0.extend(b"0000");
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes an answer that carries a pack, and writes the pack.
pub(super) struct PackSink {
    remote: String,
    waiting: Vec<u8>,
    /// Whether the pack has begun.
    packing: bool,
    /// What the server says against it.
    refusal: Option<GitError>,
    pub(super) file: File,
    pub(super) size: u64,
}

impl PackSink {
    pub(super) fn new(remote: &str, file: File) -> Self {
        Self {
            remote: remote.to_owned(),
            waiting: Vec::new(),
            packing: false,
            refusal: None,
            file,
            size: 0,
        }
    }

    /// The server's refusal, if there was one.
    pub(super) fn refusal(&mut self) -> Option<GitError> {
        self.refusal.take()
    }

    /// `None` when the packet is an error, which was kept.
    fn take(&mut self, data: &[u8]) -> io::Result<Option<()>> {
        let remote = self.remote.clone();
        let refuse = |message: &[u8]| Some(GitError::refused(&remote, message));
        if let Some(message) = data.strip_prefix(b"ERR ") {
            self.refusal = refuse(message);
            return Ok(None);
        }
        if !self.packing {
            // Protocol 2 announces the pack; before, the end of the negotiation did.
            self.packing = matches!(data, b"packfile\n" | b"NAK\n");
            return Ok(Some(()));
        }
        match data.split_first() {
            Some((1, bytes)) => {
                self.size += bytes.len() as u64;
                self.file.write_all(bytes)?;
            }
            Some((3, message)) => {
                self.refusal = refuse(message);
                return Ok(None);
            }
            // Progress, for people.
            _ => {}
        }
        Ok(Some(()))
    }
}

impl BlobSink for PackSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.as_slice();
        while let Some((packet, length)) = split(rest).map_err(io::Error::other)? {
            if let Packet::Data(data) = packet
                && self.take(data)?.is_none()
            {
                return Err(io::Error::other("refused"));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        self.waiting = rest.to_vec();
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.waiting.clear();
        (self.packing, self.size) = (false, 0);
        self.file.rewind()?;
        self.file.set_len(0)
    }
}

/// `<hex> <name>` and what may follow it.
pub(super) fn reference(line: &[u8]) -> Option<(ObjectId, String, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (id, rest) = line.split_at_checked(40)?;
    let rest = rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"\t"))?;
    let end = rest.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((ObjectId::from_hex(id)?, name.to_owned(), behind.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames() {
        let request = Request::default().line("command=fetch").delimiter().line("done").flush();
        let bytes = request.bytes();
        assert_eq!(bytes, b"0012command=fetch\n00010009done\n0000");
        let packets = all(&bytes).unwrap();
        let expected =
            [Packet::Data(b"command=fetch\n"), Packet::Mark, Packet::Data(b"done\n"), Packet::Mark];
        assert_eq!(packets, expected);
        assert_eq!(split(b"00").unwrap(), None);
        assert_eq!(split(b"0009do").unwrap(), None);
        assert!(split(b"zzzz").is_err() && split(b"ffff").is_err() && all(b"0009do").is_err());
    }

    #[test]
    fn packs_come_out_whole_however_they_are_cut() {
        let answer = b"0011shallow-info\n0001000dpackfile\n0009\x01PACK0007\x02hi0006\x01!0000";
        for cut in 1..answer.len() {
            let mut sink = PackSink::new("r", tempfile::tempfile().unwrap());
            for piece in answer.chunks(cut) {
                sink.write(piece).unwrap();
            }
            let mut text = String::new();
            sink.file.rewind().unwrap();
            sink.file.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), sink.size), ("PACK!", 5));
        }
        let mut sink = PackSink::new("r", tempfile::tempfile().unwrap());
        assert!(sink.write(b"000cERR nope").is_err());
        assert!(sink.refusal().unwrap().to_string().contains("nope"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = (all(&bytes), reference(&bytes));
            let mut sink = PackSink::new("r", tempfile::tempfile().unwrap());
            let _ = sink.write(&bytes);
        }
    }
}
