//! What is known of a file without opening it.

use std::fmt;

use rustix::fs::{FileType, Stat};

/// The type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

impl FileKind {
    pub(crate) fn from_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            _ => return None,
        })
    }

    pub(crate) fn file_type(self) -> FileType {
        match self {
            Self::Regular => FileType::RegularFile,
            Self::Directory => FileType::Directory,
            Self::Symlink => FileType::Symlink,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
            Self::CharDevice => FileType::CharacterDevice,
            Self::BlockDevice => FileType::BlockDevice,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "regular file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
        })
    }
}

/// A point in time, as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970, negative before it.
    pub sec: i64,
    /// Nanoseconds after `sec`, below 10^9.
    pub nsec: u32,
}

impl Time {
    /// Nanoseconds since 1970; saturates 292 years away from it.
    pub fn as_nanos(self) -> i64 {
        self.sec.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nsec))
    }
}

/// The attributes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file, length of a link's target.
    pub size: u64,
    /// Number of names of the inode.
    pub nlink: u64,
    /// Device number of a device node, in the kernel's encoding.
    pub rdev: u64,
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// 512-byte blocks that are allocated.
    pub blocks: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode; cannot be set by users.
    pub ctime: Time,
}

impl Metadata {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Reads the kernel's structure.
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the field widths differ between architectures"
    )]
    pub fn from_stat(stat: &Stat) -> Self {
        Self {
            // The kernel knows no eighth type; treat one as something that is never read.
            kind: FileKind::from_type(FileType::from_raw_mode(stat.st_mode))
                .unwrap_or(FileKind::Socket),
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            nlink: stat.st_nlink as u64,
            rdev: stat.st_rdev as u64,
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            blocks: stat.st_blocks as u64,
            mtime: Time { sec: stat.st_mtime as i64, nsec: stat.st_mtime_nsec as u32 },
            ctime: Time { sec: stat.st_ctime as i64, nsec: stat.st_ctime_nsec as u32 },
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without any slash.
    pub name: std::ffi::OsString,
    /// What the name is; links are not followed.
    pub kind: FileKind,
}
