//! Overlay mounts by the file descriptor based mount API.
//!
//! `redirect_dir` and `metacopy` stay off, so that a layer whose author set those xattrs cannot
//! change what the mount shows. Writable mounts are `volatile` as a rule: leaving them costs no sync;
//! who records a result syncs the store once. `lowerdir+` (Linux 6.7) takes one layer at a time and
//! knows no length limit.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::SnapshotError;

/// Lower directories that one overlay takes (`OVL_MAX_STACK` in the kernel).
pub const MAX_LAYERS: usize = 500;

/// A snapshot that is being written.
///
/// `upper` ends up holding the changes; `work` is the kernel's own. Both lie on one filesystem.
#[derive(Debug)]
pub struct Active {
    upper: PathBuf,
    work: PathBuf,
    lowers: Vec<PathBuf>,
}

impl Active {
    /// Prepares a writable snapshot in `directory`, on top of `lowers` (bottom first). Makes
    /// `fs/` and `work/` in it when they are missing.
    ///
    /// What `/` of the mount looks like is said by the upper directory, whatever is below, so it
    /// gets mode and owner of the topmost layer and not what the caller's umask would give.
    pub fn new(directory: &Path, lowers: Vec<PathBuf>) -> Result<Self, SnapshotError> {
        let active = Self { upper: directory.join("fs"), work: directory.join("work"), lowers };
        for path in [&active.upper, &active.work] {
            fs_err::create_dir_all(path).map_err(failed(path))?;
        }
        let upper = &active.upper;
        let (mode, owner) = match active.lowers.last() {
            Some(top) => {
                let metadata = fs_err::metadata(top).map_err(failed(top))?;
                (metadata.mode() & 0o7777, Some((metadata.uid(), metadata.gid())))
            }
            None => (0o755, None),
        };
        if let Some((uid, gid)) = owner
            && fs_err::metadata(upper).is_ok_and(|made| (made.uid(), made.gid()) != (uid, gid))
        {
            std::os::unix::fs::chown(upper, Some(uid), Some(gid)).map_err(failed(upper))?;
        }
        let mode = std::fs::Permissions::from_mode(mode);
        fs_err::set_permissions(upper, mode).map_err(failed(upper))?;
        Ok(active)
    }

    /// Where the changes are.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Mounts it, detached. It is written lazily: leaving the mount costs no sync, programs that
    /// ask for one inside get none, and it can be mounted once.
    pub fn mount(&self) -> Result<OwnedFd, SnapshotError> {
        overlay(&distinct(&self.lowers), Some((&self.upper, &self.work)), Writes::Lazy)
    }

    /// Mounts it, detached, so that what a program inside syncs survives a crash of the machine,
    /// and so that it can be mounted again. Leaving the mount costs a sync of the filesystem.
    pub fn mount_lasting(&self) -> Result<OwnedFd, SnapshotError> {
        overlay(&distinct(&self.lowers), Some((&self.upper, &self.work)), Writes::Synced)
    }

    /// Ends the writing: the kernel's own directory goes, the changes stay.
    pub fn finish(self) -> Result<(), SnapshotError> {
        // The kernel leaves `work/work` with mode 000, which only root can list.
        let inner = self.work.join("work");
        if let Ok(metadata) = fs_err::symlink_metadata(&inner)
            && metadata.is_dir()
        {
            let readable = std::fs::Permissions::from_mode(0o700);
            fs_err::set_permissions(&inner, readable).map_err(failed(&inner))?;
        }
        fs_err::remove_dir_all(&self.work).map_err(failed(&self.work))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Directory { path, source }
}

/// Mounts `layers` (bottom first) read-only, detached. At least one is needed.
pub fn view(layers: &[PathBuf]) -> Result<OwnedFd, SnapshotError> {
    match distinct(layers).as_slice() {
        // An overlay wants two layers; a directory stands for itself.
        [only] => bind(only),
        layers => overlay(layers, None, Writes::Lazy),
    }
}

/// The layers without those that come again further up: the kernel refuses a directory that is
/// twice in a stack, and the upper one hides all that the lower one shows.
fn distinct(layers: &[PathBuf]) -> Vec<&Path> {
    let mut seen = HashSet::new();
    let mut distinct: Vec<_> = layers
        .iter()
        .rev()
        .filter(|layer| match fs_err::metadata(layer) {
            Ok(metadata) => seen.insert((metadata.dev(), metadata.ino())),
            // The mount will tell.
            Err(_) => true,
        })
        .map(PathBuf::as_path)
        .collect();
    distinct.reverse();
    distinct
}

/// Opens a detached copy of the mounts below `path`, which shows `path` as its root.
pub fn bind(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).map_err(|errno| SnapshotError::Mount {
        what: path.display().to_string(),
        action: "open_tree",
        source: errno.into(),
    })
}

/// Whether syncs reach the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writes {
    Lazy,
    Synced,
}

fn overlay(
    lowers: &[&Path],
    upper: Option<(&Path, &Path)>,
    writes: Writes,
) -> Result<OwnedFd, SnapshotError> {
    if lowers.len() > MAX_LAYERS {
        return Err(SnapshotError::TooManyLayers { count: lowers.len() });
    }
    let failed = |action: &'static str| {
        move |errno: rustix::io::Errno| SnapshotError::Mount {
            what: "an overlay".to_owned(),
            action,
            source: errno.into(),
        }
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
    let context = context.as_fd();
    // The topmost layer comes first.
    for layer in lowers.iter().rev() {
        fsconfig_set_string(context, "lowerdir+", *layer).map_err(failed("lowerdir"))?;
    }
    let mut attributes = MountAttrFlags::empty();
    match upper {
        Some((upper, work)) => {
            fsconfig_set_string(context, "upperdir", upper).map_err(failed("upperdir"))?;
            fsconfig_set_string(context, "workdir", work).map_err(failed("workdir"))?;
            if writes == Writes::Lazy {
                fsconfig_set_flag(context, "volatile").map_err(failed("volatile"))?;
            }
        }
        None => attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY,
    }
    fsconfig_set_string(context, "redirect_dir", "nofollow").map_err(failed("redirect_dir"))?;
    fsconfig_set_string(context, "metacopy", "off").map_err(failed("metacopy"))?;
    fsconfig_set_string(context, "index", "off").map_err(failed("index"))?;
    fsconfig_create(context).map_err(failed("create"))?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed("fsmount"))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, openat};
    use std::io::Write as _;
    use std::os::fd::BorrowedFd;

    use super::*;

    fn root_or_say() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("skipped: mounting needs root");
        }
        root
    }

    fn read(root: BorrowedFd<'_>, name: &str) -> Option<String> {
        let file = openat(root, name, OFlags::RDONLY, Mode::empty()).ok()?;
        std::io::read_to_string(fs_err::File::from_parts(file.into(), name)).ok()
    }

    #[test]
    fn changes_land_in_the_upper_directory_and_no_mount_is_seen() {
        if !root_or_say() {
            return;
        }
        let store = tempfile::tempdir().unwrap();
        let base = store.path().join("base");
        fs_err::create_dir_all(&base).unwrap();
        fs_err::write(base.join("kept"), "kept").unwrap();
        fs_err::write(base.join("gone"), "gone").unwrap();
        let active = Active::new(&store.path().join("active"), vec![base.clone()]).unwrap();
        {
            let root = active.mount().unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE;
            let file = openat(&root, "new", flags, Mode::from_raw_mode(0o644)).unwrap();
            std::fs::File::from(file).write_all(b"new").unwrap();
            rustix::fs::unlinkat(&root, "gone", rustix::fs::AtFlags::empty()).unwrap();
            let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(store.path().to_str().unwrap()));
        }
        let upper = active.upper().to_owned();
        active.finish().unwrap();
        assert!(!store.path().join("active/work").exists());

        let root = view(&[base, upper.clone()]).unwrap();
        assert_eq!(read(root.as_fd(), "kept").as_deref(), Some("kept"));
        assert_eq!(read(root.as_fd(), "new").as_deref(), Some("new"));
        assert_eq!(read(root.as_fd(), "gone"), None);
        let denied = openat(&root, "x", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR);
        assert_eq!(denied.unwrap_err(), rustix::io::Errno::ROFS);
    }

    #[test]
    fn of_a_layer_that_comes_twice_the_upper_one_shows() {
        if !root_or_say() {
            return;
        }
        let store = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| {
            let path = store.path().join(name);
            fs_err::create_dir_all(&path).unwrap();
            fs_err::write(path.join("file"), name).unwrap();
            path
        });
        let other_name = store.path().join("link");
        std::os::unix::fs::symlink(&one, &other_name).unwrap();
        let root = view(&[one.clone(), two, other_name.clone()]).unwrap();
        assert_eq!(read(root.as_fd(), "file").as_deref(), Some("one"));
        let root = view(&[one, other_name]).unwrap();
        assert_eq!(read(root.as_fd(), "file").as_deref(), Some("one"));
    }

    #[test]
    fn five_hundred_layers_stack_and_one_more_is_refused() {
        if !root_or_say() {
            return;
        }
        let store = tempfile::tempdir().unwrap();
        let layer = |number: usize| {
            let path = store.path().join(format!("layer-{number:04}-{}", "x".repeat(100)));
            fs_err::create_dir_all(&path).unwrap();
            fs_err::write(path.join("top"), number.to_string()).unwrap();
            path
        };
        let mut layers: Vec<_> = (0..MAX_LAYERS).map(layer).collect();
        assert_eq!(read(view(&layers).unwrap().as_fd(), "top").as_deref(), Some("499"));
        layers.push(layer(MAX_LAYERS));
        assert!(matches!(view(&layers), Err(SnapshotError::TooManyLayers { count: 501 })));
    }
}
