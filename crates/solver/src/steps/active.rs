//! A snapshot being written by a step.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rbuild_cache::{NewSnapshot, SnapshotId, SnapshotMeta, Store};
use rbuild_rooted::Root;
use rbuild_snapshot::Active;
use serde::Serialize;

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

    /// Keeps a listing of what the changes were made of.
    pub(crate) fn keep<T: Serialize>(&self, listing: &T) -> Result<(), StepError> {
        Ok(self.new.write_listing(listing)?)
    }

    /// Makes the changes a snapshot. All mounts of it must be closed.
    pub(crate) fn publish(self, world: &World<'_>) -> Result<SnapshotId, StepError> {
        self.active.finish()?;
        let meta = SnapshotMeta { parent: self.parent, ..SnapshotMeta::default() };
        Ok(world.store.snapshots().publish(self.new, meta)?)
    }
}

/// A tree with an empty file for each name that a sandbox lays a file of its own over. Lying
/// under all layers it shows where the image has none, and never enters a layer.
pub(crate) fn stubs(store: &Store) -> std::io::Result<PathBuf> {
    base_directory(store, "stubs", |path| {
        let etc = path.join("etc");
        fs_err::create_dir(&etc)?;
        fs_err::set_permissions(&etc, Permissions::from_mode(0o755))?;
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs_err::write(etc.join(name), "")?;
            fs_err::set_permissions(etc.join(name), Permissions::from_mode(0o644))?;
        }
        Ok(())
    })
}

/// An empty directory of the store: an overlay needs something to lie on.
pub fn nothing(store: &Store) -> std::io::Result<PathBuf> {
    base_directory(store, "empty", |_| Ok(()))
}

/// A directory that lies under root filesystems. Its mode is that of their `/`, so it must not
/// depend on anybody's umask. It appears whole: other steps and processes may be about to mount it.
fn base_directory(
    store: &Store,
    name: &str,
    fill: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<PathBuf> {
    let path = store.root().join("base").join(name);
    if path.exists() {
        return Ok(path);
    }
    fs_err::create_dir_all(store.root().join("base"))?;
    let scratch = store.scratch("base").map_err(std::io::Error::other)?;
    let new = scratch.path().join("new");
    fs_err::create_dir(&new)?;
    fs_err::set_permissions(&new, Permissions::from_mode(0o755))?;
    fill(&new)?;
    match fs_err::rename(&new, &path) {
        // Somebody else was faster.
        Err(_) if path.exists() => Ok(path),
        renamed => renamed.map(|()| path),
    }
}
