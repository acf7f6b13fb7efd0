//! Results of other machines: what the scheduler asks of caches that lie elsewhere, and what it
//! tells those that this build's results go to. Implemented by the engine; nothing here knows a
//! network.

use rbuild_cache::{SnapshotId, VolumeInfo};
use rbuild_types::{CancelToken, Ctx, Digest};
use serde_json::Value;

use crate::error::StepError;

/// Caches that results are taken from.
pub trait Imports: Sync {
    /// Waits until it is known what the caches hold, or that they cannot be read.
    fn wait(&self, cancel: &CancelToken);

    /// The key that a definition key leads to.
    fn alias(&self, definition: &Digest) -> Option<Digest>;

    /// The results of a step that were made upon layers of one of these chain ids, the one to
    /// prefer first; the chain id of nothing is `None`. Machines that ran the same step may have
    /// given different bytes.
    fn find(&self, key: &Digest, upon: &[Option<Digest>]) -> Vec<RemoteResult>;

    /// The steps of the build that the caches were written by last, as far as they have them.
    fn last_build(&self) -> Vec<EarlierStep>;

    /// Brings the layer's bytes into the store. What is there afterwards is what the digests say.
    fn fetch(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), StepError>;

    /// Checks that the fetched bytes are the layer that the result says, where nobody unpacks it.
    fn check(&self, result: &RemoteResult, ctx: Ctx<'_>) -> Result<(), StepError>;

    /// Makes the fetched bytes a snapshot upon `below`, bottom first.
    fn unpack(
        &self,
        result: &RemoteResult,
        below: &[SnapshotId],
        ctx: Ctx<'_>,
    ) -> Result<SnapshotId, StepError>;

    /// A step is about to use a cache mount: fills it with what the caches have of it, unless it
    /// holds something that would be lost. Nobody holds it yet. Whatever goes wrong is a warning.
    fn restore(&self, volume: &VolumeInfo, cancel: &CancelToken);
}

/// Caches that this build's results go to.
pub trait Exports: Sync {
    /// A step has a result. Called by the coordinator, so it must not block.
    fn finished(&self, step: FinishedStep);
}

/// A step's result as a cache elsewhere has it. No file of it need be here.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteResult {
    /// The step's key.
    pub key: Digest,
    /// Chain id of what the layer was made upon.
    pub upon: Option<Digest>,
    /// Digest of the layer's uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub tar_size: u64,
    /// Milliseconds since 1970 when it was made.
    pub created: i64,
    /// Milliseconds that the step ran.
    pub duration_ms: u64,
    /// What went into the key, as far as the cache has it.
    pub inputs: Value,
}

/// A step of a build on another machine.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierStep {
    /// Its key.
    pub key: Digest,
    /// Its operation: `run`, `copy`, …
    pub op: String,
    /// As people see it: `[stage 2/5] RUN make`.
    pub name: String,
    /// What went into the key, as far as the cache has it.
    pub inputs: Value,
}

/// A step that has a result.
#[derive(Debug, Clone)]
pub struct FinishedStep {
    /// Its key. The store has its record, unless the result lies elsewhere.
    pub key: Digest,
    /// The key that needs no file, where that is another.
    pub definition: Option<Digest>,
    /// The key by which it was looked up, where it took the place of an earlier step.
    pub own_key: Option<Digest>,
    /// The result, if it came from a cache and nobody needed its files.
    pub elsewhere: Option<RemoteResult>,
    /// Whether its layer is one of a target's.
    pub in_target: bool,
}
