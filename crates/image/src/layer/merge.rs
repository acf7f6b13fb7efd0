//! Several layers made one: a tree that, over what lies below them, shows what they show together.
//!
//! Files are not copied: each gets a further name in the new tree. So neither tree may ever be
//! written to, as it is with all layers of a store.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root};
use rbuild_types::CancelToken;

use super::listing::{Listing, list};
use super::pack::TreeForm;
use super::peek::CAPABILITY;
use super::whiteout::OverlayXattrs;
use crate::error::ImageError;

/// What lies below the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nothing: what they take away need not be said.
    Nothing,
    /// Other layers.
    Layers,
}

/// Merges `layers`, the bottom one first, into the empty directory `into`.
///
/// # Errors
///
/// When a tree cannot be read or written.
pub fn merge_layers(
    layers: &[Root],
    below: Below,
    into: &Root,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    let mut merge = Merge { layers, below, into, cancel, finished: Vec::new() };
    let top = (0..layers.len()).rev().collect();
    let mut waiting = vec![Directory { path: PathBuf::new(), parts: top, is_sealed: false }];
    while let Some(directory) = waiting.pop() {
        merge.directory(directory, &mut waiting)?;
    }
    // What was written into a directory changed its time.
    for (path, metadata) in merge.finished.iter().rev() {
        into.set_owner(path, metadata.uid, metadata.gid)?;
        into.set_mode(path, metadata.mode)?;
        into.set_times(path, metadata.mtime, metadata.mtime)?;
    }
    Ok(())
}

/// A directory to be merged.
struct Directory {
    path: PathBuf,
    /// The layers whose files show in it, the top one first.
    parts: Vec<usize>,
    /// Whether a directory above keeps what lies below from showing.
    is_sealed: bool,
}

/// What a name is, all layers taken together.
enum Name {
    Gone,
    File(usize),
    /// As in [`Directory`]; sealed when one of the layers took away what was there.
    Directory {
        parts: Vec<usize>,
        is_sealed: bool,
    },
}

struct Merge<'m> {
    layers: &'m [Root],
    below: Below,
    into: &'m Root,
    cancel: &'m CancelToken,
    finished: Vec<(PathBuf, Metadata)>,
}

impl Merge<'_> {
    fn directory(
        &mut self,
        Directory { path, mut parts, mut is_sealed }: Directory,
        waiting: &mut Vec<Directory>,
    ) -> Result<(), ImageError> {
        self.cancel.check()?;
        let mut names: BTreeMap<OsString, Name> = BTreeMap::new();
        let was_sealed = is_sealed;
        for place in 0..parts.len() {
            let Some(layer) = parts.get(place).copied() else { break };
            let tree = self.layer(layer)?;
            let root = match path.as_os_str().is_empty() {
                true => tree.try_clone()?,
                false => tree.open_real_dir(&path)?,
            };
            if place == 0 {
                self.finished.push((path.clone(), root.metadata()?));
            }
            let Listing { is_opaque, names: listed } = list(&root, TreeForm::Overlay)?;
            for entry in listed {
                let found = entry.file.map(|file| (layer, file.is_dir()));
                match names.get_mut(&entry.name) {
                    None => drop(names.insert(entry.name, Name::of(found))),
                    Some(name) => name.covers(found),
                }
            }
            if is_opaque {
                is_sealed = true;
                parts.truncate(place + 1);
                break;
            }
        }
        let shows_below = self.below == Below::Layers && !was_sealed;
        if is_sealed && shows_below {
            self.into.set_xattr(&path, OverlayXattrs::Trusted.opaque(), b"y")?;
        }
        for (name, what) in names {
            let at = path.join(&name);
            match what {
                Name::Gone if self.below == Below::Nothing || is_sealed => {}
                Name::Gone => {
                    self.into.mknod(&at, FileKind::CharDevice, 0, 0)?;
                }
                Name::File(layer) => self.file(layer, &at)?,
                Name::Directory { parts, is_sealed: sealed } => {
                    self.into.create_dir(&at, NewDirs { mode: 0o700, owner: None })?;
                    if sealed && self.below == Below::Layers && !is_sealed {
                        self.into.set_xattr(&at, OverlayXattrs::Trusted.opaque(), b"y")?;
                    }
                    waiting.push(Directory { path: at, parts, is_sealed: is_sealed || sealed });
                }
            }
        }
        Ok(())
    }

    fn layer(&self, number: usize) -> Result<&Root, ImageError> {
        let missing = || ImageError::document("layers", "changed meanwhile");
        self.layers.get(number).ok_or_else(missing)
    }

    /// One more name, or where a file has as many as it can have, another file like it.
    fn file(&self, layer: usize, path: &Path) -> Result<(), ImageError> {
        let from = self.layer(layer)?;
        let Some(metadata) = from.stat(path, Follow::No)? else { return Ok(()) };
        match metadata.kind {
            FileKind::Regular => match from.hard_link_between(path, self.into, path) {
                Err(error) if error.errno() == Some(rustix::io::Errno::MLINK) => {
                    let (mut source, _) = from.open_seen_file(path)?;
                    let mut file = self.into.create_file(path, 0o600)?;
                    std::io::copy(&mut source, &mut file)
                        .map_err(ImageError::write(path.display().to_string()))?;
                    self.into.set_owner(path, metadata.uid, metadata.gid)?;
                    if let Some(value) = from.get_xattr(path, CAPABILITY)? {
                        self.into.set_xattr(path, CAPABILITY, &value)?;
                    }
                }
                linked => return Ok(linked?),
            },
            FileKind::Symlink => self.into.symlink(from.read_link(path)?, path)?,
            kind => self.into.mknod(path, kind, metadata.mode, metadata.rdev)?,
        }
        if metadata.kind != FileKind::Regular {
            self.into.set_owner(path, metadata.uid, metadata.gid)?;
        }
        if !metadata.is_symlink() {
            // Setting the owner takes setuid away.
            self.into.set_mode(path, metadata.mode)?;
        }
        self.into.set_times(path, metadata.mtime, metadata.mtime)?;
        Ok(())
    }
}

impl Name {
    /// By the topmost layer that knows it: which, and whether it is a directory there.
    fn of(found: Option<(usize, bool)>) -> Self {
        match found {
            None => Self::Gone,
            Some((layer, false)) => Self::File(layer),
            Some((layer, true)) => Self::Directory { parts: vec![layer], is_sealed: false },
        }
    }

    /// Takes account of what a lower layer has under the name.
    fn covers(&mut self, found: Option<(usize, bool)>) {
        if let Self::Directory { parts, is_sealed: sealed @ false } = self {
            match found {
                Some((layer, true)) => parts.push(layer),
                _ => *sealed = true,
            }
        }
    }
}
