//! Memory that is mounted in a container.

use rbuild_sandbox::{Mount, MountSource};

/// A directory in memory. It is empty, whatever the image has in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute path inside.
    pub target: String,
    /// Bytes that it may hold; the kernel's default is half of the memory.
    pub size: Option<u64>,
    /// Files that it may hold; the kernel's default follows the memory.
    pub files: Option<u64>,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Whether it may not be written.
    pub read_only: bool,
    /// Whether setuid and setgid programs in it are programs like others.
    pub no_suid: bool,
    /// Whether no program in it can be executed.
    pub no_exec: bool,
}

impl Tmpfs {
    /// As Docker mounts it when nothing else is said: everybody may write, and nothing can be
    /// executed.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            size: None,
            files: None,
            mode: 0o1777,
            owner: (0, 0),
            read_only: false,
            no_suid: true,
            no_exec: true,
        }
    }

    pub(super) fn mount(&self) -> Mount {
        let Self { size, files, mode, owner, .. } = *self;
        Mount {
            target: self.target.clone(),
            source: MountSource::Tmpfs { size, mode, owner, files },
            read_only: self.read_only,
            no_suid: self.no_suid,
            no_exec: self.no_exec,
        }
    }
}
