//! Executing one vertex: a file per op.
//!
//! A step works in a new snapshot on top of its root filesystem's layers and publishes it when
//! it ends well. Everything here runs on a thread of its own and may wait.

pub(crate) mod active;
pub(crate) mod copy;
mod mkdir;
pub(crate) mod mounts;
pub(crate) mod run;

pub(crate) use active::Published;
pub use active::{nothing, stubs};

use std::io::Write as _;
use std::path::Path;

use rbuild_cache::SnapshotId;
use rbuild_plan::op::Op;
use rbuild_types::{CancelToken, Digest, Stream};

use crate::copy::{Listing, Selection};
use crate::error::{LOG_TAIL, StepError};
use crate::same;
use crate::steps::mounts::context::Shown;
use crate::world::World;

/// What one execution gets.
pub(crate) struct Job<'a> {
    pub(crate) world: World<'a>,
    pub(crate) op: &'a Op,
    /// The snapshots of each input, bottom first.
    pub(crate) inputs: Vec<Vec<SnapshotId>>,
    /// The keys of each input.
    pub(crate) input_keys: Vec<Digest>,
    /// What a copy takes, if it was selected already.
    pub(crate) selection: Option<Selection>,
    /// What a run is shown of the context.
    pub(crate) shown: Shown,
    /// Where a result that is the same may be found; without one nobody looks.
    pub(crate) place: Option<same::Place>,
    /// What the last run of the same instruction made, of which a copy need not write all again.
    pub(crate) earlier: Option<(SnapshotId, Listing)>,
    pub(crate) cancel: &'a CancelToken,
    /// Takes what the step writes.
    pub(crate) output: &'a dyn Fn(Stream, &[u8]),
    /// Name of the log file in the build's log directory.
    pub(crate) log_name: String,
    /// Whether nothing of earlier builds may be used: cache mounts start anew.
    pub(crate) no_cache: bool,
}

/// What one execution made.
pub(crate) struct Executed {
    pub(crate) made: Published,
    /// Path of the log below the store's `logs/`, when something was written.
    pub(crate) log: Option<String>,
    /// The content that was really read of the context, when that may be another than was
    /// selected.
    pub(crate) changed: Option<Vec<Digest>>,
}

/// A failure and the end of the output.
pub(crate) struct Failed {
    pub(crate) source: Box<StepError>,
    pub(crate) log_tail: Vec<u8>,
    /// The root filesystem as it was then, if it was kept.
    pub(crate) kept: Option<SnapshotId>,
}

impl From<StepError> for Failed {
    fn from(source: StepError) -> Self {
        Self { source: Box::new(source), log_tail: Vec::new(), kept: None }
    }
}

impl Job<'_> {
    /// Does the work.
    pub(crate) fn execute(&self) -> Result<Executed, Failed> {
        let root = self.inputs.first().filter(|_| self.op.has_root()).cloned().unwrap_or_default();
        match self.op {
            Op::Run(run) => run::execute(self, run, &root),
            Op::Copy(copy) => Ok(copy::execute(self, copy, &root)?),
            Op::Mkdir(mkdir) => Ok(mkdir::execute(self, mkdir, &root)?),
            Op::Source(_) | Op::Merge => {
                let message = "a source is unpacked and a merge recorded: neither is executed";
                Err(StepError::Missing(message.to_owned()).into())
            }
        }
    }
}

/// The log of one step: a file made with the first byte, and the tail for the error message.
pub(crate) struct Log<'a> {
    job: &'a Job<'a>,
    file: Option<fs_err::File>,
    tail: Vec<u8>,
    error: Option<std::io::Error>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(job: &'a Job<'a>) -> Self {
        Self { job, file: None, tail: Vec::new(), error: None }
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        (self.job.output)(stream, bytes);
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * LOG_TAIL {
            self.tail.drain(..self.tail.len() - LOG_TAIL);
        }
        if self.error.is_none()
            && let Err(error) = self.append(bytes)
        {
            self.error = Some(error);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            let directory =
                self.job.world.store.root().join("logs").join(self.job.world.log_directory);
            fs_err::create_dir_all(&directory)?;
            self.file = Some(fs_err::File::create(directory.join(&self.job.log_name))?);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    /// Where the log is, below `logs/`.
    pub(crate) fn finish(self) -> Result<Option<String>, StepError> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self
                .file
                .map(|_| format!("{}/{}", self.job.world.log_directory, self.job.log_name))),
        }
    }

    /// Where the file is, if something was written.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(fs_err::File::path)
    }

    pub(crate) fn into_tail(mut self) -> Vec<u8> {
        let surplus = self.tail.len().saturating_sub(LOG_TAIL);
        self.tail.drain(..surplus);
        self.tail
    }
}
