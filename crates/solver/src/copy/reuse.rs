//! Files that an earlier copy by the same instruction has written already.
//!
//! A file that the earlier tree holds at the same place, with the digest that is wanted and with
//! the very attributes that it would get, is not written again: it shares blocks with that one
//! where the file system can, else it *is* that one, by another name. Snapshots are never written
//! again, so nobody notices.
//!
//! * Each path takes its own earlier inode and never that of a twin, and no inode is taken twice:
//!   files that were two stay two in the layer, whose tar tells links from copies.
//! * The digest is what the listing says of the path; size, owner, mode and time are what the
//!   inode has now. A tree that was tampered with gives no file that looks otherwise.
//! * A directory that hands an access control list down gives nothing and gets nothing: what is
//!   made in it has attributes that nobody asked for.
//! * Names are given in the bare directory of changes once its mounts are closed, because a mount
//!   shares no inode with what is beneath it. So [`super::apply()`] only says which files are left
//!   ([`Left`]) when all others are written. Directories keep the times that they have then.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use rbuild_rooted::{FileKind, Follow, Metadata, Root};
use rbuild_types::{CancelToken, Digest};

use super::apply::Ownership;
use super::content::Copier;
use super::error::CopyError;
use super::level::{Attributes, dress};
use super::listing::Listing;
use super::place::failed;
use super::tree::{Entry, shown};

/// The attribute of a directory from which new files inherit an access control list.
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The tree of an earlier copy.
pub struct Earlier<'a> {
    /// The directory in it that the files are in.
    top: Root,
    /// Their digests, by the path below `top`.
    files: HashMap<&'a Path, Digest>,
    /// Inodes that have been found.
    taken: Mutex<HashSet<u64>>,
}

impl<'a> Earlier<'a> {
    /// `tree` is the directory of changes that the copy of this listing wrote. `None` when it has
    /// nothing to give.
    pub fn new(tree: &Root, listing: &'a Listing) -> Option<Self> {
        let laid = listing.laid.as_ref()?;
        let top = tree.open_real_dir(&laid.into).ok()?;
        let files = listing.files.iter().filter_map(|file| {
            let path = Path::new(&file.path).strip_prefix(&laid.from).ok()?;
            Some((path, file.digest?))
        });
        Some(Self { top, files: files.collect(), taken: Mutex::default() })
    }

    /// What the listing says of a path.
    fn digest(&self, path: &Path) -> Option<Digest> {
        // What is no UTF-8 is listed as something else, with this character.
        let is_listed_so = path.to_str()?.find(char::REPLACEMENT_CHARACTER).is_none();
        self.files.get(path).filter(|_| is_listed_so).copied()
    }

    /// The directory that stands where `to`, at `path`, is being filled.
    pub(super) fn beside<'e>(&'e self, path: &'e Path, to: &Root) -> Option<EarlierDir<'e>> {
        let dir = self.top.open_real_dir(path).ok()?;
        let hands_down = |dir: &Root| !matches!(dir.get_xattr("", DEFAULT_ACL), Ok(None));
        if hands_down(&dir) || hands_down(to) {
            return None;
        }
        // Where a directory has the name of a file, writing the file says so.
        let names = to.read_dir("").ok()?.into_iter();
        let directories = names.filter(|name| name.kind == FileKind::Directory);
        let directories = directories.map(|name| name.name).collect();
        Some(EarlierDir { earlier: self, path, dir, directories })
    }
}

/// One directory of it.
pub(super) struct EarlierDir<'e> {
    earlier: &'e Earlier<'e>,
    path: &'e Path,
    dir: Root,
    directories: HashSet<OsString>,
}

impl EarlierDir<'_> {
    /// Whether the file is here just as it would be written.
    pub(super) fn has(&self, entry: &Entry, attributes: &Attributes<'_>) -> bool {
        // Of a file with several names in the source all of them are written.
        let may_be = entry.kind == FileKind::Regular && entry.links.is_none() && !entry.made_up;
        if !may_be || self.directories.contains(&entry.name) {
            return false;
        }
        let known = self.earlier.digest(&self.path.join(&entry.name));
        if known.is_none() || known != entry.digest {
            return false;
        }
        let Ok(Some(found)) = self.dir.stat(&entry.name, Follow::No) else { return false };
        is_same(&found, entry, attributes)
            && self.earlier.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(found.ino)
    }
}

fn is_same(found: &Metadata, entry: &Entry, attributes: &Attributes<'_>) -> bool {
    found.is_file()
        && attributes.ownership == Ownership::Set
        && (found.uid, found.gid) == attributes.chown.unwrap_or((entry.uid, entry.gid))
        && found.mode == attributes.mode(entry)
        && found.size == entry.size
        && found.mtime == entry.mtime
        && entry.capability.is_none()
}

/// Files that an earlier tree has, of which nothing is written yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// The real path of the directory that the others were written into.
    pub(super) into: PathBuf,
    /// Names by directory below it.
    pub(super) dirs: HashMap<PathBuf, Vec<OsString>>,
}

impl Left {
    /// Gives `tree`, the bare directory of changes, the files of `earlier`.
    ///
    /// # Errors
    /// A failure to write, or a file that is there no longer.
    pub fn lay(
        &self,
        tree: &Root,
        earlier: &Earlier<'_>,
        pool: &rayon::ThreadPool,
        cancel: &CancelToken,
    ) -> Result<(), CopyError> {
        let into = tree.open_real_dir(&self.into).map_err(|error| failed(&self.into, error))?;
        let copier = Copier::default();
        let lay_dir = |(path, names): (&PathBuf, &Vec<OsString>)| {
            cancel.check()?;
            let shown = self.into.join(path);
            let error = |error| failed(&shown, error);
            let from = earlier.top.open_real_dir(path).map_err(error)?;
            let to = into.open_real_dir(path).map_err(error)?;
            let before = to.metadata().map_err(error)?;
            let pair = Pair { from: &from, to: &to, shown: &shown, copier: &copier, cancel };
            names.iter().try_for_each(|name| pair.share(Path::new(name)))?;
            to.set_times("", before.mtime, before.mtime).map_err(error)
        };
        pool.install(|| self.dirs.par_iter().try_for_each(lay_dir))
    }
}

/// A directory of the earlier tree, and the one that becomes like it.
struct Pair<'a> {
    from: &'a Root,
    to: &'a Root,
    shown: &'a Path,
    copier: &'a Copier,
    cancel: &'a CancelToken,
}

impl Pair<'_> {
    /// Makes the file one of both.
    fn share(&self, name: &Path) -> Result<(), CopyError> {
        if self.copier.may_clone() {
            let twin = self.begin(name)?;
            if self.copier.clone_all(&twin.from, &twin.to) {
                return self.finish(name, &twin);
            }
            // What is empty yet is replaced.
        }
        if self.from.hard_link_between(name, self.to, name).is_ok() {
            return Ok(());
        }
        // It has as many names as a file can have.
        let twin = self.begin(name)?;
        self.copier.copy(&twin.from, &twin.to, twin.attributes.size, false, self.cancel).map_err(
            |failure| {
                let path = shown(&self.shown.join(name));
                failure.named("earlier copy", &path, &path)
            },
        )?;
        self.finish(name, &twin)
    }

    fn begin(&self, name: &Path) -> Result<Twin, CopyError> {
        let error = |error| failed(&self.shown.join(name), error);
        let (from, attributes) = self.from.open_seen_file(name).map_err(error)?;
        let to = self.to.create_file(name, attributes.mode).map_err(error)?;
        Ok(Twin { from, to, attributes })
    }

    fn finish(&self, name: &Path, twin: &Twin) -> Result<(), CopyError> {
        let Metadata { uid, gid, mode, mtime, .. } = twin.attributes;
        dress(&twin.to, Some((uid, gid)), mode, Some(mtime)).map_err(|errno| CopyError::Write {
            path: shown(&self.shown.join(name)),
            source: errno.into(),
        })
    }
}

/// A file, and one of its own that becomes like it.
struct Twin {
    from: File,
    to: File,
    attributes: Metadata,
}
