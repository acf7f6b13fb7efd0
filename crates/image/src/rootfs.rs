//! Whole root filesystems as a tar or as files of the caller (`-o type=tar`, `-o type=local`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_rooted::{FileKind, Follow, Metadata, NewDirs, Root, Time};
use rbuild_types::CancelToken;

use crate::error::ImageError;
use crate::layer::{FileTimes, PackOptions, Packed, Part, TreeForm, pack_parts};

/// The root filesystem of one image among several that are written together.
#[derive(Debug)]
pub struct RootfsPart {
    /// What it is in messages: a platform.
    pub name: String,
    /// The directory that it goes into; `None` where it shares one with all others.
    pub directory: Option<String>,
    /// Its files.
    pub merged: Root,
    /// The times that they get.
    pub times: FileTimes,
}

/// Writes merged trees as one tar, in the form of [`pack`](crate::layer::pack); every file is what
/// it is.
pub fn export_tar(
    parts: &[RootfsPart],
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<Packed, ImageError> {
    refuse_overlap(parts, cancel)?;
    let parts: Vec<_> = parts
        .iter()
        .map(|part| Part {
            directory: part.directory.as_deref().unwrap_or_default(),
            tree: &part.merged,
            options: PackOptions {
                form: TreeForm::Plain,
                times: part.times,
                ..PackOptions::default()
            },
        })
        .collect();
    pack_parts(&parts, sink, cancel)
}

/// Trees that share a directory must not have a file in common: one of them would be lost.
fn refuse_overlap(parts: &[RootfsPart], cancel: &CancelToken) -> Result<(), ImageError> {
    let sharing = || parts.iter().filter(|part| part.directory.is_none());
    if sharing().count() < 2 {
        return Ok(());
    }
    let mut seen: HashMap<PathBuf, (bool, &str)> = HashMap::new();
    for part in sharing() {
        let mut waiting = vec![PathBuf::new()];
        while let Some(directory) = waiting.pop() {
            cancel.check()?;
            for entry in part.merged.read_dir(&directory)? {
                let path = directory.join(&entry.name);
                let is_directory = entry.kind == FileKind::Directory;
                match seen.get(&path) {
                    Some((true, _)) if is_directory => {}
                    Some((_, other)) => {
                        let (first, second) = ((*other).to_owned(), part.name.clone());
                        return Err(ImageError::Overlap { path, first, second });
                    }
                    None => drop(seen.insert(path.clone(), (is_directory, part.name.as_str()))),
                }
                if is_directory {
                    waiting.push(path);
                }
            }
        }
    }
    Ok(())
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

/// What becomes of files in the directory that are not in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They stay.
    Kept,
    /// They are removed.
    Removed,
}

/// Copies merged trees into the directory `dest`, which is made when missing and may hold files.
///
/// Files belong to the caller; setuid and setgid are taken away, because they would now give the
/// caller's rights. Directories merge, other names are replaced; a link in `dest` is replaced and
/// never followed. Where others are kept, a directory in the way of a file is an error: what a user
/// has is not deleted.
pub fn export_dir(
    parts: &[RootfsPart],
    dest: &Path,
    others: Others,
    cancel: &CancelToken,
) -> Result<Exported, ImageError> {
    refuse_overlap(parts, cancel)?;
    fs_err::create_dir_all(dest)
        .map_err(|source| ImageError::write(dest.display().to_string())(source))?;
    let dest = Root::open(dest)?;
    if others == Others::Removed {
        remove_others(parts, &dest, cancel)?;
    }
    let mut done = Exported::default();
    for part in parts {
        match &part.directory {
            None => copy_tree(part, dest.try_clone()?, &mut done, cancel)?,
            Some(directory) => {
                make_directory(&dest, directory.as_ref(), 0o755)?;
                copy_tree(part, dest.enter(directory)?, &mut done, cancel)?;
                if let FileTimes::All(sec) = part.times {
                    let time = Time { sec, nsec: 0 };
                    dest.set_times(directory, time, time)?;
                }
            }
        }
    }
    Ok(done)
}

/// Removes what no part has under its name and as its kind.
fn remove_others(
    parts: &[RootfsPart],
    dest: &Root,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    let shared: Vec<&Root> =
        parts.iter().filter(|part| part.directory.is_none()).map(|part| &part.merged).collect();
    if !shared.is_empty() {
        return prune(&shared, dest, cancel);
    }
    for entry in dest.read_dir("")? {
        let is_it =
            |part: &&RootfsPart| part.directory.as_ref().is_some_and(|name| *entry.name == **name);
        match parts.iter().find(is_it) {
            Some(part) if entry.kind == FileKind::Directory => {
                prune(&[&part.merged], &dest.enter(&entry.name)?, cancel)?;
            }
            Some(_) => {}
            None => dest.remove_all(&entry.name)?,
        }
    }
    Ok(())
}

/// Removes what none of the trees `wanted` has.
fn prune(wanted: &[&Root], dest: &Root, cancel: &CancelToken) -> Result<(), ImageError> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        for entry in dest.read_dir(&directory)? {
            cancel.check()?;
            let path = directory.join(&entry.name);
            let is_directory = entry.kind == FileKind::Directory;
            let mut is_there = false;
            for tree in wanted {
                let found = tree.stat(&path, Follow::No)?;
                is_there |= found.is_some_and(|found| found.is_dir() == is_directory);
            }
            match (is_there, is_directory) {
                (true, true) => waiting.push(path),
                (true, false) => {}
                (false, _) => dest.remove_all(&path)?,
            }
        }
    }
    Ok(())
}

/// Makes a directory, in the place of whatever else has its name.
fn make_directory(parent: &Root, name: &OsStr, mode: u32) -> Result<(), ImageError> {
    let found = parent.stat(name, Follow::No)?;
    if found.as_ref().is_some_and(Metadata::is_dir) {
        return Ok(());
    }
    if found.is_some() {
        parent.remove(name)?;
    }
    Ok(parent.create_dir(name, NewDirs { mode, owner: None })?)
}

fn copy_tree(
    part: &RootfsPart,
    dest: Root,
    done: &mut Exported,
    cancel: &CancelToken,
) -> Result<(), ImageError> {
    let times = part.times;
    // Directories are made writable first and get mode and time once they are full.
    let mut levels = vec![Level::open(part.merged.try_clone()?, dest, None)?];
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
                make_directory(&level.to, name, 0o700)?;
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
    Ok(())
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
