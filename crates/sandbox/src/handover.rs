//! A document and descriptors, from one process to another over a socket.
//!
//! One message carries the length of the JSON document and all descriptors; the document follows.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Descriptors that one message carries at most (`SCM_MAX_FD` in the kernel).
pub const MAX_DESCRIPTORS: usize = 253;

/// Numbers of signals, real-time signals too (signal(7)).
pub const SIGNALS: std::ops::RangeInclusive<u8> = 1..=64;

/// What the engine sends instead of a signal's number to let a process live on without it.
pub(crate) const LEAVE: u8 = 0;

/// Sends a document with descriptors.
///
/// # Errors
///
/// `InvalidInput` for more than [`MAX_DESCRIPTORS`]; `BrokenPipe` when nobody listens.
pub fn send(
    socket: BorrowedFd<'_>,
    document: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        let message = format!("more than {MAX_DESCRIPTORS} mounts in one process");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let document = serde_json::to_vec(document)?;
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let length = (document.len() as u64).to_le_bytes();
    let flags = SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&length)], &mut ancillary, flags)?;
    let mut rest = document.as_slice();
    while !rest.is_empty() {
        let sent = rustix::net::send(socket, rest, flags)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Receives what [`send`] sent.
///
/// # Errors
///
/// `UnexpectedEof` when the other side ended before.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut length = [0; 8];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut length)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(socket, &mut slices, &mut ancillary, flags)?.bytes;
    if received != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let mut document = Vec::new();
    let socket = std::fs::File::from(socket.try_clone_to_owned()?);
    let length = u64::from_le_bytes(length);
    socket.take(length).read_to_end(&mut document)?;
    Ok((serde_json::from_slice(&document)?, descriptors))
}
