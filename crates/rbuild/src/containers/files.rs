//! A container's files, whether it runs or not.
//!
//! Those of one that runs are seen as its process sees them, with all that is mounted there: through
//! the root of that process, which is held and known to be its own. Those of one that does not run
//! are mounted for the purpose, as its supervisor would, and kept from starting meanwhile by its lock.
//! Nothing can be attached to a mount that nobody sees (before Linux 6.15), so a path that leads into
//! a volume is opened there, and what is mounted below it is named to whoever copies.

use std::fs::File;
use std::path::{Path, PathBuf};

use rbuild_cache::{HeldVolume, Hold};
use rbuild_rooted::{Follow, Root};
use rbuild_snapshot::Active;
use rbuild_types::CancelToken;

use super::{Container, MountRecord, MountedFrom};
use crate::BuildError;

/// What files are opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read.
    Read,
    /// To be written.
    Write,
}

/// Something that is mounted in the container and does not show, because that does not run.
#[derive(Debug)]
pub(crate) struct Hidden {
    /// Where the container has it.
    pub(crate) target: String,
    /// The same from the root that was opened.
    pub(crate) path: PathBuf,
}

/// A place among a container's files.
#[derive(Debug)]
pub(crate) struct ContainerFiles {
    /// The container's root, or that of a volume.
    pub(crate) root: Root,
    /// The place, from that root.
    pub(crate) path: PathBuf,
    /// What is mounted below the root and does not show.
    pub(crate) hidden: Vec<Hidden>,
    /// What keeps the container from starting.
    _lock: Option<File>,
    /// What keeps the volume from being removed.
    _volume: Option<HeldVolume>,
}

impl Container {
    /// Opens a path, which is absolute.
    pub(crate) fn files(
        &self,
        path: &str,
        access: Access,
        cancel: &CancelToken,
    ) -> Result<ContainerFiles, BuildError> {
        if let Some(root) = self.live_root()? {
            let path = path.into();
            let hidden = Vec::new();
            return Ok(ContainerFiles { root, path, hidden, _lock: None, _volume: None });
        }
        let lock = self.take_lock("it is being started or removed: try again")?;
        let root = self.still_root(access)?;
        let found = self.mounted_at(&root, path)?;
        let hidden = self.hidden(&root, found.as_ref().map(|(mount, _)| *mount))?;
        let (root, path, volume) = match found {
            None if access == Access::Write && self.record.spec.read_only => {
                return Err(self.refused("its root filesystem is read-only"));
            }
            None => (root, PathBuf::from(path), None),
            Some((mount, _)) if access == Access::Write && mount.read_only => {
                return Err(
                    self.refused(&format!("what is mounted at {} is read-only", mount.target))
                );
            }
            Some((mount, rest)) => self.open_mounted(mount, &rest, cancel)?,
        };
        Ok(ContainerFiles { root, path, hidden, _lock: Some(lock), _volume: volume })
    }

    fn refused(&self, why: &str) -> BuildError {
        BuildError::Conflict { message: format!("container {}: {why}", self.record.name) }
    }

    /// The root filesystem without volumes. To be written only if the container does not run, for who
    /// holds its lock; what one that runs changes meanwhile may be seen or not.
    pub(super) fn still_root(&self, access: Access) -> Result<Root, BuildError> {
        let mut lowers = self.lowers()?;
        let mount = match access {
            Access::Write => Active::new(&self.directory, lowers)?.mount_lasting()?,
            Access::Read => {
                lowers.extend(Some(self.upper()).filter(|upper| upper.exists()));
                rbuild_snapshot::view(&lowers)?
            }
        };
        Ok(Root::from_fd(mount))
    }

    /// Where its changes are.
    pub(super) fn upper(&self) -> PathBuf {
        self.directory.join("fs")
    }

    /// The innermost mount that a path leads into, and the path from there.
    fn mounted_at(
        &self,
        root: &Root,
        path: &str,
    ) -> Result<Option<(&MountRecord, PathBuf)>, BuildError> {
        let place = root.resolve(path, Follow::Yes)?.path;
        let mut found: Option<(&MountRecord, PathBuf, usize)> = None;
        for mount in &self.record.mounts {
            let target = root.resolve(&mount.target, Follow::Yes)?.path;
            let depth = target.components().count();
            if let Ok(rest) = place.strip_prefix(&target)
                && found.as_ref().is_none_or(|(_, _, other)| depth >= *other)
            {
                found = Some((mount, rest.to_owned(), depth));
            }
        }
        Ok(found.map(|(mount, rest, _)| (mount, rest)))
    }

    /// What is mounted below a mount, or else below the root.
    fn hidden(&self, root: &Root, below: Option<&MountRecord>) -> Result<Vec<Hidden>, BuildError> {
        let place = |target: &str| root.resolve(target, Follow::Yes).map(|found| found.path);
        let top = below.map_or(Ok(PathBuf::from("/")), |mount| place(&mount.target))?;
        let mut hidden = Vec::new();
        for mount in &self.record.mounts {
            if let Ok(rest) = place(&mount.target)?.strip_prefix(&top)
                && !rest.as_os_str().is_empty()
            {
                let path = Path::new("/").join(rest);
                hidden.push(Hidden { target: mount.target.clone(), path });
            }
        }
        Ok(hidden)
    }

    /// Opens what is mounted.
    fn open_mounted(
        &self,
        mount: &MountRecord,
        rest: &Path,
        cancel: &CancelToken,
    ) -> Result<(Root, PathBuf, Option<HeldVolume>), BuildError> {
        let (path, volume) = match &mount.source {
            MountedFrom::Path(path) => (path.clone(), None),
            MountedFrom::Anonymous(name) => (self.directory.join(name), None),
            MountedFrom::Volume { name, .. } => {
                let held = self.store.volumes().take(name, Hold::Shared, cancel)?;
                (held.path().to_owned(), Some(held))
            }
        };
        match (path.parent(), path.file_name()) {
            // A file of the host.
            (Some(parent), Some(name)) if !path.is_dir() => {
                Ok((Root::open(parent)?, Path::new("/").join(name), volume))
            }
            _ => Ok((Root::open(&path)?, Path::new("/").join(rest), volume)),
        }
    }
}
