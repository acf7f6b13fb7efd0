//! The one system call that rustix does not wrap.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Lets the kernel begin to write to the disk what `file` has in memory only, without waiting
/// for the end: see sync_file_range(2), `SYNC_FILE_RANGE_WRITE`.
///
/// Nothing is durable by it; who syncs later waits less. So it gives no errors: one of writing is
/// told to whoever syncs, and where the file system does not know the call nothing is lost.
pub fn begin_write_back(file: &File) {
    // SAFETY: no memory is passed, and `file` keeps the descriptor open during the call.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
