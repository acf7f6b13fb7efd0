//! What `-p` and `EXPOSE` say. Pure; the grammar and most words of errors are Docker's
//! (docker/go-connections, `nat/nat.go`).

use std::fmt;
use std::net::IpAddr;

use rustix::net::SocketType;

use super::port_set::{HostPorts, parse_range};

/// One port of a container, and where it is to be reached on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortBinding {
    /// One address of the host, or an unspecified one for all of its family; none for all of both
    /// families.
    pub host_address: Option<IpAddr>,
    /// The host's ports that it may take.
    pub host_ports: HostPorts,
    /// The container's port.
    pub container_port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why a port specification cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortSpecError {
    /// Nothing stands where the container's port should.
    #[error("no port specified: {spec}<empty>")]
    NoPort {
        /// All of it.
        spec: String,
    },
    /// The part before the ports is no address.
    #[error("invalid IP address: {address}")]
    Address {
        /// That part.
        address: String,
    },
    /// The container's port is no port or range.
    #[error("invalid containerPort: {port}")]
    ContainerPort {
        /// What stands there.
        port: String,
    },
    /// The host's port is no port or range.
    #[error("invalid hostPort: {port}")]
    HostPort {
        /// What stands there.
        port: String,
    },
    /// Two ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges {
        /// The container's.
        container: String,
        /// The host's.
        host: String,
    },
    /// No protocol.
    #[error("invalid proto: {protocol}")]
    Protocol {
        /// What stands there.
        protocol: String,
    },
    /// SCTP, which Docker publishes and we do not.
    #[error("cannot publish {port}/sctp: only tcp and udp are supported")]
    Sctp {
        /// The container's port.
        port: String,
    },
}

impl PortBinding {
    /// Reads what follows `-p`: `[[address:]hostPort[-range]:]containerPort[-range][/protocol]`.
    ///
    /// Two ranges of one length are as many bindings; a range for one port of the container is
    /// one binding that takes the first that is free.
    ///
    /// # Errors
    ///
    /// When it is none of these.
    pub fn parse(spec: &str) -> Result<Vec<Self>, PortSpecError> {
        let (rest, container) = spec.rsplit_once(':').unwrap_or(("", spec));
        let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (container, protocol) = split_protocol(container);
        if container.is_empty() {
            return Err(PortSpecError::NoPort { spec: spec.to_owned() });
        }
        let protocol = read_protocol(container, protocol)?;
        let host_address = read_address(address)?;
        let range = container_range(container)?;
        let count = range.1 - range.0;
        let wrong_host = || PortSpecError::HostPort { port: host.to_owned() };
        let first_host = match host {
            "" | "0" => None,
            _ => {
                let (first, last) = parse_range(host).ok_or_else(wrong_host)?;
                if first == 0 {
                    return Err(wrong_host());
                }
                if count == 0 && first < last {
                    let host_ports = HostPorts::FirstFree { first, last };
                    return Ok(vec![Self {
                        host_address,
                        host_ports,
                        container_port: range.0,
                        protocol,
                    }]);
                }
                if last - first != count {
                    return Err(PortSpecError::Ranges {
                        container: container.to_owned(),
                        host: host.to_owned(),
                    });
                }
                Some(first)
            }
        };
        let binding = |offset| Self {
            host_address,
            host_ports: first_host.map_or(HostPorts::Any, |first| HostPorts::One(first + offset)),
            container_port: range.0 + offset,
            protocol,
        };
        Ok((0..=count).map(binding).collect())
    }

    /// Reads what follows `EXPOSE` or `--expose`, for `-P`: `port[-range][/protocol]`. Each port
    /// is published at any that is free.
    ///
    /// # Errors
    ///
    /// When it is not that.
    pub fn exposed(value: &str) -> Result<Vec<Self>, PortSpecError> {
        let (port, protocol) = split_protocol(value);
        if port.is_empty() {
            return Err(PortSpecError::NoPort { spec: value.to_owned() });
        }
        let protocol = read_protocol(port, protocol)?;
        let (first, last) = container_range(port)?;
        let binding = |container_port| Self {
            host_address: None,
            host_ports: HostPorts::Any,
            container_port,
            protocol,
        };
        Ok((first..=last).map(binding).collect())
    }
}

/// In the form that [`PortBinding::parse`] reads.
impl fmt::Display for PortBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}:", self.host_ports)?,
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}:", self.host_ports)?,
            None if self.host_ports == HostPorts::Any => {}
            None => write!(f, "{}:", self.host_ports)?,
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Protocol {
    pub(super) fn socket_type(self) -> SocketType {
        match self {
            Self::Tcp => SocketType::STREAM,
            Self::Udp => SocketType::DGRAM,
        }
    }
}

/// The protocol is TCP where none, or an empty one, is named.
fn split_protocol(text: &str) -> (&str, &str) {
    let (port, protocol) = text.split_once('/').unwrap_or((text, ""));
    (port, if protocol.is_empty() { "tcp" } else { protocol })
}

fn read_protocol(port: &str, protocol: &str) -> Result<Protocol, PortSpecError> {
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err(PortSpecError::Sctp { port: port.to_owned() }),
        _ => Err(PortSpecError::Protocol { protocol: protocol.to_owned() }),
    }
}

/// Addresses of IPv6 may stand in brackets.
fn read_address(text: &str) -> Result<Option<IpAddr>, PortSpecError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Result<IpAddr, _> = bare.unwrap_or(text).parse();
    match address {
        // `::ffff:127.0.0.1` is an address of IPv4 to Docker, too.
        Ok(address) if bare.is_none() || address.is_ipv6() => Ok(Some(address.to_canonical())),
        _ => Err(PortSpecError::Address { address: text.to_owned() }),
    }
}

fn container_range(text: &str) -> Result<(u16, u16), PortSpecError> {
    parse_range(text)
        .filter(|(first, _)| *first > 0)
        .ok_or_else(|| PortSpecError::ContainerPort { port: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Vec<String> {
        PortBinding::parse(spec).unwrap().iter().map(ToString::to_string).collect()
    }

    fn refused(spec: &str) -> String {
        PortBinding::parse(spec).unwrap_err().to_string()
    }

    #[test]
    fn the_forms_of_dockers_manual() {
        for (spec, bindings) in [
            ("80", vec!["80/tcp"]),
            ("80/UDP", vec!["80/udp"]),
            ("80/", vec!["80/tcp"]),
            (":80", vec!["80/tcp"]),
            ("0:80", vec!["80/tcp"]),
            ("8080:80", vec!["8080:80/tcp"]),
            ("08080:080", vec!["8080:80/tcp"]),
            ("127.0.0.1:8080:80", vec!["127.0.0.1:8080:80/tcp"]),
            ("127.0.0.1::80/udp", vec!["127.0.0.1::80/udp"]),
            ("0.0.0.0:53:53/udp", vec!["0.0.0.0:53:53/udp"]),
            ("[::1]:80:80", vec!["[::1]:80:80/tcp"]),
            ("[2001:4860:0:2001::68]::333", vec!["[2001:4860:0:2001::68]::333/tcp"]),
            ("2001:4860:0:2001::68::333", vec!["[2001:4860:0:2001::68]::333/tcp"]),
            ("::1:80:80", vec!["[::1]:80:80/tcp"]),
            ("::::80", vec!["[::]::80/tcp"]),
            ("8000-8010:80", vec!["8000-8010:80/tcp"]),
            ("8000-8001:80-81", vec!["8000:80/tcp", "8001:81/tcp"]),
            ("80-82/udp", vec!["80/udp", "81/udp", "82/udp"]),
            ("[::ffff:127.0.0.1]:80:80", vec!["127.0.0.1:80:80/tcp"]),
        ] {
            assert_eq!(read(spec), bindings, "{spec}");
        }
        assert_eq!(PortBinding::parse("1-65535").unwrap().len(), 65535);
    }

    #[test]
    fn what_is_wrong_is_said_in_dockers_words() {
        for (spec, words) in [
            ("", "no port specified: <empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("8080:/tcp", "no port specified: 8080:/tcp<empty>"),
            ("localhost:80:80", "invalid IP address: localhost"),
            ("[::1:80:80", "invalid IP address: [::1"),
            ("[127.0.0.1]:80:80", "invalid IP address: [127.0.0.1]"),
            ("fe80::1%eth0:80:80", "invalid IP address: fe80::1%eth0"),
            ("192.168.1.100", "invalid containerPort: 192.168.1.100"),
            ("http", "invalid containerPort: http"),
            ("+80", "invalid containerPort: +80"),
            ("0", "invalid containerPort: 0"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80-", "invalid containerPort: 80-"),
            ("80-81-82", "invalid containerPort: 80-81-82"),
            ("65536:80", "invalid hostPort: 65536"),
            ("192.168.1.100:-1:-1", "invalid containerPort: -1"),
            ("-1:80", "invalid hostPort: -1"),
            ("0-5:80", "invalid hostPort: 0-5"),
            ("80/icmp", "invalid proto: icmp"),
            ("80/sctp", "cannot publish 80/sctp: only tcp and udp are supported"),
            (
                "8000-8001:80-82",
                "invalid ranges specified for container and host Ports: 80-82 and 8000-8001",
            ),
            ("8000:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000"),
        ] {
            assert_eq!(refused(spec), words, "{spec}");
        }
    }

    #[test]
    fn exposed_ports_are_published_at_any() {
        let all: Vec<_> =
            ["80", "53/udp", "8000-8001/tcp"].map(|v| PortBinding::exposed(v).unwrap()).concat();
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["80/tcp", "53/udp", "8000/tcp", "8001/tcp"]);
        for wrong in ["", "/tcp", "80:80", "0", "80/tcp/udp", "9-8"] {
            assert!(PortBinding::exposed(wrong).is_err(), "{wrong}");
        }
    }
}
