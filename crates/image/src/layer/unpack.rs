//! Layer tars to trees in overlay's upper-directory form.
//!
//! A layer is unpacked into a directory of its own. Whatever an archive says:
//!
//! * nothing outside that directory is made, changed, removed or linked to;
//! * files are made anew (`O_EXCL`, after what had the name is unlinked), never opened;
//! * hard links lead to regular files of this tree, or of the lower layers, from where they are
//!   copied up; `overlay.*` attributes and device 0:0 never come out of an archive;
//! * directories get their times last, so that filling them does not change them. Directories
//!   that no entry describes are root's, 0755, from 1970, unless a lower layer has them.
//!
//! Run it in a process that has pivoted into the tree's file system all the same.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rbuild_rooted::{
    Errno, FileKind, Follow, Metadata, NewDirs, Root, RootedError, Time, begin_write_back,
};
use rbuild_types::CancelToken;

use super::content::{self, Copier};
use super::place::{self, Place, Tree};
use super::whiteout::{self, OverlayXattrs};
use crate::error::ImageError;
use crate::limits;
use crate::tarball::{self, Entry, EntryKind};

/// Who owns what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// The ids in the archive; needs `CAP_CHOWN`.
    #[default]
    Archive,
    /// Whoever unpacks: for trees that are only looked at.
    Caller,
    /// One owner for every entry (`ADD --chown`).
    Fixed {
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// What happens to device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// They are made; needs `CAP_MKNOD` in the first user namespace.
    #[default]
    Make,
    /// They are left out and counted.
    Skip,
}

/// How [`unpack_layer`] and [`super::unpack_archive`] work.
#[derive(Debug, Clone, Default)]
pub struct UnpackOptions {
    /// How opaque directories are marked.
    pub overlay: OverlayXattrs,
    /// Who owns what is unpacked.
    pub ownership: Ownership,
    /// What happens to device nodes.
    pub devices: Devices,
    /// Bytes of content after which unpacking stops with an error.
    pub max_bytes: Option<u64>,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Entries, markers included.
    pub entries: u64,
    /// Device nodes that were left out.
    pub skipped_devices: u64,
    /// The latest time of a file, seconds since 1970.
    pub newest: Option<i64>,
}

/// The time of an entry that is a file, seconds since 1970.
pub(super) fn file_time(entry: &Entry) -> Option<i64> {
    matches!(entry.kind, EntryKind::File | EntryKind::HardLink).then_some(entry.mtime.sec)
}

/// Unpacks the tar stream of one layer into the empty directory `into`.
///
/// `merged` is a read-only view of the layers below, if there are any: with it, names that lead
/// through their links and hard links to their files mean what they mean in the whole image.
/// `reader` gives the uncompressed tar and is read to its end, so that a digest over it is whole.
pub fn unpack_layer(
    reader: &mut dyn Read,
    into: &Root,
    merged: Option<&Root>,
    options: &UnpackOptions,
    cancel: &CancelToken,
) -> Result<Unpacked, ImageError> {
    let tree =
        Tree { into, lower: merged, overlay: Some(options.overlay), owner: new_owner(options) };
    Unpacker::new(tree, options, cancel).run(reader)
}

/// Owner of directories that no entry describes: root's, as in BuildKit, also with `ADD --chown`.
pub(super) fn new_owner(options: &UnpackOptions) -> Option<(u32, u32)> {
    match options.ownership {
        Ownership::Archive | Ownership::Fixed { .. } => Some((0, 0)),
        Ownership::Caller => None,
    }
}

pub(super) struct Unpacker<'a> {
    tree: Tree<'a>,
    options: &'a UnpackOptions,
    cancel: &'a CancelToken,
    copier: Copier,
    /// The directory of the last entry: archives list a directory's files together.
    last: Option<Place>,
    /// Times that directories are to have in the end.
    times: HashMap<PathBuf, Time>,
    done: Unpacked,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(tree: Tree<'a>, options: &'a UnpackOptions, cancel: &'a CancelToken) -> Self {
        let (copier, times) = (Copier::new(), HashMap::new());
        Self { tree, options, cancel, copier, last: None, times, done: Unpacked::default() }
    }

    pub(super) fn run(mut self, reader: &mut dyn Read) -> Result<Unpacked, ImageError> {
        let mut archive = tarball::Reader::new(reader);
        while let Some(entry) = archive.next_entry()? {
            self.cancel.check()?;
            self.done.entries += 1;
            self.done.newest = self.done.newest.max(file_time(&entry));
            self.entry(&entry, &mut archive)?;
        }
        archive.drain()?;
        for (path, time) in &self.times {
            match self.tree.into.open_real_dir(path) {
                Ok(dir) => dir.set_times("", *time, *time)?,
                // Another entry has removed the directory since, or put a link there.
                Err(error)
                    if matches!(
                        error.errno(),
                        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.done)
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), ImageError> {
        if entry.path.len() > limits::PATH || entry.link.len() > limits::PATH {
            let problem = format!("path of more than {} bytes", limits::PATH);
            return Err(ImageError::archive(&entry.path, problem));
        }
        let mut names = place::names(&entry.path);
        let Some(name) = names.pop() else { return self.top(entry) };
        if self.tree.overlay.is_some() {
            if let Some(parent) = names.iter().find(|name| is_marker(name)) {
                if parent.as_bytes().starts_with(whiteout::META_PREFIX) {
                    return Ok(());
                }
                return Err(ImageError::archive(&entry.path, "below a whiteout"));
            }
            if is_marker(&name) {
                return self.marker(entry, &names, &name);
            }
        }
        let place = self.enter(&names)?;
        let result = self.make(entry, &place, &name, content);
        self.last = Some(place);
        result
    }

    /// The entry of the root itself, `./` or without a name: it is not made. In a layer its
    /// attributes count; the destination of an ADD keeps its own, as in BuildKit.
    fn top(&mut self, entry: &Entry) -> Result<(), ImageError> {
        if self.tree.overlay.is_none() {
            return Ok(());
        }
        if entry.kind != EntryKind::Directory {
            return Err(ImageError::archive(&entry.path, "names the root, but is no directory"));
        }
        if let Some((uid, gid)) = self.owner(entry) {
            self.tree.into.set_owner("", uid, gid)?;
        }
        self.tree.into.set_mode("", entry.mode)?;
        self.times.insert(PathBuf::from("/"), entry.mtime);
        Ok(())
    }

    /// The directory `names`, from memory when the last entry was in it too.
    ///
    /// Only a place that no link led to is taken again: its names are its real path.
    fn enter(&mut self, names: &[OsString]) -> Result<Place, ImageError> {
        // An entry of that directory cannot have replaced the directory itself.
        if let Some(last) = self.last.take()
            && !last.through_links
            && last.real == names
        {
            return Ok(last);
        }
        let mut place = self.tree.enter_all(names)?;
        for (path, time) in place.made.drain(..) {
            self.times.insert(path, time);
        }
        Ok(place)
    }

    /// `.wh.` names: deletions of what is below this layer, never of what is in it.
    fn marker(
        &mut self,
        entry: &Entry,
        names: &[OsString],
        name: &OsStr,
    ) -> Result<(), ImageError> {
        self.last = None;
        if name.as_bytes() == whiteout::OPAQUE {
            let mut place = self.tree.enter_all(names)?;
            self.times.extend(place.made.drain(..));
            return self.tree.make_opaque(&place.dir);
        }
        if name.as_bytes().starts_with(whiteout::META_PREFIX) {
            return Ok(());
        }
        let hidden = name.as_bytes().strip_prefix(whiteout::PREFIX).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ImageError::archive(&entry.path, "whiteout without a name"));
        }
        let hidden = OsStr::from_bytes(hidden);
        let mut place = self.tree.enter_all(names)?;
        self.times.extend(place.made.drain(..));
        match place.dir.stat(hidden, Follow::No)? {
            None => place.dir.mknod(hidden, FileKind::CharDevice, 0, 0)?,
            Some(found) if found.is_dir() => {
                self.tree.make_opaque(&place.dir.enter(hidden)?)?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn make(
        &mut self,
        entry: &Entry,
        place: &Place,
        name: &OsStr,
        content: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let dir = &place.dir;
        match entry.kind {
            EntryKind::File => return self.file(entry, place, name, content),
            EntryKind::Directory => return self.directory(entry, place, name),
            EntryKind::HardLink => return self.hard_link(entry, place, name),
            EntryKind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                replacing(dir, name, || dir.symlink(target, name))?;
            }
            EntryKind::Fifo => {
                replacing(dir, name, || dir.mknod(name, FileKind::Fifo, entry.mode, 0))?;
            }
            EntryKind::CharDevice | EntryKind::BlockDevice => {
                if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
                    let problem = "device 0:0, which overlay takes for a deletion";
                    return Err(ImageError::archive(&entry.path, problem));
                }
                if self.options.devices == Devices::Skip {
                    self.done.skipped_devices += 1;
                    return Ok(());
                }
                let kind = match entry.kind {
                    EntryKind::CharDevice => FileKind::CharDevice,
                    _ => FileKind::BlockDevice,
                };
                let rdev = rustix::fs::makedev(entry.device.0, entry.device.1);
                replacing(dir, name, || dir.mknod(name, kind, entry.mode, rdev))?;
            }
        }
        if let Some((uid, gid)) = self.owner(entry) {
            dir.set_owner(name, uid, gid)?;
            // chown takes setuid and setgid away; a link has no mode of its own.
            if entry.kind != EntryKind::Symlink && entry.mode & 0o6000 != 0 {
                dir.set_mode(name, entry.mode)?;
            }
        }
        dir.set_times(name, entry.mtime, entry.mtime)?;
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Entry,
        place: &Place,
        name: &OsStr,
        content: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let total = self.done.bytes.saturating_add(entry.size);
        if let Some(max) = self.options.max_bytes.filter(|max| total > *max) {
            return Err(ImageError::archive(
                &entry.path,
                format!("more than {max} bytes unpacked"),
            ));
        }
        self.done.bytes = total;
        let shown = String::from_utf8_lossy(&entry.path);
        // Private until it has its owner.
        let mut file = replacing(&place.dir, name, || place.dir.create_file(name, 0o600))?;
        match &entry.sparse {
            Some(segments) => {
                self.copier.copy_sparse(content, &mut file, segments, entry.size, &shown)?;
            }
            None => {
                self.copier.copy(content, &mut file, &shown)?;
            }
        }
        let xattrs: Vec<_> =
            entry.xattrs.iter().filter(|(name, _)| content::may_set(name)).cloned().collect();
        content::dress(&file, self.owner(entry), entry.mode, &xattrs, entry.mtime)
            .map_err(|errno| ImageError::write(shown)(errno.into()))?;
        // Trees are unpacked to be synced.
        if entry.size >= content::WRITE_BACK_MIN {
            begin_write_back(&file);
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, place: &Place, name: &OsStr) -> Result<(), ImageError> {
        let dir = &place.dir;
        let found = dir.stat(name, Follow::No)?;
        let exists = found.as_ref().is_some_and(|found| found.is_dir());
        if !exists {
            if found.is_some() {
                dir.remove(name)?;
            }
            dir.create_dir(name, NewDirs { mode: 0o700, owner: None })?;
            if found.is_some() {
                // What a file or a whiteout hid must not come back through the new directory.
                self.tree.make_opaque(&dir.enter(name)?)?;
            }
        }
        if let Some((uid, gid)) = self.owner(entry) {
            dir.set_owner(name, uid, gid)?;
        }
        dir.set_mode(name, entry.mode)?;
        for (attribute, value) in &entry.xattrs {
            if attribute.starts_with(b"user.")
                && content::may_set(attribute)
                && let Ok(attribute) = std::str::from_utf8(attribute)
            {
                match dir.set_xattr(name, attribute, value) {
                    Err(error) if error.errno() != Some(Errno::NOTSUP) => return Err(error.into()),
                    _ => {}
                }
            }
        }
        let mut real = place.real.clone();
        real.push(name.to_owned());
        self.times.insert(place::joined(&real), entry.mtime);
        Ok(())
    }

    /// A hard link's own entry says what the file is from now on, as for containerd. Only what
    /// differs is set: a new owner takes away what the file may do.
    fn dress_again(
        &self,
        entry: &Entry,
        dir: &Root,
        name: &OsStr,
        found: &Metadata,
    ) -> Result<(), ImageError> {
        let owner = self.owner(entry).filter(|owner| *owner != (found.uid, found.gid));
        if let Some((uid, gid)) = owner {
            dir.set_owner(name, uid, gid)?;
        }
        if owner.is_some() || entry.mode != found.mode {
            dir.set_mode(name, entry.mode)?;
        }
        dir.set_times(name, entry.mtime, entry.mtime)?;
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place, name: &OsStr) -> Result<(), ImageError> {
        let missing = || ImageError::archive(&entry.path, "hard link to nothing in this tree");
        let mut target = place::names(&entry.link);
        let target_name = target.pop().ok_or_else(missing)?;
        let mut from = self.tree.enter_all(&target)?;
        self.times.extend(from.made.drain(..));
        let found = match from.dir.stat(&target_name, Follow::No)? {
            Some(found) => Some(found),
            None if self.tree.copy_up(&from, &target_name, &mut self.copier)? => {
                from.dir.stat(&target_name, Follow::No)?
            }
            None => None,
        };
        let found = found.filter(|found| !self.tree.is_whiteout(found)).ok_or_else(missing)?;
        let same = from.real == place.real && target_name == name;
        match found.kind {
            _ if same => Ok(()),
            FileKind::Regular => {
                let link = || from.dir.hard_link_between(&target_name, &place.dir, name);
                replacing(&place.dir, name, link)?;
                self.dress_again(entry, &place.dir, name, &found)
            }
            // A second link with the same target is as good, and nothing is linked to.
            FileKind::Symlink => {
                let link = from.dir.read_link(&target_name)?;
                replacing(&place.dir, name, || place.dir.symlink(&link, name))?;
                if self.options.ownership != Ownership::Caller {
                    place.dir.set_owner(name, found.uid, found.gid)?;
                }
                place.dir.set_times(name, found.mtime, found.mtime)?;
                Ok(())
            }
            other => Err(ImageError::archive(&entry.path, format!("hard link to a {other}"))),
        }
    }

    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        match self.options.ownership {
            Ownership::Archive => Some((entry.uid, entry.gid)),
            Ownership::Caller => None,
            Ownership::Fixed { uid, gid } => Some((uid, gid)),
        }
    }
}

fn is_marker(name: &OsStr) -> bool {
    name.as_bytes().starts_with(whiteout::PREFIX)
}

/// Runs `make`, which replaces anything but a directory; a directory in the way is removed first.
fn replacing<T>(
    dir: &Root,
    name: &OsStr,
    make: impl Fn() -> Result<T, RootedError>,
) -> Result<T, RootedError> {
    match make() {
        Err(error) if error.errno() == Some(Errno::ISDIR) => {
            dir.remove_all(name)?;
            make()
        }
        other => other,
    }
}
