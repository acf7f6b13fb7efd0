//! Writing the files of one directory, each below two held descriptors.

use std::fs::File;
use std::path::Path;

use rbuild_rooted::{FileKind, NewDirs, Root, Time};
use rbuild_types::CancelToken;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};

use super::apply::Ownership;
use super::chmod::Chmod;
use super::content::{self, Content, Copier};
use super::error::CopyError;
use super::place::failed;
use super::tree::{Entry, SourceTree, shown};

/// Mode of directories that are made for a destination.
const DIRECTORY_MODE: u32 = 0o755;

/// What the instruction makes of owners and modes.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) chmod: Option<&'a Chmod>,
    pub(super) chown: Option<(u32, u32)>,
    pub(super) ownership: Ownership,
    /// Whose what this process makes is anyway.
    pub(super) process: (u32, u32),
}

impl Attributes<'_> {
    pub(super) fn for_new_dirs(&self) -> NewDirs {
        let mode = self.chmod.map_or(DIRECTORY_MODE, |chmod| chmod.for_new_dirs(DIRECTORY_MODE));
        let owner = match self.ownership {
            Ownership::Set => Some(self.chown.unwrap_or((0, 0))),
            Ownership::Leave => None,
        };
        NewDirs { mode, owner }
    }

    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        let directory = entry.kind == FileKind::Directory;
        self.chmod.map_or(entry.mode, |chmod| chmod.apply(entry.mode, directory))
    }

    /// The owner to set, `None` when a new file has it already. `inherits` says that the
    /// directory gives its own group to what is made in it.
    pub(super) fn owner(&self, entry: &Entry, inherits: bool) -> Option<(u32, u32)> {
        let owner = self.chown.unwrap_or((entry.uid, entry.gid));
        match self.ownership {
            Ownership::Leave => None,
            Ownership::Set if owner == self.process && !inherits => None,
            Ownership::Set => Some(owner),
        }
    }
}

/// A source directory and the directory that its files go to.
pub(super) struct Level<'a> {
    pub(super) tree: &'a SourceTree<'a>,
    pub(super) source: &'a Path,
    pub(super) from: &'a Root,
    pub(super) path: &'a Path,
    pub(super) to: &'a Root,
    pub(super) inherits: bool,
    pub(super) attributes: &'a Attributes<'a>,
    pub(super) copier: &'a Copier,
    pub(super) cancel: &'a CancelToken,
}

impl Level<'_> {
    /// Writes one name that is no directory; what was read if it was hashed on the way.
    pub(super) fn write(&self, entry: &Entry, name: &Path) -> Result<Option<Content>, CopyError> {
        let error = |error| failed(&self.path.join(name), error);
        match entry.kind {
            FileKind::Regular => return self.write_file(entry, name),
            FileKind::Symlink => {
                let target = entry.target.as_deref().unwrap_or_default();
                self.to.symlink(target, name).map_err(error)?;
            }
            kind => {
                self.to
                    .mknod(name, kind, self.attributes.mode(entry), entry.rdev)
                    .map_err(error)?;
            }
        }
        if let Some((uid, gid)) = self.attributes.owner(entry, self.inherits) {
            self.to.set_owner(name, uid, gid).map_err(error)?;
            if entry.kind != FileKind::Symlink {
                self.to.set_mode(name, self.attributes.mode(entry)).map_err(error)?;
            }
        }
        self.to.set_times(name, entry.mtime, entry.mtime).map_err(error)?;
        Ok(None)
    }

    fn write_file(&self, entry: &Entry, name: &Path) -> Result<Option<Content>, CopyError> {
        let path = || shown(&self.path.join(name));
        let mode = self.attributes.mode(entry);
        // The source first: when it has gone, nothing is left behind.
        let source = match entry.made_up {
            true => None,
            false => Some(open_file(self.tree, self.from, self.source, entry)?),
        };
        let file = self
            .to
            .create_file(name, mode)
            .map_err(|error| failed(&self.path.join(name), error))?;
        let mut content = None;
        if let Some(source) = source {
            let copied = self.copy(entry, &source, &file);
            content = copied.map_err(|failure| {
                let from = shown(&self.source.join(&entry.name));
                failure.named(&self.tree.name, &from, &path())
            })?;
        }
        let owner = self.attributes.owner(entry, self.inherits);
        dress(&file, owner, mode, Some(entry.mtime))
            .map_err(|errno| CopyError::Write { path: path(), source: errno.into() })?;
        if let Some(value) = &entry.capability {
            // Changing the owner drops it, so it comes last. A file system or user namespace
            // without it is no reason to fail: item 86.
            let flags = rustix::fs::XattrFlags::empty();
            let _ = rustix::fs::fsetxattr(&file, "security.capability", value, flags);
        }
        Ok(content)
    }

    fn copy(
        &self,
        entry: &Entry,
        from: &File,
        to: &File,
    ) -> Result<Option<Content>, content::Failure> {
        // Blocks of 512 bytes; small files may be stored in the inode and look like holes.
        let sparse = entry.size > 4096
            && rustix::fs::fstat(from)
                .is_ok_and(|stat| (stat.st_blocks as u64).saturating_mul(512) < entry.size);
        if self.tree.owner.is_context() {
            return content::copy_hashing(from, to, sparse, self.cancel).map(Some);
        }
        self.copier.copy(from, to, entry.size, sparse, self.cancel)?;
        Ok(None)
    }
}

pub(super) fn open_source(tree: &SourceTree<'_>, directory: &Path) -> Result<Root, CopyError> {
    tree.root.open_real_dir(directory).map_err(|error| {
        if error.is_not_found() {
            return CopyError::Changed { tree: tree.name.clone(), path: shown(directory) };
        }
        CopyError::Source { tree: tree.name.clone(), path: shown(directory), source: error }
    })
}

pub(super) fn open_file(
    tree: &SourceTree<'_>,
    from: &Root,
    directory: &Path,
    entry: &Entry,
) -> Result<File, CopyError> {
    match from.open_seen_file(Path::new(&entry.name)) {
        Ok((file, _)) => Ok(file),
        Err(error) => {
            let (tree, path) = (tree.name.clone(), shown(&directory.join(&entry.name)));
            let swapped = matches!(error, rbuild_rooted::RootedError::WrongKind { .. })
                || error.errno() == Some(rbuild_rooted::Errno::LOOP);
            if swapped || error.is_not_found() {
                return Err(CopyError::Changed { tree, path });
            }
            Err(CopyError::Source { tree, path, source: error })
        }
    }
}

/// Whether the directory gives its group to what is made in it.
pub(super) fn inherits_group(dir: &Root) -> bool {
    dir.metadata().map_or(true, |metadata| metadata.mode & 0o2000 != 0)
}

/// Owner first, because changing it clears setuid and setgid.
pub(super) fn dress(
    file: &File,
    owner: Option<(u32, u32)>,
    mode: u32,
    mtime: Option<Time>,
) -> Result<(), rustix::io::Errno> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // Writing clears them too.
    if mode & 0o6000 != 0 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    if let Some(time) = mtime {
        let time = Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(file, &times)?;
    }
    Ok(())
}
