//! Forwarding between devices, which a host does for its containers and does not do by itself.

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, write};

/// Of IPv4.
const V4: &[&str] = &["/proc/sys/net/ipv4/ip_forward"];

/// Of IPv6: for devices that are there, and for those that come. A host that learns its own routes
/// from a router stops that unless its `accept_ra` is 2.
const V6: &[&str] =
    &["/proc/sys/net/ipv6/conf/default/forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Why packets cannot be forwarded.
#[derive(Debug, thiserror::Error)]
#[error("cannot turn forwarding on in {file}: {source}{}", crate::hint(.source))]
pub struct ForwardingError {
    /// The kernel's file.
    pub file: &'static str,
    /// Its answer.
    pub source: std::io::Error,
}

/// Turns forwarding of IPv4 on in the calling thread's network namespace, for all of the host, as
/// Docker does, and leaves it so. Returns the files that said otherwise, to be told to the user.
pub fn forward_ipv4() -> Result<Vec<&'static str>, ForwardingError> {
    turn_on(V4)
}

/// The same for IPv6.
pub fn forward_ipv6() -> Result<Vec<&'static str>, ForwardingError> {
    turn_on(V6)
}

fn turn_on(files: &[&'static str]) -> Result<Vec<&'static str>, ForwardingError> {
    let mut changed = Vec::new();
    for file in files {
        let was_off =
            ensure(file).map_err(|source| ForwardingError { file, source: source.into() })?;
        changed.extend(was_off.then_some(*file));
    }
    Ok(changed)
}

/// Whether it was off.
fn ensure(file: &str) -> rustix::io::Result<bool> {
    let mut value = [0; 2];
    let length = read(open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, &mut value)?;
    let was_off = value[..length].starts_with(b"0");
    if was_off {
        write(open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, b"1")?;
    }
    Ok(was_off)
}
