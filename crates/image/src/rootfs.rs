//! Whole root filesystems as a tar or as files of the caller (`-o type=tar`, `-o type=local`).

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root};
use rbuild_types::CancelToken;

use crate::error::ImageError;
use crate::layer::{FileTimes, PackOptions, Packed, TreeForm, pack};

/// Writes a merged tree as a tar, in the form of [`pack`]; every file is what it is.
pub fn export_tar(
    merged: &Root,
    times: FileTimes,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<Packed, ImageError> {
    pack(merged, &PackOptions { form: TreeForm::Plain, times }, sink, cancel)
}

/// What [`export_dir`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Device nodes, pipes and sockets, which are not the caller's to make.
    pub skipped: u64,
}

/// Copies a merged tree into the directory `dest`, which is made when missing and may hold files.
///
/// Files belong to the caller; setuid and setgid are taken away, because they would now give the
/// caller's rights. Directories merge, other names are replaced; a link in `dest` is replaced and
/// never followed. A directory in the way of a file is an error: what a user has is not deleted.
pub fn export_dir(
    merged: &Root,
    dest: &Path,
    times: FileTimes,
    cancel: &CancelToken,
) -> Result<Exported, ImageError> {
    fs_err::create_dir_all(dest)
        .map_err(|source| ImageError::write(dest.display().to_string())(source))?;
    let mut done = Exported::default();
    // Directories are made writable first and get mode and time once they are full.
    let mut levels = vec![Level::open(merged.try_clone()?, Root::open(dest)?, None)?];
    while let Some(level) = levels.last_mut() {
        cancel.check()?;
        let Some(entry) = level.rest.pop() else {
            let finished = levels.pop();
            if let (Some(Level { to, metadata: Some(metadata), .. }), true) =
                (finished, !levels.is_empty())
            {
                to.set_mode("", metadata.mode & 0o777)?;
                let time = times.of(metadata.mtime);
                to.set_times("", time, time)?;
            }
            continue;
        };
        let name = entry.name.as_os_str();
        let Some(metadata) = level.from.stat(name, Follow::No)? else { continue };
        let time = times.of(metadata.mtime);
        match metadata.kind {
            FileKind::Directory => {
                if level.to.stat(name, Follow::No)?.is_none_or(|found| !found.is_dir()) {
                    if level.to.stat(name, Follow::No)?.is_some() {
                        level.to.remove(name)?;
                    }
                    level.to.create_dir(name, NewDirs { mode: 0o700, owner: None })?;
                }
                let (from, to) = (level.from.enter(name)?, level.to.enter(name)?);
                levels.push(Level::open(from, to, Some(metadata))?);
                if levels.len() > MAX_DEPTH {
                    let problem = format!("more than {MAX_DEPTH} directories deep");
                    return Err(ImageError::archive(name.as_bytes(), problem));
                }
            }
            FileKind::Regular => {
                let mut from = level.from.open_file(name, Follow::No)?;
                let mut to = level.to.create_file(name, 0o600)?;
                done.bytes += std::io::copy(&mut from, &mut to)
                    .map_err(ImageError::write(name.to_string_lossy()))?;
                level.to.set_mode(name, metadata.mode & 0o777)?;
                level.to.set_times(name, time, time)?;
            }
            FileKind::Symlink => {
                level.to.symlink(level.from.read_link(name)?, name)?;
                level.to.set_times(name, time, time)?;
            }
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                done.skipped += 1;
                continue;
            }
        }
        done.entries += 1;
    }
    Ok(done)
}

/// Two directories are held per level; Linux gives 1024 descriptors by default.
const MAX_DEPTH: usize = 400;

struct Level {
    from: Root,
    to: Root,
    /// In reverse order, so that the next one is at the end.
    rest: Vec<rbuild_rooted::DirEntry>,
    metadata: Option<Metadata>,
}

impl Level {
    fn open(from: Root, to: Root, metadata: Option<Metadata>) -> Result<Self, ImageError> {
        let mut rest = from.read_dir("")?;
        rest.reverse();
        Ok(Self { from, to, rest, metadata })
    }
}
