//! Why the files of two builds differ, where that is known, and what is done about it.

use std::fmt;

/// A reason for which one Dockerfile often makes two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Only the time of the last change differs.
    FileTime,
    /// The config of the image has the time of the build.
    ImageTime,
    /// A compiled Python module holds the time of its source.
    PycTime,
    /// A log of a package manager or of another program.
    Log,
    /// The cache of the dynamic loader's helper holds times and inode numbers.
    LoaderCache,
    /// The cache or the package lists of apt.
    AptCache,
    /// The day of the last change of a password.
    PasswordDay,
    /// The id of a machine.
    MachineId,
    /// What a file was before it was changed, kept beside it.
    Backup,
    /// A key of an SSH server.
    SshHostKey,
    /// The header of a gzip file has the time of what is in it.
    GzipTime,
    /// The linker was told to make up a build id.
    BuildId,
    /// The order of the files in an archive, which is that of a directory.
    ArchiveOrder,
    /// Times of the files in an archive.
    ArchiveTime,
    /// The host name of the step.
    HostName,
    /// A name that is made up.
    RandomName,
    /// What looks like the time of the build is in a file.
    TimeInContent,
}

impl Cause {
    /// What it is, in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileTime => "timestamps",
            Self::ImageTime => "time of the image",
            Self::PycTime => "time in a compiled Python module",
            Self::Log => "log file",
            Self::LoaderCache => "cache of ldconfig",
            Self::AptCache => "cache of apt",
            Self::PasswordDay => "day in the password file",
            Self::MachineId => "machine id",
            Self::Backup => "backup of a changed file",
            Self::SshHostKey => "SSH host key",
            Self::GzipTime => "time in a gzip header",
            Self::BuildId => "random build id",
            Self::ArchiveOrder => "order of files in an archive",
            Self::ArchiveTime => "times of files in an archive",
            Self::HostName => "host name",
            Self::RandomName => "random name",
            Self::TimeInContent => "time in a file",
        }
    }

    /// What is usually done about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::FileTime => {
                "use --rewrite-timestamp with a SOURCE_DATE_EPOCH that is no later than the files"
            }
            Self::ImageTime => "set SOURCE_DATE_EPOCH",
            Self::PycTime => {
                "a .pyc file embeds the modification time of its source: set \
                 PYTHONDONTWRITEBYTECODE=1, or compile with `python -m compileall \
                 --invalidation-mode unchecked-hash`, as Python does by itself where \
                 SOURCE_DATE_EPOCH is set"
            }
            Self::Log => {
                "remove it in the instruction that writes it: `rm -rf /var/log/apt \
                 /var/log/dpkg.log /var/log/alternatives.log`"
            }
            Self::LoaderCache => {
                "it holds times and inode numbers: `rm -f /var/cache/ldconfig/aux-cache` in the \
                 instruction that installs libraries"
            }
            Self::AptCache => {
                "`rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin` in the instruction that \
                 installs packages"
            }
            Self::PasswordDay => {
                "the third field of /etc/shadow is the day: pass SOURCE_DATE_EPOCH to `useradd`, \
                 or set it with `chage -d 0 USER`"
            }
            Self::MachineId => "empty it: `: > /etc/machine-id`; it is made at the first start",
            Self::Backup => {
                "remove it in the instruction that makes it: `rm -f /var/lib/dpkg/*-old`"
            }
            Self::SshHostKey => {
                "remove it, `rm -f /etc/ssh/ssh_host_*`, and make it at the first start; a key in \
                 an image is one that everybody has"
            }
            Self::GzipTime => "compress with `gzip -n`",
            Self::BuildId => {
                "the .note.gnu.build-id is random or hashes something that differs: link with \
                 `-Wl,--build-id=sha1`, or `none`, and with the same paths"
            }
            Self::ArchiveOrder => {
                "files came in the order of a directory: `tar --sort=name`, or a sorted list of \
                 files for `ar`, `jar` and `zip`"
            }
            Self::ArchiveTime => {
                "`tar --mtime=@$SOURCE_DATE_EPOCH`, `ar` with D, `zip -X` after `touch -d`, or \
                 `strip-nondeterminism`"
            }
            Self::HostName => "a step wrote down its host name: set what it takes it from",
            Self::RandomName => {
                "a step left a file with a name of `mktemp`: remove it in that step"
            }
            Self::TimeInContent => {
                "let the step take the time from SOURCE_DATE_EPOCH, which `ARG SOURCE_DATE_EPOCH` \
                 gives it, as `date -d @$SOURCE_DATE_EPOCH`"
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.advice())
    }
}
