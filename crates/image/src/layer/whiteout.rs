//! Deletions: how a layer's tar and an overlay upper directory write them down.
//!
//! | meaning | tar (OCI image-spec `layer.md`) | overlay upper directory (kernel `overlayfs.rst`) |
//! |---|---|---|
//! | `name` is gone | empty file `.wh.name` | character device 0:0, or an empty file with `overlay.whiteout` in a directory whose `overlay.opaque` is `x` |
//! | nothing below shows through | empty file `.wh..wh..opq` | directory with `overlay.opaque` = `y` |
//!
//! The attributes stand below `trusted.`, or below `user.` when overlay is mounted with
//! `userxattr`. Both are understood when reading.

use rbuild_rooted::{Root, RootedError};

/// What marks a deletion in a layer's tar.
pub const PREFIX: &[u8] = b".wh.";
/// Marks a directory through which nothing shows.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that AUFS kept for itself; they never were files of an image.
pub const META_PREFIX: &[u8] = b".wh..wh.";

/// Below which prefix overlay keeps its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverlayXattrs {
    /// `trusted.overlay.`: needs `CAP_SYS_ADMIN` in the first user namespace.
    #[default]
    Trusted,
    /// `user.overlay.`: for overlay mounted with `userxattr`.
    User,
}

impl OverlayXattrs {
    /// The attribute that makes a directory opaque.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }

    const BOTH: [Self; 2] = [Self::Trusted, Self::User];
}

/// What a directory's `overlay.opaque` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opacity {
    /// What lies below shows through.
    Merged,
    /// Nothing below shows through.
    Opaque,
    /// As merged, and files in it may be whiteouts of the attribute form.
    HasXattrWhiteouts,
}

/// Reads the opacity of a directory.
pub(crate) fn opacity(dir: &Root) -> Result<Opacity, RootedError> {
    for form in OverlayXattrs::BOTH {
        match dir.get_xattr("", form.opaque())?.as_deref() {
            Some(b"y") => return Ok(Opacity::Opaque),
            Some(b"x") => return Ok(Opacity::HasXattrWhiteouts),
            _ => {}
        }
    }
    Ok(Opacity::Merged)
}

/// Whether an empty file is a whiteout of the attribute form.
pub(crate) fn is_xattr_whiteout(dir: &Root, name: &std::ffi::OsStr) -> Result<bool, RootedError> {
    for form in OverlayXattrs::BOTH {
        if dir.get_xattr(name, form.whiteout())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
