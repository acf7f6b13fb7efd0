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
    /// A snapshot with its files; `None` when it lies elsewhere and nobody needed them.
    pub snapshot: Option<SnapshotId>,
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its uncompressed tar.
    pub tar_size: u64,
    /// Milliseconds since 1970 when it was made.
    pub created: i64,
}

/// The layer that `snapshot` is, if it was packed before.
pub(crate) fn known(world: &World<'_>, snapshot: &SnapshotId) -> Result<Option<Layer>, StepError> {
    let Some(known) = world.store.snapshots().meta(snapshot)? else { return Ok(None) };
    let (created, snapshot) = (known.made(), Some(known.id));
    let layer = |(diff_id, tar_size)| Layer { snapshot, diff_id, tar_size, created };
    Ok(known.meta.diff_id.zip(known.meta.tar_size).map(layer))
}

/// Packs `snapshot` to learn which layer it is.
pub(crate) fn describe(
    world: &World<'_>,
    snapshot: &SnapshotId,
    cancel: &CancelToken,
) -> Result<Layer, StepError> {
    let snapshots = world.store.snapshots();
    let created = snapshots.meta(snapshot)?.map_or(0, |snapshot| snapshot.made());
    let tree = Root::open(snapshots.path(snapshot).join("fs"))?;
    // The build ends with a sync.
    let options = PackOptions { write_back: true, ..PackOptions::default() };
    let packed = pack(&tree, &options, &mut std::io::sink(), cancel)?;
    let (diff_id, tar_size) = (packed.diff_id, packed.size);
    Ok(Layer { snapshot: Some(snapshot.clone()), diff_id, tar_size, created })
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
        // A linked layer that is not laid upon anything yet stands upon nothing.
        let chain_id = if meta.parent.is_none() { layer.diff_id } else { chain_id };
        if meta.chain_id.is_none() {
            snapshots.set_diff(id, layer.diff_id, layer.tar_size, chain_id)?;
        }
        Ok::<_, StepError>(meta.tree)
    };
    for (layer, chain_id) in layers.iter().zip(chain_ids.into_iter().skip(below.len())) {
        let Some(snapshot) = &layer.snapshot else { continue };
        // A linked layer is one upon nothing too: there its chain is the layer alone.
        if let Some(tree) = set(snapshot, layer, chain_id)? {
            set(&tree, layer, layer.diff_id)?;
        }
    }
    Ok(())
}
