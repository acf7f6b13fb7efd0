//! Who has a port, for the error that says that it is taken. Best effort: a process of another
//! user or PID namespace is not seen.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::spec::Protocol;

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel keeps it: 15 bytes at most.
    pub command: String,
}

impl Holder {
    pub(super) fn is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Finds who has `address`, or one that stands in its way.
    pub(super) fn of(address: SocketAddr, protocol: Protocol) -> Option<Self> {
        let tables = match protocol {
            Protocol::Tcp => ["tcp", "tcp6"],
            Protocol::Udp => ["udp", "udp6"],
        };
        let inode = tables.iter().find_map(|table| {
            // Of the thread: it may be in another network namespace than the process.
            let text =
                fs_err::read_to_string(Path::new("/proc/thread-self/net").join(table)).ok()?;
            text.lines().skip(1).find_map(|line| taken_by(line, address, protocol))
        })?;
        process_with(&format!("socket:[{inode}]"))
    }
}

/// The inode of the socket of a line of `/proc/net/tcp` or one like it, if it is in the way of
/// `address`.
fn taken_by(line: &str, address: SocketAddr, protocol: Protocol) -> Option<u64> {
    /// `TCP_LISTEN`.
    const LISTENING: &str = "0A";
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let inode: u64 = words.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = parse_address(ip)?;
    let overlaps = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    let holds = protocol == Protocol::Udp || state == LISTENING;
    (port == address.port() && overlaps && holds).then_some(inode)
}

/// Words of 32 bits in hexadecimal, each in the machine's byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

fn process_with(socket: &str) -> Option<Holder> {
    let processes = fs_err::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs_err::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| {
            fs_err::read_link(file.path()).is_ok_and(|target| target == Path::new(socket))
        })?;
        let command = fs_err::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(Holder { pid, command: command.trim_end().to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernels_tables() {
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                    1000        0 4711 1 0000000000000000 100 0 0 10 0";
        let six = "   1: 00000000000000000000000001000000:0050 \
                   00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 \
                   0        0 42 2 0000000000000000 0";
        let taken =
            |line, address: &str, protocol| taken_by(line, address.parse().unwrap(), protocol);
        assert_eq!(taken(four, "127.0.0.1:8080", Protocol::Tcp), Some(4711));
        assert_eq!(taken(four, "0.0.0.0:8080", Protocol::Tcp), Some(4711));
        assert_eq!(taken(four, "127.0.0.2:8080", Protocol::Tcp), None);
        assert_eq!(taken(four, "127.0.0.1:8081", Protocol::Tcp), None);
        assert_eq!(taken(six, "[::1]:80", Protocol::Udp), Some(42));
        assert_eq!(taken(six, "[::1]:80", Protocol::Tcp), None, "it does not listen");
        for wrong in ["", "0:", "0: 1:2 3", "0: zzzzzzzz:0050 0:0 0A 0 0 0 0 0 1"] {
            assert_eq!(taken(wrong, "0.0.0.0:80", Protocol::Tcp), None);
        }
    }
}
