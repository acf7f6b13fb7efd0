//! What a Dockerfile may have only when the caller says so.

use std::fmt;
use std::str::FromStr;

use rbuild_types::{Diagnostic, Span};

/// One permission, `--allow`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entitlement {
    /// The host's network for a step.
    NetworkHost,
    /// A step without the sandbox's restrictions.
    SecurityInsecure,
    /// Devices of the host: all, or the one of this name.
    Device(Option<String>),
}

/// A text that names no entitlement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown entitlement {text:?}: there are network.host, security.insecure and device")]
pub struct UnknownEntitlement {
    text: String,
}

impl Entitlement {
    /// Says that what is at `span` needs this permission, and how it is given.
    pub fn refused(&self, span: Span) -> Diagnostic {
        Diagnostic::error("entitlement", span, format!("{self} is not allowed"))
            .help(format!("if you trust this Dockerfile, build with --allow {self}"))
    }
}

impl FromStr for Entitlement {
    type Err = UnknownEntitlement;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "network.host" => Ok(Self::NetworkHost),
            "security.insecure" => Ok(Self::SecurityInsecure),
            "device" => Ok(Self::Device(None)),
            _ => match text.strip_prefix("device=") {
                Some(name) if !name.is_empty() => Ok(Self::Device(Some(name.to_owned()))),
                _ => Err(UnknownEntitlement { text: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkHost => formatter.write_str("network.host"),
            Self::SecurityInsecure => formatter.write_str("security.insecure"),
            Self::Device(None) => formatter.write_str("device"),
            Self::Device(Some(name)) => write!(formatter, "device={name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        for text in ["network.host", "security.insecure", "device", "device=vendor.com/gpu=0"] {
            assert_eq!(text.parse::<Entitlement>().unwrap().to_string(), text);
        }
        for bad in ["", "network", "device=", "security.secure", "Device"] {
            assert!(bad.parse::<Entitlement>().is_err(), "{bad}");
        }
    }
}
