//! What a layer's tree says of the names in one of its directories.
//!
//! [`pack`](super::pack()) turns a whole tree into a tar; whoever looks into a layer instead goes
//! from directory to directory with this.

use std::ffi::OsString;

use rbuild_rooted::{FileKind, Follow, Metadata, Root};

use super::pack::TreeForm;
use super::peek::CAPABILITY;
use super::whiteout::{self, Opacity};
use crate::error::ImageError;

/// What is in a directory of a tree.
#[derive(Debug)]
pub struct Listing {
    /// Whether nothing of the layers below shows through.
    pub is_opaque: bool,
    /// In byte order of the names.
    pub names: Vec<Listed>,
}

/// A name in a directory of a tree.
#[derive(Debug)]
pub struct Listed {
    /// The name, without any slash.
    pub name: OsString,
    /// What is there; `None` where the layer takes away what layers below have under this name.
    pub file: Option<Metadata>,
}

/// Lists a directory. Sockets are left out, as they are in a layer's tar.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn list(dir: &Root, form: TreeForm) -> Result<Listing, ImageError> {
    let opacity = match form {
        TreeForm::Overlay => whiteout::opacity(dir)?,
        TreeForm::Plain => Opacity::Merged,
    };
    let mut names = Vec::new();
    for entry in dir.read_dir("")? {
        // A name that went away meanwhile is in no layer.
        let Some(metadata) = dir.stat(&entry.name, Follow::No)? else { continue };
        let is_whiteout = match (form, metadata.kind) {
            (_, FileKind::Socket) => continue,
            (TreeForm::Plain, _) => false,
            (TreeForm::Overlay, FileKind::CharDevice) => metadata.rdev == 0,
            (TreeForm::Overlay, FileKind::Regular) => {
                opacity == Opacity::HasXattrWhiteouts
                    && metadata.size == 0
                    && whiteout::is_xattr_whiteout(dir, &entry.name)?
            }
            (TreeForm::Overlay, _) => false,
        };
        names.push(Listed { name: entry.name, file: (!is_whiteout).then_some(metadata) });
    }
    Ok(Listing { is_opaque: opacity == Opacity::Opaque, names })
}

/// The one extended attribute that a layer keeps, `security.capability` of a regular file.
///
/// # Errors
///
/// When it cannot be read.
pub fn capability(dir: &Root, name: &std::ffi::OsStr) -> Result<Option<Vec<u8>>, ImageError> {
    Ok(dir.get_xattr(name, CAPABILITY)?)
}
