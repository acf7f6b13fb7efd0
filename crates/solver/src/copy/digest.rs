//! The digest of a selection: what a step's key holds of the files it copies.
//!
//! In it: names, types, modes, owners, sizes, link targets, device numbers, file capabilities and
//! bytes. Not in it: times, and the place in the source. What the instruction overrides is left
//! out too: with an octal `--chmod` the files' own modes make no difference, with `--chown`
//! neither do their owners. Hard links do not count, as in BuildKit: two names of one file have
//! the digest of two equal files.

use rbuild_rooted::FileKind;
use rbuild_types::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::chmod::Chmod;
use super::select::{Item, ItemKind};
use super::tree::{Entry, shown};

/// Changes whenever the encoding below does.
const VERSION: &str = "rbuild copy selection 1";

/// What the instruction overrides.
pub(crate) struct Overrides<'a> {
    pub(crate) chmod: Option<&'a Chmod>,
    /// `--chown` is given.
    pub(crate) owner: bool,
}

/// One selected file, to explain why a step's key differs from an earlier one. A copy's snapshot
/// has the list of its own as its listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it is: absolute from its tree's root, or the name of an inline file.
    pub path: String,
    /// What it is.
    pub kind: InputKind,
    /// Permission bits, before `--chmod`.
    pub mode: u32,
    /// Owner and group that it gets, before `--chown`.
    pub owner: (u32, u32),
    /// Bytes of a regular file, else 0.
    pub size: u64,
    /// Of a regular file's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// What an [`Input`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe or device.
    Special,
}

pub(crate) fn digest(items: &[Item], overrides: &Overrides<'_>) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(VERSION);
    number(&mut hasher, items.len());
    for item in items {
        match &item.kind {
            ItemKind::Inline { entry, .. } => {
                hasher.field("file");
                add(&mut hasher, entry, entry.name.as_encoded_bytes(), overrides);
            }
            ItemKind::File { entry, name, .. } => {
                hasher.field("file");
                add(&mut hasher, entry, name.as_encoded_bytes(), overrides);
            }
            ItemKind::Dir { dirs } => {
                hasher.field("directory");
                number(&mut hasher, dirs.len());
                for dir in dirs {
                    hasher.field(dir.path.as_os_str().as_encoded_bytes());
                    number(&mut hasher, dir.entries.len());
                    for entry in &dir.entries {
                        add(&mut hasher, entry, entry.name.as_encoded_bytes(), overrides);
                    }
                }
            }
        }
    }
    hasher.finish()
}

pub(crate) fn inputs(items: &[Item]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for item in items {
        match &item.kind {
            ItemKind::Inline { entry, .. } => inputs.push(input(shown(entry.name.as_ref()), entry)),
            ItemKind::File { dir, entry, .. } => {
                inputs.push(input(shown(&dir.join(&entry.name)), entry));
            }
            ItemKind::Dir { dirs } => {
                for dir in dirs {
                    let entry_path = |entry: &Entry| shown(&dir.source.join(&entry.name));
                    inputs.extend(dir.entries.iter().map(|entry| input(entry_path(entry), entry)));
                }
            }
        }
    }
    inputs
}

fn input(path: String, entry: &Entry) -> Input {
    Input {
        path,
        kind: match entry.kind {
            FileKind::Regular => InputKind::File,
            FileKind::Directory => InputKind::Directory,
            FileKind::Symlink => InputKind::Link,
            _ => InputKind::Special,
        },
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        size: entry.size,
        digest: entry.digest,
        target: entry.target.as_ref().map(|target| shown(target.as_ref())),
    }
}

fn number(hasher: &mut Hasher, number: usize) {
    hasher.update(&(number as u64).to_le_bytes());
}

/// Every part has a fixed length or its length in front, and what is absent is marked as such.
fn add(hasher: &mut Hasher, entry: &Entry, name: &[u8], overrides: &Overrides<'_>) {
    let kind = match entry.kind {
        FileKind::Regular => 0u8,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharDevice => 5,
        FileKind::BlockDevice => 6,
    };
    let mode = match overrides.chmod {
        Some(chmod) if entry.kind != FileKind::Symlink => {
            chmod.apply(entry.mode, entry.kind == FileKind::Directory)
        }
        _ => entry.mode,
    };
    let (uid, gid) = if overrides.owner { (0, 0) } else { (entry.uid, entry.gid) };
    hasher.field(name);
    hasher.update(&[kind]);
    hasher.update(&mode.to_le_bytes());
    hasher.update(&uid.to_le_bytes());
    hasher.update(&gid.to_le_bytes());
    hasher.update(&entry.size.to_le_bytes());
    hasher.update(&entry.rdev.to_le_bytes());
    optional(hasher, entry.digest.as_ref().map(|digest| &digest.as_bytes()[..]));
    optional(hasher, entry.target.as_ref().map(|target| target.as_encoded_bytes()));
    optional(hasher, entry.capability.as_deref());
}

fn optional(hasher: &mut Hasher, bytes: Option<&[u8]>) {
    match bytes {
        None => hasher.update(&[0]),
        Some(bytes) => {
            hasher.update(&[1]);
            hasher.field(bytes);
        }
    }
}
