//! Where things are: the checkout, and the folders under `target/` that the chores own.

use std::path::{Path, PathBuf};

use crate::failure::{Outcome, fail};

/// The root of the checkout.
pub(crate) fn workspace() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// `target/NAME`, made when missing.
pub(crate) fn scratch(name: &str) -> Outcome<PathBuf> {
    let dir = workspace().join("target").join(name);
    fs_err::create_dir_all(&dir)?;
    Ok(dir)
}

/// `target/NAME`, emptied first, and this process's alone until it ends.
pub(crate) fn fresh(name: &str) -> Outcome<PathBuf> {
    fresh_in(&workspace().join("target"), name)
}

/// [`fresh`] in another directory.
pub(crate) fn fresh_in(parent: &Path, name: &str) -> Outcome<PathBuf> {
    let dir = std::path::absolute(parent)?.join(name);
    fs_err::create_dir_all(dir.parent().unwrap_or(&dir))?;
    let lock = fs_err::File::create(dir.with_extension("lock"))?.into_parts().0;
    if lock.try_lock().is_err() {
        return fail(format!("another process uses `{}`", dir.display()));
    }
    // The kernel gives the lock back when the process ends, however it ends.
    std::mem::forget(lock);
    remove(&dir)?;
    fs_err::create_dir_all(&dir)?;
    Ok(dir)
}

/// Removes a tree, if it is there, after unmounting what a peer left mounted in it.
pub(crate) fn remove(dir: &Path) -> Outcome {
    for mount in crate::leftovers::mounts_below(dir)?.iter().rev() {
        let _ = crate::command::Cmd::new("umount").arg("-l").arg(mount).output();
    }
    match fs_err::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The shared cases and documents, where they are at hand.
pub(crate) fn shared() -> Option<PathBuf> {
    let dir = std::env::var_os("RBUILD_SHARED")
        .map_or_else(|| workspace().join("../shared"), PathBuf::from);
    fs_err::canonicalize(dir).ok()
}
