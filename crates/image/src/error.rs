//! What can go wrong with layers, documents and archives.

use std::io;
use std::path::PathBuf;

use rbuild_rooted::RootedError;
use rbuild_types::{Cancelled, Digest, Platform};

/// Why an image could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file in a tree could not be read or made.
    #[error(transparent)]
    Rooted(#[from] RootedError),
    /// Input or output failed.
    #[error("{action} {subject}")]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// What it was tried on: a path or the name of a stream.
        subject: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A tar archive breaks its format or this program's limits.
    #[error("archive entry {entry:?}: {problem}")]
    Archive {
        /// The entry's name as far as it was known, shortened.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file changed while it was being read into a layer.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file, from the tree's root.
        path: PathBuf,
    },
    /// A file's name means something else in a layer, so the layer could not hold the file.
    #[error(
        "{} cannot be kept in a layer: names that start with .wh. mark deletions there",
        path.display()
    )]
    ReservedName {
        /// The file, from the tree's root.
        path: PathBuf,
    },
    /// Root filesystems that are to be put into one directory have a file in common.
    #[error(
        "/{} is in the images for {first} and {second}: leave platform-split=false out, so that \
         each gets a directory of its own",
        path.display()
    )]
    Overlap {
        /// The file, from the trees' root.
        path: PathBuf,
        /// The platform of the one image.
        first: String,
        /// The platform of the other image.
        second: String,
    },
    /// Compressed bytes are damaged or ask for more memory than allowed.
    #[error("{subject} is not a sound {format} stream")]
    Compression {
        /// What was being read.
        subject: String,
        /// `gzip`, `zstd`, …
        format: &'static str,
        /// The decoder's answer.
        source: io::Error,
    },
    /// A manifest, index, config or layout file says something that it must not.
    #[error("{document}: {problem}")]
    Document {
        /// Which document: `manifest`, `index.json`, …
        document: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes are not those that their digest names.
    #[error("{subject} has digest {found}, but {expected} was named")]
    DigestMismatch {
        /// What was being read.
        subject: String,
        /// The digest named.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// There are more or fewer bytes than a descriptor says.
    #[error("{subject} has {found} bytes, but {expected} were named")]
    SizeMismatch {
        /// What was being read.
        subject: String,
        /// Bytes named.
        expected: u64,
        /// Bytes found; reading stops one after the named number.
        found: u64,
    },
    /// A blob is not there.
    #[error("blob {digest} is missing")]
    MissingBlob {
        /// The digest looked for.
        digest: Digest,
    },
    /// An index has no image for the platform asked for.
    #[error("no image for platform {wanted}; there are: {}", list(found))]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// The platforms that the index has.
        found: Vec<Platform>,
    },
    /// The call was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl ImageError {
    pub(crate) fn read(subject: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let subject = subject.into();
        move |source| Self::unwrap_io("read", subject, source)
    }

    pub(crate) fn write(subject: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let subject = subject.into();
        move |source| Self::unwrap_io("write", subject, source)
    }

    pub(crate) fn document(document: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Document { document: document.into(), problem: problem.into() }
    }

    pub(crate) fn archive(entry: &[u8], problem: impl Into<String>) -> Self {
        let entry = String::from_utf8_lossy(&entry[..entry.len().min(SHOWN)]).into_owned();
        Self::Archive { entry, problem: problem.into() }
    }

    /// An error of ours that travelled through `std::io` comes out as itself.
    fn unwrap_io(action: &'static str, subject: String, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io { action, subject, source },
        }
    }
}

impl From<ImageError> for io::Error {
    /// Lets an [`ImageError`] travel through a `Read`; reading calls of this crate unpack it.
    fn from(error: ImageError) -> Self {
        io::Error::other(error)
    }
}

/// Bytes of a stranger's name that an error shows.
const SHOWN: usize = 200;

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}
