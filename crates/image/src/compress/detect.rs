//! Formats told by their first bytes, whatever a file is called.

use super::Compression;

/// Where POSIX and GNU tar headers say `ustar`.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;

/// The compression of a stream that starts with `head`; [`Compression::None`] for a plain tar, and
/// `None` when it is neither. 262 bytes are enough.
pub fn detect(head: &[u8]) -> Option<Compression> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(&[0x1f, 0x8b, 0x08]) {
        Some(Compression::Gzip)
    } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_zstd(head) {
        Some(Compression::Zstd)
    } else if starts(b"BZh") {
        Some(Compression::Bzip2)
    } else if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Some(Compression::Xz)
    } else if head.get(TAR_MAGIC) == Some(b"ustar") {
        Some(Compression::None)
    } else {
        None
    }
}

/// Zstd streams may start with a frame of user data (RFC 8878, 3.1.2).
fn is_skippable_zstd(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}
