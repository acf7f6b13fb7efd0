//! What can go wrong with devices, addresses and routes.

use std::io;

use crate::netns::NetnsError;

/// Why a device, address or route cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The kernel refused.
    #[error("cannot {action}: {source}{}", crate::hint(.source))]
    Kernel {
        /// What was to be done.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The name of a bridge belongs to something else.
    #[error(
        "the device {name} is there and is no bridge; remove it, or give the network another bridge"
    )]
    NotABridge {
        /// The device.
        name: String,
    },
    /// The container's network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}
