//! What `RUN --mount` gives a process, as data; the defaults are already filled in.
//!
//! Sources inside a root are paths that the solver resolves below that root and never above it,
//! whatever links were planted there.

use serde::{Deserialize, Serialize};

use crate::op::{ContextName, InputIndex};

/// One mount of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, cleaned, not `/`. Missing only for a secret that is given as a variable alone.
    pub target: Option<String>,
    /// Whether the process may not write there.
    pub read_only: bool,
    /// What is mounted.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountKind {
    /// Files of another root; what is written to a writable one is thrown away.
    Bind(MountSource),
    /// A directory that stays from build to build and is in no layer and no key.
    Cache(CacheMount),
    /// Memory, empty each time.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret, as a file, a variable, or both; its value is in no key.
    Secret(SecretMount),
    /// The socket of an SSH agent.
    Ssh(SshMount),
}

/// A path in a root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MountSource {
    /// Which root.
    pub root: MountRoot,
    /// Absolute from that root, cleaned.
    pub path: String,
}

/// Which root a mount takes its files from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum MountRoot {
    /// A local directory: the build context or a named one.
    Context {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: ContextName,
    },
    /// The root filesystem of another vertex.
    Input {
        /// Which input.
        input: InputIndex,
    },
    /// A stage without any filesystem.
    Empty,
}

/// `type=cache`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CacheMount {
    /// Names the directory: namespace (`BUILDKIT_CACHE_MOUNT_NS`), `/`, and the `id` or target.
    pub id: String,
    /// What happens when two processes want it at once.
    pub sharing: Sharing,
    /// The root whose files a new directory starts with.
    pub seed: Option<MountRoot>,
    /// The directory in it that is mounted: absolute from its root, cleaned, resolved below it.
    pub path: String,
    /// Mode of a new directory.
    pub mode: u32,
    /// Owner of a new directory.
    pub uid: u32,
    /// Group of a new directory.
    pub gid: u32,
}

/// What happens when two processes want one cache directory at once.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Both get it.
    #[default]
    Shared,
    /// The second gets a new one.
    Private,
    /// The second waits.
    Locked,
}

/// `type=secret`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretMount {
    /// Name of the secret.
    pub id: String,
    /// The variable that holds it, if asked for.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
}

/// `type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SshMount {
    /// Which agent.
    pub id: String,
    /// Whether `SSH_AUTH_SOCK` is set to the target: for the first agent of a step.
    pub export: bool,
    /// Whether the step fails without it.
    pub required: bool,
    /// Mode of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}
