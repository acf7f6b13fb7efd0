//! A snapshot being written by a step.

use std::path::PathBuf;

use rbuild_cache::{DiskUsage, NewSnapshot, SnapshotId, SnapshotMeta};
use rbuild_rooted::Root;
use rbuild_snapshot::Active;

use crate::error::StepError;
use crate::world::World;

/// A new snapshot on top of a chain. Dropped without [`Writing::publish`], it is gone.
pub(crate) struct Writing {
    new: NewSnapshot,
    active: Active,
    parent: Option<SnapshotId>,
}

impl Writing {
    /// Starts one. `beneath` are directories that lie under all layers.
    pub(crate) fn start(
        world: &World<'_>,
        kind: &str,
        chain: &[SnapshotId],
        beneath: PathBuf,
    ) -> Result<Self, StepError> {
        let new = world.store.snapshots().allocate(kind)?;
        let mut lowers = vec![beneath];
        lowers.extend(world.layer_paths(chain));
        let active = Active::new(new.path(), lowers)?;
        Ok(Self { new, active, parent: chain.last().cloned() })
    }

    /// The merged tree, to be written.
    pub(crate) fn mount(&self) -> Result<Root, StepError> {
        Ok(Root::from_fd(self.active.mount()?))
    }

    /// The bare directory of changes.
    pub(crate) fn upper(&self) -> Result<Root, StepError> {
        Ok(Root::open(self.active.upper())?)
    }

    /// Makes the changes a snapshot. All mounts of it must be closed.
    pub(crate) fn publish(self, world: &World<'_>) -> Result<SnapshotId, StepError> {
        let upper = self.active.upper().to_owned();
        self.active.finish()?;
        let mut usage = DiskUsage::new();
        usage.add(&upper)?;
        let meta =
            SnapshotMeta { parent: self.parent, bytes: usage.bytes(), ..SnapshotMeta::default() };
        Ok(world.store.snapshots().publish(self.new, meta)?)
    }
}

/// An empty directory: an overlay needs something to lie on.
pub(crate) fn nothing(world: &World<'_>) -> Result<PathBuf, StepError> {
    let path = world.store.root().join("base").join("empty");
    fs_err::create_dir_all(&path)?;
    Ok(path)
}

/// A tree with an empty file for each name that a sandbox lays a file of its own over. Lying
/// under all layers it shows where the image has none, and never enters a layer.
pub(crate) fn stubs(world: &World<'_>) -> Result<PathBuf, StepError> {
    let path = world.store.root().join("base").join("stubs");
    let last = path.join("etc/resolv.conf");
    if !last.exists() {
        fs_err::create_dir_all(path.join("etc"))?;
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs_err::write(path.join("etc").join(name), "")?;
        }
    }
    Ok(path)
}
