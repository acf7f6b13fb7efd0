//! Builds of the past and their steps: found by names, read, entered.
//!
//! What a step was is in three places: the record of its build says what became of it and where its
//! files and its output are; the record of its key, or that of its failure, holds the instruction.
//! Any of them may be gone, which is said. Nothing here is an input of a build.

mod compare;
mod enter;
mod name;

use std::fs::File;

use rbuild_cache::{BuildRecord, BuiltStep, CacheError, SnapshotId};

pub use self::compare::{Tree, TreeDifference};
pub(crate) use self::enter::HeldByStep;
pub use self::enter::{EnterOptions, EnteredStep};
use self::name::StepName;
use crate::{BuildError, Engine};

/// Characters of a build's id that people see.
pub const SHORT_BUILD: usize = 8;

/// A build of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastBuild {
    /// What is known of it.
    pub record: BuildRecord,
    /// How it ended.
    pub state: BuildState,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildState {
    /// It has not.
    Running,
    /// It was killed.
    Killed,
    /// Well.
    Succeeded,
    /// A step failed, or it was stopped.
    Failed,
}

/// A step of a build of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct PastStep {
    /// Its build.
    pub build: BuildRecord,
    /// Its number in the build, from 1.
    pub number: usize,
    /// What became of it.
    pub step: BuiltStep,
}

impl PastStep {
    /// A name that leads to it and to no other step.
    pub fn name(&self) -> String {
        format!("{}:{}", short(&self.build.id), self.number)
    }

    /// The uppermost snapshot of the root filesystem after it; of one that failed, as it was then.
    fn snapshot(&self) -> Option<&SnapshotId> {
        let failed = self.step.failure.as_ref().and_then(|failure| failure.snapshot.as_ref());
        failed.or(self.step.snapshot.as_ref())
    }
}

/// The beginning of a build's id.
fn short(id: &str) -> &str {
    id.get(..SHORT_BUILD).unwrap_or(id)
}

impl Engine {
    /// The builds that are remembered, the newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn past_builds(&self) -> Result<Vec<PastBuild>, BuildError> {
        let builds = self.store.builds();
        let records = builds.list()?;
        let running = match records.iter().any(|record| record.ended == 0) {
            true => builds.running()?,
            false => <_>::default(),
        };
        let state = |record: &BuildRecord| match (record.ended, record.succeeded) {
            (0, _) if running.contains(&record.id) => BuildState::Running,
            (0, _) => BuildState::Killed,
            (_, true) => BuildState::Succeeded,
            (_, false) => BuildState::Failed,
        };
        let past = |record| PastBuild { state: state(&record), record };
        Ok(records.into_iter().map(past).collect())
    }

    /// Whether the build of this whole id runs now.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn build_runs(&self, id: &str) -> Result<bool, BuildError> {
        let builds = self.store.builds();
        Ok(!builds.has_ended(id)? && builds.running()?.contains(id))
    }

    /// The build whose id begins so.
    ///
    /// # Errors
    ///
    /// [`BuildError::Request`] when there is none, or more than one.
    pub fn past_build(&self, id: &str) -> Result<PastBuild, BuildError> {
        let mut found = self.past_builds()?;
        found.retain(|build| name::is_id(id) && build.record.id.starts_with(id));
        match (found.pop(), found.pop()) {
            (Some(build), None) => Ok(build),
            (None, _) => Err(BuildError::Request {
                message: format!("no such build: {id}: `rbuild builds` lists them"),
            }),
            (Some(_), Some(_)) => Err(BuildError::Request {
                message: format!("more than one build has an id that begins with {id}"),
            }),
        }
    }

    /// The step of this name: `@failed`, `@last`, `3`, `build:3`, `build 3/7`, each with `BUILD:`
    /// before it where another build than the last one is meant. An `@` may stand before all.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchStep`], which says what there is.
    pub fn past_step(&self, name: &str) -> Result<PastStep, BuildError> {
        let builds = self.store.builds().list()?;
        StepName::parse(name)
            .find(&builds)
            .map_err(|hint| BuildError::NoSuchStep { name: name.to_owned(), hint })
    }

    /// All that the step wrote; `None` when it wrote nothing, and when that is gone.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn step_log(&self, step: &PastStep) -> Result<Option<File>, BuildError> {
        let of_build = step.step.log.as_ref().map(|log| self.store.root().join("logs").join(log));
        let kept = step.step.failure.as_ref().and_then(|failure| failure.snapshot.as_ref());
        let kept = kept.map(|snapshot| self.store.snapshots().log(snapshot));
        for path in of_build.into_iter().chain(kept) {
            match fs_err::File::open(&path) {
                Ok(file) => return Ok(Some(file.into_file())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    let what = "read the log of the step".to_owned();
                    return Err(BuildError::Io { what, source });
                }
            }
        }
        Ok(None)
    }

    /// The snapshots of the root filesystem after a step, the bottom first. The caller has a lease.
    fn step_layers(&self, step: &PastStep) -> Result<Vec<SnapshotId>, BuildError> {
        let gone = |why: &str| BuildError::Conflict {
            message: format!("step {} ({}): {why}", step.name(), step.step.name),
        };
        let snapshot = match step.snapshot() {
            Some(snapshot) => snapshot.clone(),
            None => self.made_unseen(step)?.ok_or_else(|| {
                gone(match (&step.step.failure, step.build.ended) {
                    (Some(_), _) => "nothing of its files was kept: enter the step before it",
                    (None, 0) => {
                        "its files are not known: the build runs still, or was killed before it \
                         could say what they are"
                    }
                    (None, _) => {
                        "its files are not in the store: it did not run, or has its result \
                         from elsewhere"
                    }
                })
            })?,
        };
        match self.store.snapshots().chain(&snapshot) {
            Err(CacheError::NoSnapshot { .. }) => {
                Err(gone("its files were pruned: build again to have them"))
            }
            chain => Ok(chain?),
        }
    }

    /// What a `RUN` made after its build was written down, where the build never ended: the record
    /// of its key has it.
    fn made_unseen(&self, step: &PastStep) -> Result<Option<SnapshotId>, BuildError> {
        let unseen = step.build.ended == 0 && step.step.op == "run";
        let Some(key) = step.step.key.as_ref().filter(|_| unseen) else { return Ok(None) };
        Ok(self.store.records().peek(key)?.and_then(|record| record.snapshot))
    }
}
