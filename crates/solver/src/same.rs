//! Early cutoff: a step that ran and made what an earlier one made upon the same root filesystem.
//!
//! The new tree is compared with the earlier ones before it is published. Names and attributes
//! come first and contents last, so trees that differ, as most do, cost little more than a look;
//! no tree is hashed. What counts is what a layer's tar holds (`rbuild_image::layer::pack`): not
//! nanoseconds, not attributes that belong to the machine.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use rbuild_cache::SnapshotId;
use rbuild_rooted::{FileKind, Follow, Metadata, Root, RootedError};
use rbuild_types::{CancelToken, Digest};

use crate::error::StepError;
use crate::key;
use crate::world::World;

/// Earlier results that are looked at.
const CANDIDATES: usize = 8;
/// Bytes that are compared at a time.
const BLOCK: usize = 128 << 10;

/// What makes a file another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cutoff {
    /// All that a layer holds, times included.
    #[default]
    Bytes,
    /// All but the times of files: the earlier result then takes the place of the new one.
    Content,
}

/// Where earlier results of a step are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The step's own key, under which there may be a result that was not to be used.
    pub(crate) key: Digest,
    /// The word of its operation: steps of others keep other notes of what they were made of.
    pub(crate) kind: &'static str,
    /// Of a copy, the instruction as its key has it. Of one instruction other files make another
    /// tree: that need not be looked at, and to look at fifty thousand files takes its time.
    pub(crate) copy: Option<serde_json::Value>,
    /// The latest time that its files may have: the times of an earlier result then count.
    pub(crate) latest: Option<i64>,
    /// The key of what it builds upon.
    pub(crate) root: Option<Digest>,
    /// The snapshot that this is: a step that ran twice may have made two.
    pub(crate) parent: Option<SnapshotId>,
}

/// An earlier result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Same {
    /// The key that stands for it: of the first step that had it.
    pub(crate) key: Digest,
    pub(crate) snapshot: SnapshotId,
}

/// An earlier result that `tree` is the same as.
pub(crate) fn find(
    world: &World<'_>,
    place: &Place,
    tree: &Root,
    cancel: &CancelToken,
) -> Result<Option<Same>, StepError> {
    let records = world.store.records();
    let cutoff = if place.latest.is_some() { Cutoff::Bytes } else { world.cutoff };
    let mut candidates = vec![place.key];
    if let Some(root) = &place.root {
        let others = records.by_root(root, CANDIDATES)?.into_iter();
        let others = others.filter(|other| {
            let selects_others =
                place.copy.as_ref().is_some_and(|copy| *copy == other.inputs[key::STEP]);
            other.op == place.kind && other.key != place.key && !selects_others
        });
        candidates.extend(others.map(|other| other.key));
    }
    for key in candidates {
        // Asked for by its key it stays while this build runs.
        let Some(record) = records.get(&key)? else { continue };
        let Some(snapshot) = record.snapshot else { continue };
        let meta = world.store.snapshots().meta(&snapshot)?.map(|found| found.meta);
        if meta.is_none_or(|meta| meta.parent != place.parent) {
            continue;
        }
        let earlier = Root::open(world.store.snapshots().path(&snapshot).join("fs"))?;
        let pair = Pair { one: tree, other: &earlier, cutoff, cancel };
        if pair.is_same()? {
            return Ok(Some(Same { key: record.same_as.unwrap_or(key), snapshot }));
        }
    }
    Ok(None)
}

/// Two trees.
struct Pair<'a> {
    one: &'a Root,
    other: &'a Root,
    cutoff: Cutoff,
    cancel: &'a CancelToken,
}

/// A file's device and inode.
type Inode = (u64, u64);

/// Which files of the one tree are which of the other, where files have several names.
#[derive(Default)]
struct Links {
    there: HashMap<Inode, Inode>,
    back: HashMap<Inode, Inode>,
}

impl Links {
    /// Whether two names may be of the same file, given those that were seen.
    fn agree(&mut self, one: &Metadata, other: &Metadata) -> bool {
        if one.nlink < 2 && other.nlink < 2 {
            return true;
        }
        let (a, b) = ((one.dev, one.ino), (other.dev, other.ino));
        *self.there.entry(a).or_insert(b) == b && *self.back.entry(b).or_insert(a) == a
    }
}

impl Pair<'_> {
    fn is_same(&self) -> Result<bool, StepError> {
        let mut contents = Vec::new();
        let mut links = Links::default();
        let mut pending = vec![PathBuf::new()];
        let (one, other) = (self.one.metadata()?, self.other.metadata()?);
        // The top's time is in no layer.
        if (one.mode, one.uid, one.gid) != (other.mode, other.uid, other.gid) {
            return Ok(false);
        }
        while let Some(path) = pending.pop() {
            self.cancel.check()?;
            let (one, other) = (self.one.open_real_dir(&path)?, self.other.open_real_dir(&path)?);
            if opacity(&one)? != opacity(&other)? {
                return Ok(false);
            }
            let Some(names) = self.names(&one, &other)? else { return Ok(false) };
            for (name, kind) in names {
                let (Some(a), Some(b)) =
                    (one.stat(&name, Follow::No)?, other.stat(&name, Follow::No)?)
                else {
                    return Ok(false);
                };
                let alike = self.is_alike(&a, &b) && links.agree(&a, &b);
                if !alike || !same_leaf(&one, &other, &name, kind)? {
                    return Ok(false);
                }
                match kind {
                    FileKind::Directory => pending.push(path.join(&name)),
                    FileKind::Regular if a.size > 0 && (a.dev, a.ino) != (b.dev, b.ino) => {
                        contents.push(path.join(&name));
                    }
                    _ => {}
                }
            }
        }
        for path in &contents {
            self.cancel.check()?;
            if !self.same_bytes(path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is in both directories; `None` when that differs.
    fn names(
        &self,
        one: &Root,
        other: &Root,
    ) -> Result<Option<Vec<(OsString, FileKind)>>, StepError> {
        let list = |dir: &Root| {
            let mut names: Vec<_> =
                dir.read_dir("")?.into_iter().map(|entry| (entry.name, entry.kind)).collect();
            names.sort_unstable();
            Ok::<_, RootedError>(names)
        };
        let (one, other) = (list(one)?, list(other)?);
        Ok((one == other).then_some(one))
    }

    fn is_alike(&self, one: &Metadata, other: &Metadata) -> bool {
        let of = |file: &Metadata| (file.kind, file.mode, file.uid, file.gid, file.rdev);
        let size = |file: &Metadata| if file.is_dir() { 0 } else { file.size };
        let time = self.cutoff == Cutoff::Content || one.mtime.sec == other.mtime.sec;
        of(one) == of(other) && size(one) == size(other) && time
    }

    fn same_bytes(&self, path: &Path) -> Result<bool, StepError> {
        let mut one = self.one.open_file(path, Follow::No)?;
        let mut other = self.other.open_file(path, Follow::No)?;
        let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
        loop {
            let count = fill(&mut one, &mut left)?;
            if count != fill(&mut other, &mut right)? || left[..count] != right[..count] {
                return Ok(false);
            }
            if count < BLOCK {
                return Ok(true);
            }
        }
    }
}

/// What only some kinds have: a link's target, a program's capabilities.
fn same_leaf(one: &Root, other: &Root, name: &OsString, kind: FileKind) -> Result<bool, StepError> {
    Ok(match kind {
        FileKind::Symlink => one.read_link(name)? == other.read_link(name)?,
        FileKind::Regular => {
            let capability = |dir: &Root| dir.get_xattr(name, "security.capability");
            capability(one)? == capability(other)?
        }
        _ => true,
    })
}

/// What of the directories below shows through.
fn opacity(dir: &Root) -> Result<Option<Vec<u8>>, RootedError> {
    dir.get_xattr("", "trusted.overlay.opaque")
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use rbuild_image::layer::{PackOptions, pack};

    use super::*;

    /// A tree with a file, a second name of it, a directory, a link.
    fn tree(alter: impl Fn(&Path)) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let path = place.path();
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        fs_err::create_dir(path.join("dir")).unwrap();
        fs_err::write(path.join("dir/file"), vec![7; 3 * BLOCK + 5]).unwrap();
        fs_err::hard_link(path.join("dir/file"), path.join("dir/name")).unwrap();
        fs_err::write(path.join("other"), vec![7; 3 * BLOCK + 5]).unwrap();
        fs_err::os::unix::fs::symlink("dir/file", path.join("link")).unwrap();
        alter(path);
        for name in ["dir/file", "other", "dir"] {
            let file = fs_err::File::open(path.join(name));
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            if let Ok(file) = file {
                file.file().set_modified(time).unwrap();
            }
        }
        let time = rbuild_rooted::Time { sec: 1_000_000, nsec: 0 };
        let _ = Root::open(path).unwrap().set_times("link", time, time);
        place
    }

    fn same(one: &Path, other: &Path, cutoff: Cutoff) -> bool {
        let (one, other) = (Root::open(one).unwrap(), Root::open(other).unwrap());
        let cancel = CancelToken::default();
        let pair = Pair { one: &one, other: &other, cutoff, cancel: &cancel };
        let found = pair.is_same().unwrap();
        if cutoff == Cutoff::Bytes {
            let digest = |tree: &Root| {
                pack(tree, &PackOptions::default(), &mut std::io::sink(), &cancel).unwrap().diff_id
            };
            assert_eq!(found, digest(&one) == digest(&other), "as the layers are");
        }
        found
    }

    #[test]
    fn trees_are_the_same_when_their_layers_are() {
        let first = tree(|_| {});
        assert!(same(first.path(), tree(|_| {}).path(), Cutoff::Bytes));
        let changes: [fn(&Path); 8] = [
            |path| fs_err::write(path.join("new"), "").unwrap(),
            |path| fs_err::remove_file(path.join("other")).unwrap(),
            |path| {
                fs_err::set_permissions(path.join("dir"), PermissionsExt::from_mode(0o700)).unwrap()
            },
            |path| {
                let mut bytes = vec![7; 3 * BLOCK + 5];
                bytes[3 * BLOCK + 4] = 8;
                fs_err::write(path.join("other"), bytes).unwrap();
            },
            |path| fs_err::write(path.join("other"), "shorter").unwrap(),
            |path| {
                // Equal bytes, but another name of the same file.
                fs_err::remove_file(path.join("dir/name")).unwrap();
                fs_err::hard_link(path.join("other"), path.join("dir/name")).unwrap();
            },
            |path| {
                fs_err::remove_file(path.join("dir/name")).unwrap();
                fs_err::copy(path.join("dir/file"), path.join("dir/name")).unwrap();
                let file = fs_err::File::open(path.join("dir/name")).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
                file.file().set_modified(time).unwrap();
            },
            |path| {
                fs_err::remove_file(path.join("link")).unwrap();
                fs_err::os::unix::fs::symlink("dir/elsewhere", path.join("link")).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let second = tree(change);
            for cutoff in [Cutoff::Bytes, Cutoff::Content] {
                assert!(!same(first.path(), second.path(), cutoff), "change {number}");
                assert!(!same(second.path(), first.path(), cutoff), "change {number}");
            }
        }
    }

    #[test]
    fn times_count_unless_contents_alone_do() {
        let (first, second) = (tree(|_| {}), tree(|_| {}));
        let file = fs_err::File::open(second.path().join("other")).unwrap();
        file.file().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!same(first.path(), second.path(), Cutoff::Bytes));
        assert!(same(first.path(), second.path(), Cutoff::Content));
    }
}
