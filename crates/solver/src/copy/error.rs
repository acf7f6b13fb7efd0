//! Why a COPY or ADD failed.

use rbuild_rooted::RootedError;

/// Why files could not be selected or copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A source that is written without wildcards is not there, or an ignore file hides it.
    #[error("failed to calculate checksum of ref {tree}: \"{path}\": not found{why}")]
    NotFound {
        /// Where it was looked for: `context`, a stage, an image.
        tree: String,
        /// The source, absolute from the tree's root.
        path: String,
        /// What is known of it.
        why: Box<Absence>,
    },
    /// A wildcard pattern cannot be read.
    #[error("invalid pattern {pattern:?}: syntax error in pattern")]
    BadPattern {
        /// The pattern as written.
        pattern: String,
    },
    /// An `--exclude` pattern cannot be read.
    #[error("invalid --exclude pattern: {message}")]
    BadExclude {
        /// What is wrong with it.
        message: String,
    },
    /// `--chmod` is neither octal nor symbolic.
    #[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
    BadChmod {
        /// The parameter as written.
        text: String,
    },
    /// `--chown` names somebody unknown.
    #[error("invalid --chown {text:?}: {message}")]
    BadChown {
        /// The parameter as written.
        text: String,
        /// What the look-up said.
        message: String,
    },
    /// A directory is copied to where something else is.
    #[error("cannot copy to non-directory: {path}")]
    NotADirectory {
        /// The place in the destination.
        path: String,
    },
    /// A file is copied to where a directory is.
    #[error("cannot replace directory {path} with a file")]
    IsADirectory {
        /// The place in the destination.
        path: String,
    },
    /// Several files would get one name.
    #[error(
        "when using COPY or ADD with more than one source file, the destination must be a directory \
         and end with a /: {destination:?} is not a directory"
    )]
    SeveralToOne {
        /// The destination as written.
        destination: String,
    },
    /// A file of the build context is asked for, and the build has none.
    #[error("there is no build context to take {path} from: give the build a directory")]
    NoContext {
        /// The source as written.
        path: String,
    },
    /// The caller has no tree for a source: a mistake in the graph.
    #[error("source {index} of the copy has no file tree")]
    NoTree {
        /// Index into the op's sources.
        index: usize,
    },
    /// A file was replaced by something else between the selection and the copy.
    #[error("{tree}: {path} changed while it was being copied")]
    Changed {
        /// Where it is.
        tree: String,
        /// Its path from the tree's root.
        path: String,
    },
    /// An archive could not be unpacked.
    #[error("failed to unpack {path}")]
    Unpack {
        /// The archive's path from its tree's root.
        path: String,
        /// What the unpacker said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading a source failed.
    #[error("{tree}: failed to read {path}")]
    Read {
        /// Where it is.
        tree: String,
        /// Its path from the tree's root.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Writing into the destination failed.
    #[error("failed to write {path}")]
    Write {
        /// The place in the destination.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A path operation in a source failed.
    #[error("{tree}: failed to look at {path}")]
    Source {
        /// Where it is.
        tree: String,
        /// Its path from the tree's root.
        path: String,
        /// What failed.
        source: RootedError,
    },
    /// A path operation in the destination failed.
    #[error("failed to make {path}")]
    Destination {
        /// The place in the destination.
        path: String,
        /// What failed.
        source: RootedError,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Why a source is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// Nothing has its name.
    Unknown {
        /// A path that is there and is written nearly like it.
        near: Option<String>,
    },
    /// It is there, and this rule hides it; `None` when no single rule does.
    Ignored(Option<IgnoredBy>),
    /// It is there, and `--exclude` leaves out all of it.
    Excluded,
    /// It is a link to this, and nothing is there.
    Dangling(String),
}

impl std::fmt::Display for Absence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown { near: Some(near) } => write!(f, " (did you mean {near:?}?)"),
            Self::Ignored(Some(by)) => write!(f, ": it is there, but left out by {by}"),
            Self::Excluded => f.write_str(": it is there, but --exclude leaves it out"),
            Self::Dangling(target) => {
                write!(f, ": it is a link to {target:?}, which leads nowhere")
            }
            Self::Unknown { near: None } | Self::Ignored(None) => Ok(()),
        }
    }
}

/// A rule of an ignore file that leaves a path out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredBy {
    /// The file's name.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The rule.
    pub rule: String,
}

impl std::fmt::Display for IgnoredBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} line {}: {}", self.file, self.line, self.rule)
    }
}

impl From<rbuild_types::Cancelled> for CopyError {
    fn from(_: rbuild_types::Cancelled) -> Self {
        Self::Cancelled
    }
}
