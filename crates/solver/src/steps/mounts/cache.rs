//! The directories of cache mounts.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_cache::VolumeInfo;
use rbuild_plan::mount::{CacheMount, MountRoot};
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{FileKind, Follow, NewDirs, Root};
use rbuild_types::Digest;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Held, Shown};
use crate::copy::{literal, shown_by_mount};
use crate::error::StepError;
use crate::steps::Job;
use crate::steps::copy::Trees;

/// The directory of a cache mount; made with its first use.
///
/// The volumes of a step are held before (`Held::lock`): `locked` waited for all other users and
/// `shared` for one who is alone, `private` takes an empty directory of its own where somebody else
/// uses the volume. With `--no-cache` the directory starts anew and stays the one that is used.
pub(super) fn cache_directory(
    job: &Job<'_>,
    cache: &CacheMount,
    held: &mut Held,
) -> Result<Shown, StepError> {
    let store = job.world.store;
    let info = volume_info(&job.input_keys, cache);
    let directory = match held.volumes.get(&info.volume_name()) {
        Some(volume) => {
            volume.note(Some(&info))?;
            volume.path().to_owned()
        }
        None => {
            let scratch = store.scratch("cache")?;
            let directory = scratch.path().join("fs");
            held.scratch.push(scratch);
            directory
        }
    };
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

/// What tells the volume of a cache mount of a step with these inputs from others.
pub(crate) fn volume_info(input_keys: &[Digest], cache: &CacheMount) -> VolumeInfo {
    let CacheMount { id, mode, uid, gid, path, .. } = cache;
    let seed = match &cache.seed {
        Some(MountRoot::Input { input }) => {
            let from = input_keys.get(*input).map(ToString::to_string).unwrap_or_default();
            Some(format!("{from} {path}"))
        }
        _ => None,
    };
    let created =
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis());
    let created = created.unwrap_or(i64::MAX);
    VolumeInfo { id: id.clone(), mode: *mode, uid: *uid, gid: *gid, seed, created }
}
