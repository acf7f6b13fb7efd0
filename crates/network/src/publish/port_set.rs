//! The host's ports that a binding may take.

use std::fmt;

/// The host's ports that a binding may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostPorts {
    /// Any that is free, of those that the kernel hands out (`ip_local_port_range`).
    Any,
    /// This one.
    One(u16),
    /// The first of these that is free.
    FirstFree {
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::One(port) => write!(f, "{port}"),
            Self::FirstFree { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Reads `80` or `80-90`. What is not digits, above 65535 or runs backwards is none.
pub(super) fn parse_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        // `u16::from_str` takes a sign.
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}
