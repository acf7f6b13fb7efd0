//! What a long call reports while it works.

use std::time::Duration;

use serde::Serialize;

use crate::{CancelToken, Diagnostic, Digest, Reason, Span};

/// Names one step of one build; small numbers in the order of the Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct StepId(pub usize);

/// Which of a step's outputs some bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that happened. Events of one build arrive in order on the coordinator's thread.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The Dockerfile was read: what spans point into. The first event of a build.
    Dockerfile {
        /// Its name in messages.
        name: String,
        /// Its text.
        text: String,
    },
    /// A step exists and will be looked up: said once for every step that the target needs.
    StepQueued {
        /// The step.
        step: StepId,
        /// `[stage i/n] TEXT`, as BuildKit names it.
        name: String,
        /// Where the instruction stands in the Dockerfile, if it stands there.
        span: Option<Span>,
    },
    /// A step is about to run: why its result is not in the cache.
    StepMissed {
        /// The step.
        step: StepId,
        /// The first thing that differs from an earlier build.
        reason: Reason,
    },
    /// A step began to run.
    StepStarted {
        /// The step.
        step: StepId,
    },
    /// A step's result was in the cache.
    StepCached {
        /// The step.
        step: StepId,
    },
    /// A running step wrote something.
    StepOutput {
        /// The step.
        step: StepId,
        /// Which output.
        stream: Stream,
        /// The bytes as written; may end inside a line.
        bytes: Vec<u8>,
    },
    /// A step ended well.
    StepFinished {
        /// The step.
        step: StepId,
        /// How long it ran.
        duration: Duration,
    },
    /// A step ended badly; the call's error says how.
    StepFailed {
        /// The step.
        step: StepId,
        /// Whether its root filesystem is kept as it was then.
        kept: bool,
    },
    /// Bytes moved for one object (a layer, a manifest, an exported archive).
    Transferred {
        /// What moved, in words: `python:3.7 sha256:0123…`, and with `push ` in front when it was
        /// sent.
        name: String,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, when known.
        total: Option<u64>,
        /// Whether the object is complete.
        done: bool,
    },
    /// Something worth knowing about the Dockerfile.
    Warning(Diagnostic),
    /// Something worth knowing that has no place in the Dockerfile; one sentence.
    Notice {
        /// The sentence.
        message: String,
    },
    /// The build is done: what caches elsewhere cost and saved it.
    CacheTraffic(CacheTraffic),
    /// An image was made and named.
    Image {
        /// The image id: the digest of its config.
        id: Digest,
        /// Familiar names given to it.
        names: Vec<String>,
    },
}

/// What caches elsewhere cost and saved a build. Sizes in bytes, as the layers are kept there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CacheTraffic {
    /// Steps whose result was found elsewhere.
    pub imported: usize,
    /// Layers of those that somebody had to see.
    pub fetched_layers: usize,
    /// Bytes of those, and of the indexes.
    pub fetched_bytes: u64,
    /// Bytes of layers that nobody had to see.
    pub avoided_bytes: u64,
    /// Layers that were sent.
    pub sent_layers: usize,
    /// Bytes of those.
    pub sent_bytes: u64,
    /// Bytes that were fetched of cache mounts.
    pub fetched_mount_bytes: u64,
    /// Bytes that were sent of cache mounts.
    pub sent_mount_bytes: u64,
}

/// Receives events. Any `Fn(&Event) + Sync` is one.
pub trait Progress: Sync {
    /// Takes one event; must not block for long.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Sync> Progress for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: &Event) {}
}

/// What every long call takes: where to report and when to stop.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    /// Receives events.
    pub progress: &'a dyn Progress,
    /// Asks for the stop.
    pub cancel: &'a CancelToken,
}

impl<'a> Ctx<'a> {
    /// Puts the two together.
    pub fn new(progress: &'a dyn Progress, cancel: &'a CancelToken) -> Self {
        Self { progress, cancel }
    }

    /// Reports one event.
    pub fn report(&self, event: Event) {
        self.progress.event(&event);
    }
}

impl std::fmt::Debug for Ctx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ctx")
    }
}
