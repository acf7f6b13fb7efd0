//! A snapshot being written by a step.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rbuild_cache::{NewSnapshot, SnapshotId, SnapshotMeta, Store};
use rbuild_image::layer::FileTimes;
use rbuild_rooted::{Follow, Root};
use rbuild_snapshot::Active;
use rbuild_types::{CancelToken, Digest};
use serde::Serialize;

use crate::error::StepError;
use crate::same;
use crate::steps::Job;
use crate::world::World;

/// What `du` calls the files of a step that failed.
const FAILED: &str = "failed";
/// Failed steps whose files are kept.
const KEPT_FAILURES: usize = 4;

/// What a step made.
pub(crate) struct Published {
    pub(crate) snapshot: SnapshotId,
    /// The key that stands for the same result of an earlier step, whose snapshot this is.
    pub(crate) same_as: Option<Digest>,
}

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
        cancel: &CancelToken,
    ) -> Result<Self, StepError> {
        let new = world.store.snapshots().allocate(kind, cancel)?;
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

    /// Keeps the changes of a step that failed, as they are, with what it wrote, in the place of those
    /// that failed long ago. No record leads to them, so no build uses them. All mounts must be closed.
    pub(crate) fn keep_failed(
        self,
        world: &World<'_>,
        log: Option<&Path>,
    ) -> Result<SnapshotId, StepError> {
        let Self { mut new, active, parent } = self;
        active.finish()?;
        if let Some(log) = log {
            new.keep_log(log)?;
        }
        new.call(FAILED);
        let snapshots = world.store.snapshots();
        let kept = snapshots.publish(new, SnapshotMeta { parent, ..SnapshotMeta::default() })?;
        // These are kept, whatever becomes of the old ones; the next failure tries it again.
        let _ = snapshots.keep_newest(FAILED, KEPT_FAILURES);
        Ok(kept)
    }

    /// Makes the changes a snapshot, unless an earlier step made the very same. All mounts of it
    /// must be closed.
    pub(crate) fn publish(self, job: &Job<'_>) -> Result<Published, StepError> {
        let upper = self.upper()?;
        self.active.finish()?;
        if let Some(latest) = job.op.latest() {
            clamp(&upper, latest)?;
        }
        let world = &job.world;
        if let Some(place) = &job.place
            && let Some(same) = same::find(world, place, &upper, job.cancel)?
        {
            world.store.snapshots().take_listing(&self.new, &same.snapshot)?;
            return Ok(Published { snapshot: same.snapshot, same_as: Some(same.key) });
        }
        let meta = SnapshotMeta { parent: self.parent, ..SnapshotMeta::default() };
        let snapshot = world.store.snapshots().publish(self.new, meta)?;
        Ok(Published { snapshot, same_as: None })
    }
}

/// Gives everything below a directory no later time than `latest`. What is as old already is not
/// touched: it may be a file of another snapshot too.
fn clamp(tree: &Root, latest: i64) -> Result<(), StepError> {
    let times = FileTimes::AtMost(latest);
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let dir = tree.open_real_dir(&path)?;
        for entry in dir.read_dir("")? {
            let Some(found) = dir.stat(&entry.name, Follow::No)? else { continue };
            let time = times.of(found.mtime);
            if time != found.mtime {
                dir.set_times(&entry.name, time, time)?;
            }
            if found.is_dir() {
                pending.push(path.join(&entry.name));
            }
        }
    }
    Ok(())
}

/// A tree with an empty file for each name that a sandbox lays a file of its own over. Lying
/// under all layers it shows where the image has none, and never enters a layer.
pub fn stubs(store: &Store) -> std::io::Result<PathBuf> {
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
