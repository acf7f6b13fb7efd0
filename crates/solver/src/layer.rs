//! Digests of layers, made on the pool while later steps run.
//!
//! A layer that we made stays a tree. Its tar is a pure function of the tree, so only the digest
//! (the diff id) is needed for an image's config; the bytes are made again when the image leaves
//! the machine.

use rbuild_cache::SnapshotId;
use rbuild_image::layer::{PackOptions, pack};
use rbuild_image::manifest::chain_ids;
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

/// The layer that `snapshot` is, if it was packed before.
pub(crate) fn known(world: &World<'_>, snapshot: &SnapshotId) -> Result<Option<Layer>, StepError> {
    let meta = world.store.snapshots().meta(snapshot)?.map(|known| known.meta).unwrap_or_default();
    let layer = |(diff_id, tar_size)| Layer { snapshot: snapshot.clone(), diff_id, tar_size };
    Ok(meta.diff_id.zip(meta.tar_size).map(layer))
}

/// Packs `snapshot` to learn which layer it is.
pub(crate) fn describe(
    world: &World<'_>,
    snapshot: &SnapshotId,
    cancel: &CancelToken,
) -> Result<Layer, StepError> {
    let tree = Root::open(world.store.snapshots().path(snapshot).join("fs"))?;
    let packed = pack(&tree, &PackOptions::default(), &mut std::io::sink(), cancel)?;
    Ok(Layer { snapshot: snapshot.clone(), diff_id: packed.diff_id, tar_size: packed.size })
}

/// Records the digests of a whole stack, `below` being those of the base image, so that the same
/// layers are found again by their content.
pub(crate) fn remember(
    world: &World<'_>,
    below: &[Digest],
    layers: &[Layer],
) -> Result<(), StepError> {
    let diff_ids: Vec<_> =
        below.iter().copied().chain(layers.iter().map(|layer| layer.diff_id)).collect();
    let chain_ids = chain_ids(&diff_ids);
    let snapshots = world.store.snapshots();
    let set = |id: &SnapshotId, layer: &Layer, chain_id| {
        let meta = snapshots.meta(id)?.map(|snapshot| snapshot.meta).unwrap_or_default();
        if meta.chain_id.is_none() {
            snapshots.set_diff(id, layer.diff_id, layer.tar_size, chain_id)?;
        }
        Ok::<_, StepError>(meta.tree)
    };
    for (layer, chain_id) in layers.iter().zip(chain_ids.into_iter().skip(below.len())) {
        // A linked layer is one upon nothing too: there its chain is the layer alone.
        if let Some(tree) = set(&layer.snapshot, layer, chain_id)? {
            set(&tree, layer, layer.diff_id)?;
        }
    }
    Ok(())
}
