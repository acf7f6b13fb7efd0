//! The result of lowering: what to run, and what the images around it say.

use std::collections::BTreeSet;

use rbuild_types::{Diagnostic, ImageConfig, Platform, Reference, Span};

use crate::graph::{Graph, VertexId};
use crate::op::Device;

/// One build, ready to be solved.
#[derive(Debug)]
pub struct Plan {
    /// The instruction DAG, pruned to what the targets need. What several of them need is in it
    /// once.
    pub graph: Graph,
    /// The images, one for each platform, in the order asked for; one at least.
    pub targets: Vec<Target>,
    /// Whether the result is an index of the images, not the one image itself.
    pub is_index: bool,
    /// What is worth knowing and does not stop the build.
    pub warnings: Vec<Diagnostic>,
    /// `--build-arg` names that no `ARG` takes, sorted.
    pub unused_build_args: Vec<String>,
    /// `--build-context` names that nothing asked for, sorted; those of one platform left out.
    pub unused_contexts: Vec<String>,
    /// The devices that steps ask for, each once. Whether they may have them, and what they are, is
    /// for the engine to find out.
    pub devices: Vec<AskedDevice>,
}

/// The image for one platform.
///
/// Invariant: following input 0 from [`Target::vertex`] down to the vertex without root, every
/// vertex but an image source is exactly one layer and has exactly one non-empty item in
/// [`Target::config`]'s history, in the same order, after the first [`Target::base_history`] items.
#[derive(Debug)]
pub struct Target {
    /// The vertex whose root filesystem is the image's; `None` for an image without layers.
    pub vertex: Option<VertexId>,
    /// The final config. The diff ids are those of the base image, and new history items have no
    /// time: the exporter fills both in.
    pub config: ImageConfig,
    /// How many history items, counted from the front, came with the base image.
    pub base_history: usize,
    /// How many diff ids came with the base image.
    pub base_layers: usize,
    /// The platform of the image.
    pub platform: Platform,
    /// Name of the target stage, `stage-N` when it has none.
    pub stage_name: String,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub source_date_epoch: Option<i64>,
}

/// One `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedDevice {
    /// What is asked for.
    pub device: Device,
    /// The flag's value in the Dockerfile.
    pub span: Span,
}

/// What there is to say about the stages of a file, without one of them being built.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is worth knowing.
    pub warnings: Vec<Diagnostic>,
    /// Why it could not be built, the first to fix first.
    pub errors: Vec<Diagnostic>,
    /// The steps of all stages that were looked at.
    pub graph: Graph,
    /// Images whose configs were not asked for: what they may set was not checked.
    pub unknown_images: BTreeSet<Reference>,
}
