//! Zstd frames that are compressed on their own; a stream may consist of any number of them.

use std::io;

/// Bytes of content in one frame: twice the window of the default level.
pub(super) const FRAME: usize = 4 << 20;

/// Compresses one frame; its header says how long the content is.
pub(super) fn frame(input: &[u8], level: i32) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(input, level)
}
