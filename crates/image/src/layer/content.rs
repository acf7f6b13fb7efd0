//! Content and attributes onto what an archive's entry made.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rbuild_rooted::Time;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::tarball::Segment;

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;

/// Files of this size are worth a call of their own that begins to write them to the disk. Smaller
/// ones are faster all at once, by whoever syncs.
pub(super) const WRITE_BACK_MIN: u64 = 64 << 10;

/// Copies contents through one buffer that is reused.
pub(super) struct Copier {
    buffer: Box<[u8]>,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice() }
    }

    /// Copies `reader` to its end. Gives the bytes written.
    pub(super) fn copy(
        &mut self,
        reader: &mut dyn Read,
        file: &mut File,
        shown: &str,
    ) -> Result<u64, ImageError> {
        self.copy_up_to(reader, file, u64::MAX, shown)
    }

    /// Copies a file with holes.
    pub(super) fn copy_sparse(
        &mut self,
        reader: &mut dyn Read,
        file: &mut File,
        segments: &[Segment],
        size: u64,
        shown: &str,
    ) -> Result<(), ImageError> {
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset)).map_err(ImageError::write(shown))?;
            self.copy_up_to(reader, file, segment.length, shown)?;
        }
        file.set_len(size).map_err(ImageError::write(shown))
    }

    fn copy_up_to(
        &mut self,
        reader: &mut dyn Read,
        file: &mut File,
        limit: u64,
        shown: &str,
    ) -> Result<u64, ImageError> {
        let mut copied = 0;
        while copied < limit {
            let wanted = usize::try_from(limit - copied).unwrap_or(usize::MAX).min(BUFFER);
            let count = match reader.read(&mut self.buffer[..wanted]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::read("archive")(error)),
            };
            file.write_all(&self.buffer[..count]).map_err(ImageError::write(shown))?;
            copied += count as u64;
        }
        Ok(copied)
    }
}

/// Gives an open file its owner, mode, attributes and times, in the order in which none of them
/// undoes another: chown clears setuid and capabilities, writing clears both and changes the time.
pub(super) fn dress(
    file: &File,
    owner: Option<(u32, u32)>,
    mode: u32,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    mtime: Time,
) -> Result<(), Errno> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    for (name, value) in xattrs {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        match rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            // Without rights over the owner there are none over capabilities.
            Err(Errno::PERM) if owner.is_none() => {}
            Err(errno) => return Err(errno),
        }
    }
    let time = timespec(mtime);
    rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) }
}

/// Whether a layer may set this attribute: file capabilities and the user's own. Overlay's
/// attributes would change what overlay shows, labels belong to the machine.
pub(super) fn may_set(name: &[u8]) -> bool {
    if name == super::peek::CAPABILITY.as_bytes() {
        return true;
    }
    name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&0)
}
