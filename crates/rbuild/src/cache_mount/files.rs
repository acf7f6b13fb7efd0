//! The files of a cache mount one by one, for whoever carries them elsewhere in pieces.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root, Time};
use rbuild_types::{CancelToken, Digest, Hasher};

use super::OpenCache;
use crate::{BuildError, Engine};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 17;

/// One name in a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFile {
    /// From the top of the cache mount, without a slash in front; empty for the top itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: CacheFileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change: seconds since 1970.
    pub mtime: i64,
    /// And nanoseconds after that.
    pub mtime_nsec: u32,
}

/// What a [`CacheFile`] is. Pipes, sockets and devices are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheFileKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Bytes.
        size: u64,
        /// Digest of the bytes.
        digest: Digest,
    },
    /// Another name of a file that came before.
    HardLink {
        /// Its first path.
        first: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: OsString,
    },
}

/// Gives the bytes of a file.
pub type ReadCacheFile<'r> = dyn FnMut(&CacheFile) -> Result<Box<dyn Read>, BuildError> + 'r;

impl OpenCache {
    /// All names: a directory before what is in it, siblings in byte order. Reads every file. The
    /// cache should be held alone.
    pub fn files(&self, cancel: &CancelToken) -> Result<Vec<CacheFile>, BuildError> {
        let mut see = |path: &Path, file| digest_of(file, path, &mut std::io::sink(), cancel);
        walk(&self.root, &mut see, cancel)
    }

    /// Opens a regular file by its path in [`OpenCache::files`].
    pub fn open_file(&self, path: &Path) -> Result<File, BuildError> {
        Ok(self.root.open_seen_file(path)?.0)
    }
}

/// Reads a file: its size and digest.
pub(crate) type SeeFile<'s> = dyn FnMut(&Path, File) -> Result<(u64, Digest), BuildError> + 's;

/// All names below a directory as [`OpenCache::files`] has them; every file is handed to `see`.
pub(crate) fn walk(
    root: &Root,
    see: &mut SeeFile<'_>,
    cancel: &CancelToken,
) -> Result<Vec<CacheFile>, BuildError> {
    let mut files = Vec::new();
    let mut links = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        cancel.check()?;
        let found = match path.as_os_str().is_empty() {
            true => Some(root.metadata()?),
            false => root.stat(&path, Follow::No)?,
        };
        // What goes away meanwhile was not there.
        let Some(found) = found else { continue };
        let Some(kind) = kind_of(root, &path, &found, &mut links, see)? else { continue };
        if kind == CacheFileKind::Directory {
            let names = root.read_dir(&path)?;
            pending.extend(names.into_iter().rev().map(|entry| path.join(entry.name)));
        }
        let Metadata { mode, uid, gid, mtime: Time { sec: mtime, nsec: mtime_nsec }, .. } = found;
        files.push(CacheFile { path, kind, mode, uid, gid, mtime, mtime_nsec });
    }
    Ok(files)
}

fn kind_of(
    root: &Root,
    path: &Path,
    found: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
    see: &mut SeeFile<'_>,
) -> Result<Option<CacheFileKind>, BuildError> {
    Ok(match found.kind {
        FileKind::Directory => Some(CacheFileKind::Directory),
        FileKind::Symlink => Some(CacheFileKind::Symlink { target: root.read_link(path)? }),
        FileKind::Regular => {
            if found.nlink > 1 {
                let inode = (found.dev, found.ino);
                if let Some(first) = links.get(&inode) {
                    return Ok(Some(CacheFileKind::HardLink { first: first.clone() }));
                }
                links.insert(inode, path.to_owned());
            }
            let (file, _) = root.open_seen_file(path)?;
            let (size, digest) = see(path, file)?;
            Some(CacheFileKind::File { size, digest })
        }
        _ => None,
    })
}

impl Engine {
    /// Puts these files in the place of all that is in a cache mount, which must be held alone;
    /// `read` gives the bytes of each file. The list may be a stranger's: no path leads out of the
    /// cache mount, and bytes are verified. After an error nothing has changed.
    ///
    /// # Errors
    ///
    /// When bytes are not those that were listed, and those of `read`.
    pub fn restore_cache(
        &self,
        cache: &OpenCache,
        files: &[CacheFile],
        read: &mut ReadCacheFile<'_>,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        self.replace_cache(cache, &mut |root| restore_files(root, files, read, cancel))
    }
}

/// Makes these files in an empty directory, as [`Engine::restore_cache`] has it.
pub(crate) fn restore_files(
    root: &Root,
    files: &[CacheFile],
    read: &mut ReadCacheFile<'_>,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    for file in files {
        cancel.check()?;
        restore(root, file, read, cancel)?;
    }
    // What is written into a directory changes its time, and may need its permission.
    for file in files.iter().rev().filter(|file| file.kind == CacheFileKind::Directory) {
        dress(root, file)?;
    }
    Ok(())
}

fn restore(
    root: &Root,
    file: &CacheFile,
    read: &mut ReadCacheFile<'_>,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    match &file.kind {
        CacheFileKind::Directory => {
            root.create_dir_all(&file.path, NewDirs { mode: 0o700, owner: None })?;
            return Ok(());
        }
        CacheFileKind::Symlink { target } => root.symlink(target, &file.path)?,
        CacheFileKind::HardLink { first } => {
            root.hard_link(first, &file.path)?;
            return Ok(());
        }
        CacheFileKind::File { size, digest } => {
            let mut sink = root.create_file(&file.path, 0o600)?;
            // One byte more tells that there are too many.
            let source = read(file)?.take(size.saturating_add(1));
            let found = digest_of(source, &file.path, &mut sink, cancel)?;
            if found != (*size, *digest) {
                let message = format!(
                    "{} is damaged: expected {digest}, found {}",
                    file.path.display(),
                    found.1
                );
                return Err(BuildError::Request { message });
            }
        }
    }
    dress(root, file)
}

/// Owner, mode and time, in the order in which they do not undo each other.
fn dress(root: &Root, file: &CacheFile) -> Result<(), BuildError> {
    let time = Time { sec: file.mtime, nsec: file.mtime_nsec };
    root.set_owner(&file.path, file.uid, file.gid)?;
    root.set_mode(&file.path, file.mode)?;
    Ok(root.set_times(&file.path, time, time)?)
}

/// Copies `source` into `sink`; how many bytes there were, and their digest.
fn digest_of(
    mut source: impl Read,
    path: &Path,
    sink: &mut dyn std::io::Write,
    cancel: &CancelToken,
) -> Result<(u64, Digest), BuildError> {
    let io = |source| BuildError::Io { what: format!("copy {}", path.display()), source };
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        cancel.check()?;
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.map_err(io)?,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        sink.write_all(bytes).map_err(io)?;
        size += count as u64;
    }
    Ok((size, hasher.finish()))
}
