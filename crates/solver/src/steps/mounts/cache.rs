//! The directories of cache mounts.

use std::collections::btree_map::Entry;
use std::path::Path;

use rbuild_plan::mount::{CacheMount, MountRoot, Sharing};
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_types::{Digest, Hasher};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Held, Shown};
use crate::copy::{literal, shown_by_mount};
use crate::error::StepError;
use crate::steps::Job;
use crate::steps::copy::Trees;

/// The directory of a cache mount; made with its first use.
///
/// `locked` waits for the other user, `private` takes an empty directory of its own while there
/// is one. With `--no-cache` the directory starts anew and stays the one that is used.
pub(super) fn cache_directory(
    job: &Job<'_>,
    cache: &CacheMount,
    held: &mut Held,
) -> Result<Shown, StepError> {
    let store = job.world.store;
    // The id is a stranger's text and never becomes a path.
    let id = cache_id(job, cache);
    let mut directory = store.root().join("volumes").join(format!("cache-{}", id.hex()));
    match cache.sharing {
        Sharing::Shared | Sharing::Locked => {}
        Sharing::Private => {
            if let Entry::Vacant(lock) = held.locks.entry(id) {
                if let Some(taken) = store.try_step_lock(&id)? {
                    lock.insert(taken);
                } else {
                    let scratch = store.scratch("cache")?;
                    directory = scratch.path().join("fs");
                    held.scratch.push(scratch);
                }
            }
        }
    }
    if job.no_cache && directory.exists() {
        let old = store.scratch("cache")?;
        fs_err::rename(&directory, old.path().join("fs"))?;
    }
    if !directory.exists() {
        new_cache_directory(job, cache, &directory)?;
    }
    let root = Root::open(&directory)?;
    let inside = root.resolve(&cache.path, Follow::Yes)?;
    if inside.found.is_none() {
        let new = NewDirs { mode: cache.mode, owner: Some((cache.uid, cache.gid)) };
        root.create_dir_all(&inside.path, new)?;
    }
    Shown::of(rbuild_snapshot::bind(&directory)?, &inside.path, FileKind::Directory)
}

/// Makes the directory of a cache mount. It appears whole: a step that shares it may be about to
/// mount it, and a seed that was copied by half would stay so.
fn new_cache_directory(
    job: &Job<'_>,
    cache: &CacheMount,
    directory: &Path,
) -> Result<(), StepError> {
    let scratch = job.world.store.scratch("cache")?;
    let new = scratch.path().join("fs");
    fs_err::create_dir(&new)?;
    let root = Root::open(&new)?;
    root.set_owner("", cache.uid, cache.gid)?;
    root.set_mode("", cache.mode)?;
    if let Some(MountRoot::Input { input }) = &cache.seed {
        seed(job, *input, &cache.path, &root)?;
    }
    if let Some(parent) = directory.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match renameat_with(CWD, &new, CWD, directory, RenameFlags::NOREPLACE) {
        // Somebody else was faster.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno).into()),
    }
}

/// Copies what an input has at `path` to the same path in a new cache directory. An input that
/// has nothing there gives an empty directory, as without a seed.
fn seed(job: &Job<'_>, input: usize, path: &str, into: &Root) -> Result<(), StepError> {
    let op = Copy {
        sources: vec![CopySource::Input { input, path: literal(path) }],
        ..shown_by_mount(&None, path)
    };
    let trees = Trees::mount(job.world, &op, &job.inputs)?;
    let Some(root) = trees.root(input) else { return Ok(()) };
    let Some(found) = root.resolve(path, Follow::Yes)?.found else { return Ok(()) };
    if !found.is_dir() {
        let message = format!("a cache mount cannot start from {path:?}: it is not a directory");
        return Err(StepError::Missing(message));
    }
    let selection = trees.select(&op, job.cancel)?;
    trees.apply(&op, &selection, into, job.cancel)?;
    // A copy gives the directory that was named a mode of its own.
    into.set_owner(path, found.uid, found.gid)?;
    Ok(into.set_mode(path, found.mode)?)
}

/// Names a cache mount's directory and lock. Mode and owner belong to it: a step that asks for
/// others must not get this one's directory. So does what it starts from, as in BuildKit: with
/// another seed it is another directory.
pub(super) fn cache_id(job: &Job<'_>, cache: &CacheMount) -> Digest {
    let CacheMount { id, mode, uid, gid, path, .. } = cache;
    match &cache.seed {
        Some(MountRoot::Input { input }) => {
            let from = job.input_keys.get(*input).map(ToString::to_string).unwrap_or_default();
            let mut hasher = Hasher::new();
            hasher.field(format!("seeded cache mount {mode:o} {uid} {gid}"));
            hasher.field(from).field(path).field(id);
            hasher.finish()
        }
        _ => Digest::of(format!("cache mount {mode:o} {uid} {gid} {id}")),
    }
}
