//! What a container changed in its root filesystem: its upper directory, read as it lies.
//!
//! Directories and files that were made only to mount something over them are no change of the
//! container's, unless it put something beside what is mounted, or gave a directory another owner,
//! mode or attribute.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rbuild_image::layer::{PackOptions, TreeForm, pack};
use rbuild_rooted::{FileKind, Follow, Metadata, Root};
use rbuild_sandbox::MountSource;
use rbuild_types::CancelToken;

use super::{Access, Container};
use crate::{BuildError, Destination, Engine, export};

/// Marks a directory of an overlay that hides what is below it.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Before the names of what an overlay notes for itself.
const OVERLAY: &str = "trusted.overlay.";
/// Where a sandbox always mounts something.
const ALWAYS_MOUNTED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A path that a container changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerChange {
    /// Absolute inside.
    pub path: PathBuf,
    /// In what way.
    pub kind: ContainerChangeKind,
}

/// In what way a path was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerChangeKind {
    /// It is there and was not.
    Added,
    /// It was there and is another, or has others in it.
    Changed,
    /// It was there and is not.
    Deleted,
}

/// All changes, and those that mounting made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) own: Vec<ContainerChange>,
    /// Paths that were made to be mounted over; parents first.
    pub(super) made: Vec<PathBuf>,
}

impl Container {
    /// What the container changed in its root filesystem, by path. Volumes do not count.
    ///
    /// # Errors
    ///
    /// When its files cannot be read.
    pub fn changes(&self, cancel: &CancelToken) -> Result<Vec<ContainerChange>, BuildError> {
        Ok(self.all_changes(cancel)?.own)
    }

    pub(super) fn all_changes(&self, cancel: &CancelToken) -> Result<Changes, BuildError> {
        let upper = self.upper();
        if !upper.exists() {
            return Ok(Changes::default());
        }
        let upper = Root::open(upper)?;
        let lower = Root::from_fd(rbuild_snapshot::view(&self.lowers()?)?);
        let mut found = Vec::new();
        let mut pending = vec![(PathBuf::from("/"), true)];
        while let Some((path, has_lower)) = pending.pop() {
            cancel.check()?;
            let dir = upper.open_real_dir(&path)?;
            let is_opaque = dir.get_xattr("", OPAQUE)?.is_some();
            let below = match has_lower {
                true => lower.read_dir(&path).unwrap_or_default(),
                false => Vec::new(),
            };
            let was = |name: &std::ffi::OsStr| below.iter().find(|entry| entry.name == name);
            let entries = dir.read_dir("")?;
            if is_opaque {
                let names: HashSet<_> = entries.iter().map(|entry| &entry.name).collect();
                for gone in below.iter().filter(|entry| !names.contains(&entry.name)) {
                    let kind = ContainerChangeKind::Deleted;
                    found.push(Found::new(path.join(&gone.name), kind));
                }
            }
            for entry in &entries {
                let at = path.join(&entry.name);
                // It may be gone since.
                let Some(stat) = dir.stat(&entry.name, Follow::No)? else { continue };
                let before = was(&entry.name);
                let is_whiteout = stat.kind == FileKind::CharDevice && stat.rdev == 0;
                let kind = match (is_whiteout, before) {
                    (true, None) => continue,
                    (true, Some(_)) => ContainerChangeKind::Deleted,
                    (false, None) => ContainerChangeKind::Added,
                    (false, Some(_)) => ContainerChangeKind::Changed,
                };
                let mut change = Found::new(at.clone(), kind);
                if stat.is_dir() {
                    let same = before.is_some_and(|it| it.kind == FileKind::Directory);
                    let lower = if same { Some(lower.open_real_dir(&at)?) } else { None };
                    change.is_bare_dir = is_bare(&dir.enter(&entry.name)?, lower.as_ref())?;
                    pending.push((at, same));
                }
                change.is_empty_file = stat.kind == FileKind::Regular && stat.size == 0;
                found.push(change);
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.sorted_out(found))
    }

    /// Tells changes from what mounting made.
    fn sorted_out(&self, found: Vec<Found>) -> Changes {
        let targets = self.record.mounts.iter().map(|mount| mount.target.as_str());
        let memory = self.record.spec.mounts.iter();
        let memory = memory.filter(|it| matches!(it.source, MountSource::Tmpfs { .. }));
        let targets: Vec<PathBuf> = targets
            .chain(memory.map(|mount| mount.target.as_str()))
            .chain(ALWAYS_MOUNTED)
            .map(|target| Path::new("/").join(target.trim_matches('/')))
            .collect();
        let mut changes = Changes::default();
        // Those in which something is that counts.
        let mut filled: HashSet<PathBuf> = HashSet::new();
        for Found { path, kind, is_bare_dir, is_empty_file } in found.into_iter().rev() {
            let is_target = targets.contains(&path);
            let is_above =
                targets.iter().any(|target| target != &path && target.starts_with(&path));
            let may_be_made = match (kind, is_bare_dir) {
                (ContainerChangeKind::Added, true) => is_target || is_above,
                (ContainerChangeKind::Changed, true) => is_above,
                (ContainerChangeKind::Added, false) => is_target && is_empty_file,
                _ => false,
            };
            if may_be_made && !filled.contains(&path) {
                changes.made.push(path);
                continue;
            }
            filled.extend(path.parent().map(Path::to_owned));
            changes.own.push(ContainerChange { path, kind });
        }
        changes.own.reverse();
        changes.made.reverse();
        changes
    }
}

impl Engine {
    /// Writes a container's root filesystem as a tar, without what is mounted in it.
    ///
    /// # Errors
    ///
    /// When files cannot be read, or the tar cannot be written.
    pub fn export_container(
        &self,
        container: &str,
        destination: &Destination,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let root = self.container(container)?.still_root(Access::Read)?;
        let options = PackOptions { form: TreeForm::Plain, ..PackOptions::default() };
        export::to(destination, &mut |sink| {
            pack(&root, &options, sink, cancel)?;
            Ok(())
        })
    }
}

/// A change on the way.
struct Found {
    path: PathBuf,
    kind: ContainerChangeKind,
    /// Whether it is a directory of which only the entries may be another's work.
    is_bare_dir: bool,
    is_empty_file: bool,
}

impl Found {
    fn new(path: PathBuf, kind: ContainerChangeKind) -> Self {
        Self { path, kind, is_bare_dir: false, is_empty_file: false }
    }
}

/// Whether a directory is as mounting makes it: as it was in the image, or root's and 0755.
fn is_bare(upper: &Root, lower: Option<&Root>) -> Result<bool, BuildError> {
    let facts = |dir: &Root| -> Result<_, BuildError> {
        let stat = dir.stat("", Follow::No)?;
        let own = |it: Metadata| (it.mode, it.uid, it.gid);
        let mut attributes = Vec::new();
        for name in dir.list_xattrs("")? {
            if let Some(name) = name.to_str().filter(|name| !name.starts_with(OVERLAY)) {
                attributes.push((name.to_owned(), dir.get_xattr("", name)?));
            }
        }
        Ok((stat.map(own), attributes))
    };
    Ok(match lower {
        Some(lower) => facts(upper)? == facts(lower)?,
        None => facts(upper)? == (Some((0o755, 0, 0)), Vec::new()),
    })
}
