//! Writing a selection into a tree.
//!
//! Sources are written in their order. A directory's contents go in four steps: all directories,
//! parents first and private; then files, links and nodes, by several threads, each below two
//! held descriptors; then second names of hard-linked files; last the directories' own owner,
//! mode and time, children first, so that a read-only directory can be filled.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use rbuild_plan::op::{Copy, CopySource, Unpack};
use rbuild_rooted::{FileKind, Follow, Root, Time};
use rbuild_types::{CancelToken, Digest};

use super::chmod::Chmod;
use super::content::{self, Content, Copier};
use super::digest::{self, Overrides};
use super::divide::divide;
use super::error::CopyError;
use super::level::{Attributes, Level, dress, inherits_group, open_file, open_source};
use super::place::{DirTimes, FilePlace, Place, failed};
use super::reuse::{Earlier, Left};
use super::select::{ItemKind, Selection};
use super::tree::{Dir, Entry, SourceTree, shown};

/// Resolves the text of `--chown` to user and group; an error says why it cannot.
pub type LookupOwner<'a> = &'a dyn Fn(&str) -> Result<(u32, u32), String>;

/// What a selection is written into, and with what.
pub struct Target<'a> {
    /// The root filesystem, or an empty directory for `--link`.
    pub root: &'a Root,
    /// Looks names up in the destination's own users and groups.
    pub lookup_owner: LookupOwner<'a>,
    /// Unpacks archives for ADD; without it they are copied as files.
    pub archives: Option<&'a dyn Archives>,
    /// Whether owners are set.
    pub ownership: Ownership,
    /// What the same instruction wrote before; its files are left out.
    pub earlier: Option<&'a Earlier<'a>>,
}

/// Whether owners are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// They are, and failing to is an error.
    Set,
    /// Everything belongs to whoever runs this: a plain user without a user namespace.
    Leave,
}

/// Recognises and unpacks archives.
pub trait Archives {
    /// Whether the content, not the name, is that of a tar archive, compressed or not. The
    /// position in the file may be changed.
    fn is_archive(&self, file: &File) -> std::io::Result<bool>;

    /// Unpacks the file, read from its start, into the directory `destination` of `root`, which
    /// exists; its path is free of links.
    fn unpack(
        &self,
        file: File,
        root: &Root,
        destination: &Path,
        options: &ArchiveOptions,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// How an archive is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// `--chown`: owner of everything in it; else what the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether owners are set at all.
    pub ownership: Ownership,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The digest of what was really written, comparable to [`Selection::digest`].
    pub digest: Digest,
    /// Files of a context had other bytes than when they were selected: the result belongs to
    /// [`Applied::digest`], not to the selection's.
    pub changed: bool,
    /// Bytes of regular files.
    pub bytes: u64,
    /// The real path of the directory that contents of a context's directory went into.
    pub into: Option<PathBuf>,
    /// Files that are to be taken from [`Target::earlier`]: [`Left::lay`] does it, after everything
    /// else and in the bare tree.
    pub left: Left,
}

/// Writes `selection`, which [`super::select()`] made of the same `op`, into `target`.
///
/// # Errors
/// A destination that does not fit (a directory onto a file, several files onto one name), an
/// unknown `--chown`, a source that is no longer there, or a failure to write. What was written
/// until then stays.
pub fn apply<'a>(
    op: &Copy,
    selection: &Selection,
    tree_of: &dyn Fn(&CopySource) -> Option<SourceTree<'a>>,
    target: &Target<'_>,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
) -> Result<Applied, CopyError> {
    let chmod = Chmod::parse(op.chmod.as_deref().unwrap_or_default())?;
    let chown = match op.chown.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            (target.lookup_owner)(text)
                .map_err(|message| CopyError::BadChown { text: text.to_owned(), message })?,
        ),
    };
    let attributes = Attributes {
        chmod: chmod.as_ref(),
        chown,
        ownership: target.ownership,
        process: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
    };
    let files = selection.items.iter().filter(|item| !matches!(item.kind, ItemKind::Dir { .. }));
    let place = Place {
        root: target.root,
        op,
        new: attributes.for_new_dirs(),
        several: files.count() > 1,
        times: DirTimes::default(),
    };
    let mut writer = Writer {
        op,
        place,
        target,
        attributes,
        copier: Copier::default(),
        pool,
        cancel,
        written: Mutex::default(),
        // With several sources a later one may lay something upon the files of an earlier one.
        earlier: target.earlier.filter(|_| selection.items.len() == 1),
        into: None,
    };
    for (index, item) in selection.items.iter().enumerate() {
        cancel.check()?;
        if let ItemKind::Inline { entry, content } = &item.kind {
            writer.inline(entry, content)?;
            continue;
        }
        let tree = op
            .sources
            .get(item.source)
            .and_then(tree_of)
            .ok_or(CopyError::NoTree { index: item.source })?;
        match &item.kind {
            ItemKind::Inline { .. } => {}
            ItemKind::File { dir, entry, name } => {
                writer.file(index, &tree, dir, entry, name.as_ref())?;
            }
            ItemKind::Dir { dirs } => writer.directory(index, &tree, dirs)?,
        }
    }
    let created = op.created.map(|sec| Time { sec, nsec: 0 });
    writer.place.times.restore(target.root, created)?;
    let mut written = std::mem::take(&mut *writer.written());
    let into = writer.into.take();
    let left =
        Left { into: into.clone().unwrap_or_default(), dirs: std::mem::take(&mut written.left) };
    let bytes = written.bytes;
    let (digest, changed) = digest_of(selection, &attributes, written.changes);
    Ok(Applied { digest, changed, bytes, into, left })
}

/// The digest with what really was written in the place of what was selected, and whether that
/// makes a difference.
fn digest_of(
    selection: &Selection,
    attributes: &Attributes<'_>,
    changes: Vec<Change>,
) -> (Digest, bool) {
    if changes.is_empty() {
        return (selection.digest, false);
    }
    let mut items = selection.items.clone();
    for Change { item, dir, entry, content } in changes {
        let entry = match items.get_mut(item).map(|item| &mut item.kind) {
            Some(ItemKind::File { entry, .. }) => Some(entry.as_mut()),
            Some(ItemKind::Dir { dirs }) => {
                dirs.get_mut(dir).and_then(|dir| dir.entries.get_mut(entry))
            }
            _ => None,
        };
        if let Some(entry) = entry {
            entry.digest = Some(content.digest);
            entry.size = content.size;
        }
    }
    let overrides = Overrides { chmod: attributes.chmod, owner: attributes.chown.is_some() };
    (digest::digest(&items, &overrides), true)
}

/// What the threads report.
#[derive(Default)]
struct Written {
    bytes: u64,
    changes: Vec<Change>,
    left: HashMap<PathBuf, Vec<OsString>>,
}

/// A file that had other bytes than its selection.
struct Change {
    item: usize,
    dir: usize,
    entry: usize,
    content: Content,
}

struct Writer<'a> {
    op: &'a Copy,
    place: Place<'a>,
    target: &'a Target<'a>,
    attributes: Attributes<'a>,
    copier: Copier,
    pool: &'a rayon::ThreadPool,
    cancel: &'a CancelToken,
    written: Mutex<Written>,
    earlier: Option<&'a Earlier<'a>>,
    into: Option<PathBuf>,
}

impl Writer<'_> {
    fn written(&mut self) -> &mut Written {
        self.written.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn inline(&mut self, entry: &Entry, content: &str) -> Result<(), CopyError> {
        let FilePlace { dir, name, path } = self.place.file(&entry.name)?;
        let path = path.join(&name);
        let mode = self.attributes.mode(entry);
        let mut file =
            dir.create_file(Path::new(&name), mode).map_err(|error| failed(&path, error))?;
        file.write_all(content.as_bytes())
            .map_err(|source| CopyError::Write { path: shown(&path), source })?;
        let inherits = inherits_group(&dir);
        let time = self.op.created.map(|sec| Time { sec, nsec: 0 });
        dress(&file, self.attributes.owner(entry, inherits), mode, time)
            .map_err(|errno| CopyError::Write { path: shown(&path), source: errno.into() })?;
        self.written().bytes += content.len() as u64;
        Ok(())
    }

    fn file(
        &mut self,
        item: usize,
        tree: &SourceTree<'_>,
        directory: &Path,
        entry: &Entry,
        name: &Path,
    ) -> Result<(), CopyError> {
        let from = open_source(tree, directory)?;
        if self.unpack(item, tree, &from, directory, entry)? {
            return Ok(());
        }
        let FilePlace { dir, name, path } = self.place.file(name.as_os_str())?;
        let level = Level {
            tree,
            source: directory,
            from: &from,
            path: &path,
            to: &dir,
            inherits: inherits_group(&dir),
            attributes: &self.attributes,
            copier: &self.copier,
            cancel: self.cancel,
        };
        let content = level.write(entry, Path::new(&name))?;
        let written = self.written();
        written.bytes += content.map_or(entry.size, |content| content.size);
        if let Some(content) = content.filter(|content| entry.digest != Some(content.digest)) {
            written.changes.push(Change { item, dir: 0, entry: 0, content });
        }
        Ok(())
    }

    /// Unpacks a local archive of an ADD; whether it was one.
    fn unpack(
        &mut self,
        item: usize,
        tree: &SourceTree<'_>,
        from: &Root,
        directory: &Path,
        entry: &Entry,
    ) -> Result<bool, CopyError> {
        let Some(archives) = self.target.archives else { return Ok(false) };
        // What is no context and may be an archive was downloaded.
        let wanted = match self.op.unpack {
            Unpack::None => false,
            Unpack::Local => tree.owner.is_context(),
            Unpack::All => true,
        };
        if !wanted || entry.kind != FileKind::Regular || entry.made_up {
            return Ok(false);
        }
        let path = directory.join(&entry.name);
        let read = |source| CopyError::Read { tree: tree.name.clone(), path: shown(&path), source };
        let mut file = open_file(tree, from, directory, entry)?;
        if !archives.is_archive(&file).map_err(read)? {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(0)).map_err(read)?;
        if tree.owner.is_context() {
            let content = content::hash(&file, self.cancel)
                .map_err(|failure| failure.named(&tree.name, &shown(&path), ""))?;
            if entry.digest != Some(content.digest) {
                self.written().changes.push(Change { item, dir: 0, entry: 0, content });
            }
            file.seek(SeekFrom::Start(0)).map_err(read)?;
        }
        let into = self.place.directory()?;
        let options =
            ArchiveOptions { owner: self.attributes.chown, ownership: self.attributes.ownership };
        archives
            .unpack(file, self.target.root, &into.path, &options)
            .map_err(|source| CopyError::Unpack { path: shown(&path), source })?;
        self.written().bytes += entry.size;
        Ok(true)
    }

    fn directory(
        &mut self,
        item: usize,
        tree: &SourceTree<'_>,
        dirs: &[Dir],
    ) -> Result<(), CopyError> {
        let top = self.place.directory()?;
        let merged = make_directories(&top.dir, &top.path, dirs, &mut self.place.times)?;
        let (chunks, second_names) = divide(dirs);
        let (place, attributes) = (&top, &self.attributes);
        let (copier, cancel, written) = (&self.copier, self.cancel, &self.written);
        // Capabilities, which a stage's files may have, are in no listing.
        let is_plain = tree.owner.is_context();
        let earlier = self.earlier.filter(|_| is_plain);
        self.pool.install(|| {
            chunks.par_iter().try_for_each(|chunk| {
                cancel.check()?;
                let dir = &dirs[chunk.dir];
                let path = place.path.join(&dir.path);
                let from = open_source(tree, &dir.source)?;
                let to =
                    place.dir.open_real_dir(&dir.path).map_err(|error| failed(&path, error))?;
                let level = Level {
                    tree,
                    source: &dir.source,
                    from: &from,
                    path: &path,
                    to: &to,
                    inherits: inherits_group(&to),
                    attributes,
                    copier,
                    cancel,
                };
                let known = earlier.and_then(|earlier| earlier.beside(&dir.path, &to));
                let (mut here, mut left) = (Written::default(), Vec::new());
                for index in chunk.entries.clone() {
                    let entry = &dir.entries[index];
                    let second = entry.links.is_some() && second_names.holds(chunk.dir, index);
                    if entry.kind == FileKind::Directory || second {
                        continue;
                    }
                    if known.as_ref().is_some_and(|dir| dir.has(entry, attributes)) {
                        here.bytes += entry.size;
                        left.push(entry.name.clone());
                        continue;
                    }
                    let content = level.write(entry, Path::new(&entry.name))?;
                    here.bytes += content.map_or(entry.size, |content| content.size);
                    if let Some(content) = content
                        && entry.digest != Some(content.digest)
                    {
                        let change = Change { item, dir: chunk.dir, entry: index, content };
                        here.changes.push(change);
                    }
                }
                let mut written = written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                written.bytes += here.bytes;
                written.changes.append(&mut here.changes);
                if !left.is_empty() {
                    written.left.entry(dir.path.clone()).or_default().append(&mut left);
                }
                Ok::<(), CopyError>(())
            })
        })?;
        let name_of = |(dir, entry): (usize, usize)| {
            let dir: &Dir = &dirs[dir];
            dir.path.join(&dir.entries[entry].name)
        };
        for (name, first) in &second_names.0 {
            let (name, first) = (name_of(*name), name_of(*first));
            top.dir
                .hard_link(&first, &name)
                .map_err(|error| failed(&top.path.join(&name), error))?;
        }
        self.finish(&top.dir, &top.path, &merged)?;
        self.into = is_plain.then_some(top.path);
        Ok(())
    }

    /// Gives directories the attributes of their sources, children first. One that was there and
    /// stands only above what `--parents` matched takes the mode alone, as in BuildKit.
    fn finish(&self, top: &Root, shown_top: &Path, merged: &[Merged<'_>]) -> Result<(), CopyError> {
        for Merged { path, entry, is_new } in merged.iter().rev() {
            let error = |error| failed(&shown_top.join(path), error);
            if entry.only_above && !is_new {
                top.set_mode(path, entry.mode).map_err(error)?;
                continue;
            }
            // Always set: the directory may have got its group from the one above it.
            if let Some((uid, gid)) = self.attributes.owner(entry, true) {
                top.set_owner(path, uid, gid).map_err(error)?;
            }
            top.set_mode(path, self.attributes.mode(entry)).map_err(error)?;
            top.set_times(path, entry.mtime, entry.mtime).map_err(error)?;
        }
        Ok(())
    }
}

/// A directory below an item's first one.
struct Merged<'d> {
    path: PathBuf,
    entry: &'d Entry,
    is_new: bool,
}

/// Makes the directories of an item that are missing; gives all of them, parents first.
fn make_directories<'d>(
    top: &Root,
    shown_top: &Path,
    dirs: &'d [Dir],
    times: &mut DirTimes,
) -> Result<Vec<Merged<'d>>, CopyError> {
    let mut merged = Vec::new();
    for dir in dirs {
        let mut below =
            dir.entries.iter().filter(|entry| entry.kind == FileKind::Directory).peekable();
        if below.peek().is_none() {
            continue;
        }
        let here = shown_top.join(&dir.path);
        let held = top.open_real_dir(&dir.path).map_err(|error| failed(&here, error))?;
        for entry in below {
            let error = |error| failed(&here.join(&entry.name), error);
            let name = Path::new(&entry.name);
            let is_new = held.create_private_dir(name).map_err(error)?;
            if !is_new {
                match held.stat(name, Follow::No).map_err(error)? {
                    Some(there) if !there.is_dir() => {
                        return Err(CopyError::NotADirectory { path: shown(&here.join(name)) });
                    }
                    Some(there) if entry.only_above => times.keep(here.join(name), there.mtime),
                    _ => times.forget(&here.join(name)),
                }
            }
            merged.push(Merged { path: dir.path.join(name), entry, is_new });
        }
    }
    Ok(merged)
}
