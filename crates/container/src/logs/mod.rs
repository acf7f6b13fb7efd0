//! What a container wrote, kept as Docker's `json-file` does: one JSON document a line with `log`,
//! `stream` and `time`, so that what reads those reads these.
//!
//! `log` is the newest file, `log.1` the one before it. A line that is longer than 16 KiB comes in
//! several documents, of which only the last one's text ends in a newline. Bytes that are no UTF-8
//! are replaced.

mod follow;
mod read;
mod write;

pub use follow::Follow;
pub use read::{Entry, ReadOptions, read};
pub(crate) use write::LogWriter;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Whether it is at all (`--log-driver none` says no).
    pub keep: bool,
    /// Bytes after which a new file is begun; `None` is never.
    pub max_size: Option<u64>,
    /// How many files there are at most, the newest included.
    pub max_files: u32,
}

impl Default for LogOptions {
    /// One file without end, as in Docker.
    fn default() -> Self {
        Self { keep: true, max_size: None, max_files: 1 }
    }
}

/// One document of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

/// The file that is `age` files old.
fn file(directory: &Path, age: u32) -> PathBuf {
    match age {
        0 => directory.join("log"),
        age => directory.join(format!("log.{age}")),
    }
}
