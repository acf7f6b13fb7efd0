//! Names that steps find in `/etc/hosts`.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The word that stands for the address under which a step reaches its host.
pub const HOST_GATEWAY: &str = "host-gateway";

/// One line of `/etc/hosts`. The name is in the key of a step and the address is not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address, or [`HOST_GATEWAY`].
    pub address: String,
}

/// A text that is no `name:address` or `name=address`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid host {text:?}: {why}")]
pub struct InvalidExtraHost {
    text: String,
    why: &'static str,
}

impl FromStr for ExtraHost {
    type Err = InvalidExtraHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |why| InvalidExtraHost { text: text.to_owned(), why };
        // With `=` the name may hold no colon and needs none behind it.
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| invalid("the form is NAME:ADDRESS"))?;
        // What is written into a file of lines must stay in its line.
        let is_name = |byte: u8| byte.is_ascii_graphic() && !b"#:=".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(invalid("that is no host name"));
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(address);
        if address != HOST_GATEWAY && address.parse::<IpAddr>().is_err() {
            return Err(invalid("the address is neither an IP address nor `host-gateway`"));
        }
        Ok(Self { name: name.to_owned(), address: address.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let read = |text: &str| text.parse::<ExtraHost>().map(|it| (it.name, it.address));
        let of = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(read("db:10.0.0.1"), of("db", "10.0.0.1"));
        assert_eq!(read("db=10.0.0.1"), of("db", "10.0.0.1"));
        assert_eq!(read("db:::1"), of("db", "::1"));
        assert_eq!(read("db:[fe80::1]"), of("db", "fe80::1"));
        assert_eq!(read("db=[::1]"), of("db", "::1"));
        assert_eq!(read("up:host-gateway"), of("up", "host-gateway"));
        for bad in ["", "db", ":1.2.3.4", "db:", "db:x", "a b:1.2.3.4", "a\nb=::1", "db=[::1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
