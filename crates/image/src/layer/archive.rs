//! `ADD`'s unpacking of local archives: a plain tar or a compressed one, told by its content.

use std::io::Read;

use rbuild_rooted::Root;
use rbuild_types::CancelToken;

use super::place::Tree;
use super::unpack::{UnpackOptions, Unpacked, Unpacker, file_time, new_owner};
use crate::compress::{self, Compression};
use crate::error::ImageError;
use crate::tarball;

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

/// The latest time of a file in a tar archive, compressed or not, in seconds since 1970.
///
/// # Errors
///
/// What is no tar from its beginning to its end.
pub fn newest_file(mut reader: impl Read, cancel: &CancelToken) -> Result<Option<i64>, ImageError> {
    let mut head = Vec::new();
    reader.by_ref().take(SNIFF).read_to_end(&mut head).map_err(ImageError::read("archive"))?;
    let compression = compress::detect(&head).unwrap_or(Compression::None);
    let whole = std::io::Cursor::new(head).chain(reader);
    let mut archive = tarball::Reader::new(compress::reader(compression, whole, "archive")?);
    let mut newest = None;
    while let Some(entry) = archive.next_entry()? {
        cancel.check()?;
        newest = newest.max(file_time(&entry));
    }
    Ok(newest)
}

/// Unpacks a tar archive, compressed or not, into `into`, which may hold files already.
///
/// Directories merge, anything else is replaced. `.wh.` names are plain names. `into` is the root
/// of all that the archive says: symbolic links, also those that were there before, are followed
/// inside it only, and one that leads nowhere there is an error, as in BuildKit.
pub fn unpack_archive(
    mut reader: &mut dyn Read,
    into: &Root,
    options: &UnpackOptions,
    cancel: &CancelToken,
) -> Result<Unpacked, ImageError> {
    let mut head = Vec::new();
    reader.take(SNIFF).read_to_end(&mut head).map_err(ImageError::read("archive"))?;
    let compression = compress::detect(&head).unwrap_or(Compression::None);
    let whole = std::io::Cursor::new(head).chain(&mut reader);
    let mut plain = compress::reader(compression, whole, "archive")?;
    let tree = Tree { into, lower: None, overlay: None, owner: new_owner(options) };
    Unpacker::new(tree, options, cancel).run(&mut plain)
}

/// Bytes looked at to tell what a file is.
const SNIFF: u64 = 512;
