//! What `RUN --mount=type=bind` shows of the context, or of a named one.

use rbuild_plan::mount::{MountKind, MountRoot, MountSource};
use rbuild_plan::op::{ContextName, Run};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Digest};

use crate::copy::{Input, shown_by_mount};
use crate::error::StepError;
use crate::steps::copy::Trees;
use crate::world::World;

/// Whether a process is shown files of the context.
pub(crate) fn shows_context(op: &Run) -> bool {
    context_paths(op).next().is_some()
}

fn context_paths(op: &Run) -> impl Iterator<Item = (&ContextName, &str)> {
    op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind(MountSource { root: MountRoot::Context { context }, path }) => {
            Some((context, path.as_str()))
        }
        _ => None,
    })
}

/// What all bind mounts of the context show together.
#[derive(Default)]
pub(crate) struct Shown {
    /// One for each mount.
    pub(crate) digests: Vec<Digest>,
    /// The files that those are made of.
    pub(crate) files: Vec<Input>,
}

/// Finds and hashes what the bind mounts of the context show.
pub(crate) fn shown_of_context(
    world: &World<'_>,
    op: &Run,
    cancel: &CancelToken,
) -> Result<Shown, StepError> {
    let trees = Trees::mount(*world, &shown_by_mount(&None, ""), &[])?;
    let mut shown = Shown::default();
    for (context, path) in context_paths(op) {
        let selection = trees.select(&shown_by_mount(context, path), cancel)?;
        shown.digests.push(selection.digest());
        shown.files.extend(selection.inputs());
    }
    Ok(shown)
}

/// Copies what the ignore rules leave of `path` to the same path in an empty tree.
pub(super) fn copy_of_context(
    world: &World<'_>,
    context: &ContextName,
    path: &str,
    into: &Root,
    cancel: &CancelToken,
) -> Result<Digest, StepError> {
    let op = shown_by_mount(context, path);
    let trees = Trees::mount(*world, &op, &[])?;
    let selection = trees.select(&op, cancel)?;
    trees.apply(&op, &selection, into, cancel)
}
