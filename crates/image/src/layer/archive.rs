//! `ADD`'s unpacking of local archives: a plain tar or a compressed one, told by its content.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_rooted::Root;
use rbuild_types::CancelToken;

use super::place::{self, Tree};
use super::unpack::{Ownership, UnpackOptions, Unpacked, Unpacker, new_owner};
use crate::compress::{self, Compression};
use crate::error::ImageError;
use crate::tarball;

/// How [`unpack_archive`] works.
#[derive(Debug, Clone, Default)]
pub struct ArchiveOptions {
    /// Directory inside the tree that the archive's names start at; made when missing. `..` in
    /// names stops there, links lead anywhere inside the tree.
    pub destination: PathBuf,
    /// Owner of everything unpacked (`--chown`); `None` keeps the archive's.
    pub chown: Option<(u32, u32)>,
    /// Ownership, devices and limits; `chown` goes before its ownership.
    pub unpack: UnpackOptions,
}

/// Whether the first bytes of a file are those of a tar archive, compressed or not.
///
/// What decides is the first header after decompression, as in Docker: a compressed file that is no
/// archive is copied by `ADD` as it is.
pub fn is_archive(mut file: impl Read) -> bool {
    let mut head = Vec::new();
    // Enough for every decoder to give its first block of output.
    if file.by_ref().take(SNIFF).read_to_end(&mut head).is_err() {
        return false;
    }
    let compression = compress::detect(&head).unwrap_or(Compression::None);
    let Ok(plain) = compress::reader(compression, std::io::Cursor::new(head).chain(file), "file")
    else {
        return false;
    };
    matches!(tarball::Reader::new(plain).next_entry(), Ok(Some(_)))
}

/// Unpacks a tar archive, compressed or not, into `into`, which may hold files already.
///
/// Directories merge, anything else is replaced. `.wh.` names are plain names. Symbolic links are
/// followed inside `into` only.
pub fn unpack_archive(
    mut reader: &mut dyn Read,
    into: &Root,
    options: &ArchiveOptions,
    cancel: &CancelToken,
) -> Result<Unpacked, ImageError> {
    let mut head = Vec::new();
    reader.take(SNIFF).read_to_end(&mut head).map_err(ImageError::read("archive"))?;
    let compression = compress::detect(&head).unwrap_or(Compression::None);
    let whole = std::io::Cursor::new(head).chain(&mut reader);
    let mut plain = compress::reader(compression, whole, "archive")?;

    let mut unpack = options.unpack.clone();
    if let Some((uid, gid)) = options.chown {
        unpack.ownership = Ownership::Fixed { uid, gid };
    }
    let base = base_of(into, &options.destination)?;
    let tree = Tree { into, lower: None, overlay: None, owner: new_owner(&unpack) };
    Unpacker::new(tree, &unpack, base, cancel).run(&mut plain)
}

/// The destination with its links resolved, so that the archive's own entries are not taken for
/// parts of the way there.
fn base_of(into: &Root, destination: &Path) -> Result<Vec<OsString>, ImageError> {
    let resolved = into.resolve(destination, rbuild_rooted::Follow::Yes)?;
    Ok(place::names(resolved.path.as_os_str().as_bytes()))
}

/// Bytes looked at to tell what a file is.
const SNIFF: u64 = 512;
