//! How an image's layers are packaged: apart from how they were built, so that the cache still has
//! one result for each step.
//!
//! A merged layer is a snapshot like others, made of the snapshots of the steps without copying a
//! file, and found again by what it was made of.

use rbuild_cache::{SnapshotId, SnapshotMeta};
use rbuild_image::layer::{Below, LAYER_FORMAT, PackOptions, merge_layers, pack};
use rbuild_image::manifest::{chain_id, chain_ids};
use rbuild_rooted::Root;
use rbuild_solver::Layer;
use rbuild_types::{CancelToken, Digest, Hasher, History};

use crate::{BuildError, Engine};

/// What becomes one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packaging {
    /// What each instruction made.
    #[default]
    Each,
    /// As many at most upon those of the base image: the newest stay, all before them are one.
    AtMost(usize),
    /// Everything, with the base image.
    One,
}

/// Layers of an image as they are packaged.
pub(crate) struct Packaged {
    pub(crate) layers: Vec<Layer>,
    /// How many of the old layers the first one is made of; the others are old ones.
    pub(crate) merged: usize,
}

impl Packaging {
    /// Merges own layers of an image upon those of a base, which has `base` for diff ids. `root`
    /// are the snapshots of all, bottom first.
    pub(crate) fn apply(
        self,
        engine: &Engine,
        base: &[Digest],
        layers: &[Layer],
        root: &[SnapshotId],
        cancel: &CancelToken,
    ) -> Result<Packaged, BuildError> {
        let kept = match self {
            Self::Each => layers.len(),
            Self::AtMost(most) => most.saturating_sub(1),
            Self::One => 0,
        };
        let is_whole = self == Self::One;
        let first = layers.len().saturating_sub(kept);
        let (old, rest) = layers.split_at_checked(first).unwrap_or((layers, &[]));
        let merged = if is_whole { base.len() + old.len() } else { old.len() };
        let is_one = merged == 1 && old.len() == 1;
        if merged == 0 || is_one || self == Self::Each {
            return Ok(Packaged { layers: layers.to_vec(), merged: 1 });
        }
        let start = if is_whole { 0 } else { base.len() };
        let mut upon: Vec<Digest> = base.to_vec();
        upon.extend(old.iter().map(|layer| layer.diff_id));
        let diff_ids = upon.split_off(start);
        let parent = start.checked_sub(1).and_then(|top| root.get(top)).cloned();
        let sources = root.get(start..start + merged).ok_or_else(|| BuildError::Request {
            message: "the layers to merge are not in the store: build again".to_owned(),
        })?;
        let mut layer = merge(engine, &upon, parent, &diff_ids, sources, cancel)?;
        layer.created = old.iter().map(|layer| layer.created).max().unwrap_or_default();
        let mut all = vec![layer];
        for layer in rest {
            upon.extend(all.last().map(|below| below.diff_id));
            let parent = all.last().and_then(|below| below.snapshot.clone());
            all.push(moved(engine, &upon, parent, layer)?);
        }
        Ok(Packaged { layers: all, merged })
    }
}

/// A layer as it is, upon what it was not made upon: `upon`, whose topmost snapshot is `parent`.
fn moved(
    engine: &Engine,
    upon: &[Digest],
    parent: Option<SnapshotId>,
    layer: &Layer,
) -> Result<Layer, BuildError> {
    let chain = chain_id(chain_ids(upon).last(), &layer.diff_id);
    let snapshots = engine.store.snapshots();
    let id = match (snapshots.by_chain_id(&chain)?, &layer.snapshot) {
        (Some(id), _) => id,
        (None, None) => return Ok(layer.clone()),
        (None, Some(snapshot)) => {
            let id = snapshots.stack(snapshot, parent, "merged")?;
            snapshots.set_diff(&id, layer.diff_id, layer.tar_size, chain)?;
            id
        }
    };
    Ok(Layer { snapshot: Some(id), ..layer.clone() })
}

/// One layer of several, `below` being what they lie upon.
fn merge(
    engine: &Engine,
    below: &[Digest],
    parent: Option<SnapshotId>,
    diff_ids: &[Digest],
    sources: &[SnapshotId],
    cancel: &CancelToken,
) -> Result<Layer, BuildError> {
    let mut name = Hasher::new();
    name.field("merged layers").field(format!("{LAYER_FORMAT} {}", below.len()));
    for digest in below.iter().chain(diff_ids) {
        name.field(digest.as_bytes());
    }
    let name = name.finish();
    let _lock = engine.store.step_lock(&name, cancel)?;
    let snapshots = engine.store.snapshots();
    if let Some(chain) = engine.store.records().get_alias(&name)?
        && let Some(id) = snapshots.by_chain_id(&chain)?
        && let Some(meta) = snapshots.meta(&id)?
        && let (Some(diff_id), Some(tar_size)) = (meta.meta.diff_id, meta.meta.tar_size)
    {
        return Ok(Layer { snapshot: Some(id), diff_id, tar_size, created: 0 });
    }
    let mut trees = Vec::new();
    for id in sources {
        trees.push(Root::open(snapshots.path(id).join("fs"))?);
    }
    let new = snapshots.allocate("merged", cancel)?;
    let path = new.path().join("fs");
    let failed = |source| BuildError::Io { what: "make a snapshot".to_owned(), source };
    fs_err::create_dir(&path).map_err(failed)?;
    let tree = Root::open(&path)?;
    let is_upon = if below.is_empty() { Below::Nothing } else { Below::Layers };
    merge_layers(&trees, is_upon, &tree, cancel)?;
    let options = PackOptions { write_back: true, ..PackOptions::default() };
    let packed = pack(&tree, &options, &mut std::io::sink(), cancel)?;
    let upon = chain_ids(below).last().copied();
    let chain = chain_id(upon.as_ref(), &packed.diff_id);
    let meta = SnapshotMeta {
        parent,
        chain_id: Some(chain),
        diff_id: Some(packed.diff_id),
        tar_size: Some(packed.size),
        ..SnapshotMeta::default()
    };
    let snapshot = Some(snapshots.publish(new, meta)?);
    engine.store.records().alias(&name, &chain)?;
    Ok(Layer { snapshot, diff_id: packed.diff_id, tar_size: packed.size, created: 0 })
}

/// Says of the first `merged` items with a layer, but for the last of them, that they have none.
pub(crate) fn join<'h>(history: impl Iterator<Item = &'h mut History>, merged: usize) {
    let with_layer = history.filter(|item| !item.empty_layer);
    for item in with_layer.take(merged.saturating_sub(1)) {
        item.empty_layer = true;
    }
}
