//! What a vertex does: pure data, complete, the same bytes for the same work.
//!
//! An [`Op`] names its inputs by position: input 0 of a `Run` or `Copy` is the root filesystem it
//! changes (absent on scratch), further inputs are what it reads. Nothing in here depends on the
//! machine, so an op is what cache keys are made of.

use rbuild_types::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::git_ref::CheckoutTime;
use crate::mount::Mount;
use crate::{ExtraHost, Ulimit};

/// One unit of work that makes or changes a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// A tree that comes from elsewhere: no inputs.
    Source(Source),
    /// Runs a process in input 0.
    Run(Run),
    /// Copies files into input 0.
    Copy(Copy),
    /// Makes one directory in input 0 if it is not there (`WORKDIR`).
    Mkdir(Mkdir),
    /// Lays the layer that input 1 is, made upon nothing, upon the root filesystem of input 0
    /// (`--link`).
    Merge,
}

impl Op {
    /// The latest time that a file which it makes may have, in seconds since 1970.
    pub fn latest(&self) -> Option<i64> {
        match self {
            Op::Source(_) | Op::Merge => None,
            Op::Run(run) => run.latest,
            Op::Copy(copy) => copy.latest,
            Op::Mkdir(mkdir) => mkdir.latest,
        }
    }

    /// Whether input 0 is a root filesystem that the op changes.
    pub fn has_root(&self) -> bool {
        match self {
            Op::Source(_) => false,
            Op::Run(run) => run.has_root,
            Op::Copy(copy) => copy.has_root,
            Op::Mkdir(mkdir) => mkdir.has_root,
            Op::Merge => true,
        }
    }
}

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Source {
    /// An image.
    Image {
        /// What was asked for, resolved to a digest where `ImageConfigs` knew it.
        reference: Reference,
        /// The platform picked from an index.
        platform: Platform,
    },
    /// A file behind a URL: a tree with that one file in its root.
    Http(Http),
    /// Files of a git repository.
    Git(Git),
}

/// A file to be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http {
    /// As written.
    pub url: String,
    /// The file's name in the tree.
    pub name: String,
    /// `--checksum`: the only content that is taken.
    pub checksum: Option<Digest>,
}

/// A checkout of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Git {
    /// URL of the repository.
    pub remote: String,
    /// Commit, tag or branch; empty for the remote's default branch.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Hexadecimal digits that the commit's hash begins with.
    pub checksum: Option<String>,
    /// The directory of the repository that becomes the tree; empty for all of it.
    pub subdir: String,
    /// Whether `.git` is in the tree.
    pub keep_git_dir: bool,
    /// Whether submodules are checked out too.
    pub submodules: bool,
    /// Which times files get.
    pub mtime: CheckoutTime,
    /// Whether the checksum is fetched without asking what the reference is.
    pub fetch_by_commit: bool,
}

/// Which local directory is meant: `None` is the build context, else that of `--build-context`.
pub type ContextName = Option<String>;

/// Index of an input of the vertex, into [`crate::graph::Vertex::inputs`].
pub type InputIndex = usize;

/// Runs a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    /// Whether input 0 is the root filesystem; without one the process starts on an empty root.
    pub has_root: bool,
    /// The whole argument vector, shell included.
    pub argv: Vec<String>,
    /// `NAME=value` in order: config env, then ARGs, as item 60 of the language lists them.
    pub env: Vec<String>,
    /// Proxy variables: given to the process, kept out of the key.
    pub proxy_env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// `USER` as written, empty for root.
    pub user: String,
    /// Network of the process.
    pub network: Network,
    /// Files given to the process at a path, read-only, in no layer: `RUN <<EOF` with `#!`.
    pub scripts: Vec<Script>,
    /// Host name inside.
    pub hostname: String,
    /// `--mount`, in the order to be mounted.
    pub mounts: Vec<Mount>,
    /// Whether the process is restricted.
    #[serde(default, skip_serializing_if = "Security::is_sandbox")]
    pub security: Security,
    /// Names in `/etc/hosts`; their addresses are kept out of the key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Limits of the process, where they are not those of the engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// What the base image says its programs are for; upon scratch nobody says. The kernel looks
    /// at the program alone, so this decides only whether it is worth a try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// `--device`, as asked for: what stands behind a name is the machine's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Times of what it makes that are later become this one, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<i64>,
}

/// A device that a process is given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the words of the Container Device Interface, as written.
    pub name: String,
    /// Whether the process cannot do without.
    pub required: bool,
}

/// How a process is restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// As Docker restricts a container.
    #[default]
    Sandbox,
    /// With all capabilities and devices, without a filter of system calls.
    Insecure,
}

impl Security {
    fn is_sandbox(&self) -> bool {
        *self == Self::Sandbox
    }
}

/// A file that exists only while a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Script {
    /// Absolute path inside, such as `/dev/pipes/EOF`; mode 0755.
    pub path: String,
    /// The bytes.
    pub content: String,
}

/// Which network a process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// What the build gives: the host's until bridge networks exist.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// Copies files into a root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Copy {
    /// Whether input 0 is the root filesystem; without one the copy starts on an empty root.
    pub has_root: bool,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute, cleaned destination; see `into_directory`.
    pub destination: String,
    /// The destination was written as a directory: empty, `.`, or with `/` or `/.` at its end.
    /// Without it a directory that exists is still gone into; where none exists, several files
    /// (several sources, or a pattern with several matches) have no place to go: an error.
    pub into_directory: bool,
    /// `--chown` as written after expansion; names are looked up in the root filesystem, or in
    /// `accounts`.
    pub chown: Option<String>,
    /// `--chmod` as written after expansion: octal or symbolic.
    pub chmod: Option<String>,
    /// `--exclude` patterns.
    pub exclude: Vec<String>,
    /// Which archives are unpacked.
    pub unpack: Unpack,
    /// `--link`: a layer that is made upon nothing, so that it may be laid upon anything.
    pub link: bool,
    /// With `link`, the input whose users and groups names in `chown` mean; nothing else of it is
    /// looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<InputIndex>,
    /// `--parents`: keep the source's directories. The paths of the sources then may hold one
    /// `/./`: only what follows it is kept.
    pub parents: bool,
    /// Time of what is made and has none from a source (directories for the destination, files
    /// written in the Dockerfile), in seconds since 1970: `SOURCE_DATE_EPOCH`; else now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Times of what it makes that are later become this one, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<i64>,
}

impl Copy {
    /// A copy without any flag, upon an empty root.
    pub fn plain(sources: Vec<CopySource>, destination: impl Into<String>) -> Self {
        Self {
            has_root: false,
            sources,
            destination: destination.into(),
            into_directory: false,
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            unpack: Unpack::None,
            link: false,
            accounts: None,
            parents: false,
            created: None,
            latest: None,
        }
    }
}

/// Which archives among the sources of a copy are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// None: `COPY`, and `ADD --unpack=false`.
    None,
    /// Those of the build context: `ADD`.
    Local,
    /// Downloaded ones too: `ADD --unpack`.
    All,
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum CopySource {
    /// A path or pattern in a local directory: the build context or a named one.
    Context {
        /// Which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: ContextName,
        /// Cleaned, with `/` in front; wildcards as written.
        path: String,
    },
    /// A path or pattern in another vertex' root filesystem.
    Input {
        /// Which input.
        input: InputIndex,
        /// Cleaned, with `/` in front; wildcards as written.
        path: String,
    },
    /// A file written in the Dockerfile; mode 0644.
    Inline {
        /// File name.
        name: String,
        /// The bytes.
        content: String,
    },
    /// A path of an empty root: `COPY --from` of a stage without any filesystem.
    Empty {
        /// The path that will not be found unless it is the root or a pattern.
        path: String,
    },
}

/// Makes one directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mkdir {
    /// Whether input 0 is the root filesystem.
    pub has_root: bool,
    /// Absolute, cleaned.
    pub path: String,
    /// Owner of the directories made: `USER` as written, empty for root.
    pub user: String,
    /// Their time, in seconds since 1970: `SOURCE_DATE_EPOCH`; else when they are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Times of what it makes that are later become this one, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<i64>,
}
