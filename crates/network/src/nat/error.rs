//! What can go wrong with tables of nf_tables.

use std::io;

/// Why there can be no translation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatError {
    /// The process may not.
    #[error(
        "translating addresses is not allowed to this process: it needs root with CAP_NET_ADMIN; \
         without it use the network host or none"
    )]
    Permission,
    /// There is no nf_tables, or a part of it is not there.
    #[error(
        "the kernel cannot translate addresses: it lacks {lacks}; load or build that module, or \
         use the network host or none"
    )]
    Missing {
        /// The module, as it is called in a kernel's configuration.
        lacks: &'static str,
    },
    /// The kernel knows no tables that go with their owner.
    #[error("the kernel cannot remove the table {table} with its owner; that needs Linux 5.12")]
    NoOwner {
        /// The table.
        table: String,
    },
    /// Somebody else has a table of this name.
    #[error(
        "the nf_tables table {table} is there already: another process watches this container, or \
         `nft delete table inet {table}` removes it"
    )]
    Held {
        /// The table.
        table: String,
    },
    /// The kernel refused.
    #[error("cannot {action} in the nf_tables table {table}: {source}")]
    Kernel {
        /// What was to be done.
        action: &'static str,
        /// The table.
        table: String,
        /// The kernel's answer.
        source: io::Error,
    },
}
