//! A directory of files once more, as another checkout of them might look: made in the reverse
//! order, just now, by somebody else, and where modes do not count, with another umask.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root};
use rbuild_types::CancelToken;

use crate::{BuildError, ContextMode};

/// Who owns the copy: nobody that there is.
const OWNER: (u32, u32) = (21_021, 21_022);
/// The other umask.
const UMASK: u32 = 0o077;

/// Copies what is in `from` into the empty directory `to`. With [`ContextMode::Git`] of the modes
/// only what git keeps is the same.
pub(crate) fn copy(
    from: &Path,
    to: &Path,
    mode: ContextMode,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    let (from, to) = (Root::open(from)?, Root::open(to)?);
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    // Directories are given their modes once they are full.
    let mut directories = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        cancel.check()?;
        let (source, target) = (from.open_real_dir(&directory)?, to.open_real_dir(&directory)?);
        for entry in source.read_dir("")?.into_iter().rev() {
            let name = entry.name.as_os_str();
            let Some(metadata) = source.stat(name, Follow::No)? else { continue };
            let path = directory.join(name);
            let permissions = permissions(&metadata, mode);
            match metadata.kind {
                FileKind::Directory => {
                    target.create_dir(name, NewDirs { mode: 0o700, owner: None })?;
                    directories.push((path.clone(), permissions));
                    waiting.push(path);
                    continue;
                }
                FileKind::Regular => {
                    let identity = (metadata.dev, metadata.ino);
                    if metadata.nlink > 1
                        && let Some(first) = first_names.get(&identity)
                    {
                        to.hard_link(first, &path)?;
                        continue;
                    }
                    first_names.insert(identity, path.clone());
                    let mut reader = source.open_file(name, Follow::No)?;
                    let mut writer = target.create_file(name, 0o600)?;
                    std::io::copy(&mut reader, &mut writer).map_err(|source| BuildError::Io {
                        what: format!("copy {} of the build context", path.display()),
                        source,
                    })?;
                }
                FileKind::Symlink => target.symlink(source.read_link(name)?, name)?,
                // Nothing can be at its other end.
                FileKind::Socket => continue,
                FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {
                    target.mknod(name, metadata.kind, 0o600, metadata.rdev)?;
                }
            }
            target.set_owner(name, OWNER.0, OWNER.1)?;
            target.set_mode(name, permissions)?;
        }
    }
    for (path, mode) in directories.into_iter().rev() {
        to.set_owner(&path, OWNER.0, OWNER.1)?;
        to.set_mode(&path, mode)?;
    }
    Ok(())
}

fn permissions(metadata: &Metadata, mode: ContextMode) -> u32 {
    match mode {
        ContextMode::Plain => metadata.mode,
        ContextMode::Git => metadata.mode & !UMASK,
    }
}
