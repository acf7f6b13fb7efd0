//! What `RUN --mount=type=bind` shows of the context, or of a named one.

use rbuild_plan::mount::{MountKind, MountRoot, MountSource};
use rbuild_plan::op::{ContextName, Run};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Digest};

use crate::copy::shown_by_mount;
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

/// The digests of what each bind mount of the context shows.
pub(crate) fn context_digests(
    world: &World<'_>,
    op: &Run,
    cancel: &CancelToken,
) -> Result<Vec<Digest>, StepError> {
    let trees = Trees::mount(*world, &shown_by_mount(&None, ""), &[])?;
    let digest =
        |(context, path)| Ok(trees.select(&shown_by_mount(context, path), cancel)?.digest());
    context_paths(op).map(digest).collect()
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
