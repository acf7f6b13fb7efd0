//! Going through one tree, directory by directory.
//!
//! Each directory is opened by its path below the tree's root, in which no name may be a link. So
//! one descriptor is open at a time however deep a tree is, and memory holds the names of the
//! directories on the way.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rbuild_image::layer::{Listed, Listing, TreeForm, list};
use rbuild_rooted::{Metadata, Root};
use rbuild_types::CancelToken;

use crate::BuildError;

/// Who is told what a tree holds. Paths have no slash in front, and none behind.
pub(crate) trait Visitor {
    /// Nothing shows through this directory of what layers below have in it. Said before its names,
    /// and not again of the directories in it.
    fn opaque(&mut self, path: &[u8]) -> Result<(), BuildError>;

    /// Nothing is left of what layers below have under this path.
    fn removed(&mut self, path: &[u8]) -> Result<(), BuildError>;

    /// The layer has this. Directories come before what is in them.
    fn file(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), BuildError>;
}

/// A directory on the way down.
struct Level {
    path_length: usize,
    /// Whether nothing of the layers below shows in it.
    is_opaque: bool,
    rest: std::vec::IntoIter<Listed>,
}

/// Goes through a tree; siblings in byte order of their names.
pub(crate) fn walk(
    tree: &Root,
    form: TreeForm,
    visitor: &mut dyn Visitor,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    let mut path = Vec::new();
    let mut levels = vec![enter(tree, form, &path, false, visitor)?];
    while let Some(level) = levels.last_mut() {
        cancel.check()?;
        path.truncate(level.path_length);
        let Some(Listed { name, file }) = level.rest.next() else {
            levels.pop();
            continue;
        };
        push(&mut path, name.as_bytes());
        match file {
            None => visitor.removed(&path)?,
            Some(metadata) => {
                visitor.file(&path, &metadata)?;
                if metadata.is_dir() {
                    let is_opaque = level.is_opaque;
                    levels.push(enter(tree, form, &path, is_opaque, visitor)?);
                }
            }
        }
    }
    Ok(())
}

fn enter(
    tree: &Root,
    form: TreeForm,
    path: &[u8],
    above_is_opaque: bool,
    visitor: &mut dyn Visitor,
) -> Result<Level, BuildError> {
    let Listing { is_opaque, names } = list(&open(tree, path)?, form)?;
    if is_opaque && !above_is_opaque {
        visitor.opaque(path)?;
    }
    let is_opaque = is_opaque || above_is_opaque;
    Ok(Level { path_length: path.len(), is_opaque, rest: names.into_iter() })
}

/// Opens a directory of a tree by its path.
pub(crate) fn open(tree: &Root, path: &[u8]) -> Result<Root, BuildError> {
    Ok(tree.open_real_dir(Path::new(std::ffi::OsStr::from_bytes(path)))?)
}

/// Appends a name to a path.
pub(crate) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
