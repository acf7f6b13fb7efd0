//! Digests of layers, made on the pool while later steps run.
//!
//! A layer that we made stays a tree. Its tar is a pure function of the tree, so only the digest
//! (the diff id) is needed for an image's config; the bytes are made again when the image leaves
//! the machine.

use rbuild_cache::SnapshotId;
use rbuild_image::{PackOptions, pack};
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Digest};

use crate::error::StepError;
use crate::world::World;

/// A layer of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its tree.
    pub snapshot: SnapshotId,
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its uncompressed tar.
    pub tar_size: u64,
}

/// The layer that `snapshot` is; packs it unless that was done before.
pub(crate) fn describe(
    world: &World<'_>,
    snapshot: &SnapshotId,
    cancel: &CancelToken,
) -> Result<Layer, StepError> {
    let snapshots = world.store.snapshots();
    let known = snapshots.meta(snapshot)?;
    if let Some(known) = known
        && let (Some(diff_id), Some(tar_size)) = (known.meta.diff_id, known.meta.tar_size)
    {
        return Ok(Layer { snapshot: snapshot.clone(), diff_id, tar_size });
    }
    let tree = Root::open(snapshots.path(snapshot).join("fs"))?;
    let packed = pack(&tree, &PackOptions::default(), &mut std::io::sink(), cancel)?;
    snapshots.set_diff(snapshot, packed.diff_id, packed.size, None)?;
    Ok(Layer { snapshot: snapshot.clone(), diff_id: packed.diff_id, tar_size: packed.size })
}
