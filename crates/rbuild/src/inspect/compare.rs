//! Two trees side by side: which files one of them does not have, and in what the others differ.
//!
//! What counts is what a layer keeps of a file: kind, permissions, owner, modification time in
//! seconds, content, target, device number, `security.capability`, and which names are one file.
//! Directories are read in step, so that memory holds the names on the way and no more; besides, an
//! entry for each file with several names.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt as _;
use std::vec::IntoIter;

use rbuild_image::layer::{Listed, Listing, TreeForm, capability, list};
use rbuild_rooted::{FileKind, Metadata, Root};
use rbuild_types::CancelToken;

use super::walk::{Visitor, open, push, walk};
use crate::BuildError;

/// Bytes that are compared at once.
const BLOCK: usize = 128 << 10;
/// Bytes of an excerpt that come before the first difference, and at most in all.
const BEFORE: u64 = 16;
const EXCERPT: usize = 64;
/// The permission to read of those who are neither owner nor group.
const READ_BY_ALL: u32 = 0o004;

/// What is known of a file, as layers keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// What it is; `None` where a layer takes away what layers below have.
    pub kind: Option<FileKind>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file; of a directory that only one image has, of all files in it.
    pub size: u64,
    /// Seconds since 1970 of the last change.
    pub mtime: i64,
    /// Where a symbolic link leads.
    pub target: Option<OsString>,
    /// Of a directory that only one image has: files and directories in it.
    pub entries: u64,
}

/// In what two files of one path differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// What it is.
    Kind,
    /// Bytes of a regular file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// Number of a device.
    Device,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// Time of the last change.
    Time,
    /// Extended attributes.
    Attributes,
    /// Which other names are the same file.
    HardLink,
    /// Whether a layer's directory hides that of the layers below.
    Opacity,
}

impl Aspect {
    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Time => "time",
            Self::Attributes => "attributes",
            Self::HardLink => "hard link",
            Self::Opacity => "opacity",
        }
    }
}

/// The first place where two contents differ. What only its owner may read, such as a key, is not
/// excerpted: differences are printed where many may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentDifference {
    /// Bytes before it.
    pub offset: u64,
    /// Where the excerpts begin.
    pub excerpt_offset: u64,
    /// What the first has there.
    pub before: Vec<u8>,
    /// What the second has there.
    pub after: Vec<u8>,
}

/// A path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// The path, without a slash in front.
    pub path: Vec<u8>,
    /// What the first has, if anything.
    pub before: Option<FileFacts>,
    /// What the second has, if anything. Of a directory that only one has nothing inside is told.
    pub after: Option<FileFacts>,
    /// In what they differ, where both have something.
    pub aspects: Vec<Aspect>,
    /// Where regular files differ.
    pub content: Option<ContentDifference>,
}

/// Compares two trees, and hands over every difference in the order of the paths.
pub(crate) fn compare(
    before: &Root,
    after: &Root,
    form: TreeForm,
    cancel: &CancelToken,
    found: &mut dyn FnMut(FileDifference) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let [before, after] = [before, after].map(|tree| Side { tree, first_names: HashMap::new() });
    let mut comparison = Comparison { before, after, form, cancel, found };
    comparison.run()
}

struct Side<'a> {
    tree: &'a Root,
    /// Of files with several names, the first that was met.
    first_names: HashMap<(u64, u64), Vec<u8>>,
}

struct Comparison<'a> {
    before: Side<'a>,
    after: Side<'a>,
    form: TreeForm,
    cancel: &'a CancelToken,
    found: &'a mut dyn FnMut(FileDifference) -> Result<(), BuildError>,
}

/// A directory that both have.
struct Level {
    path_length: usize,
    before: Half,
    after: Half,
}

struct Half {
    dir: Option<Root>,
    rest: Peekable<IntoIter<Listed>>,
}

/// The next name of a directory, and who has it.
struct Pair {
    name: OsString,
    before: Option<Option<Metadata>>,
    after: Option<Option<Metadata>>,
}

impl Level {
    fn next(&mut self) -> Option<Pair> {
        let order = match (self.before.rest.peek(), self.after.rest.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.name.cmp(&after.name),
        };
        let before = if order.is_le() { self.before.rest.next() } else { None };
        let after = if order.is_ge() { self.after.rest.next() } else { None };
        let name = before.as_ref().or(after.as_ref()).map(|listed| listed.name.clone())?;
        Some(Pair {
            name,
            before: before.map(|listed| listed.file),
            after: after.map(|listed| listed.file),
        })
    }
}

impl Comparison<'_> {
    fn run(&mut self) -> Result<(), BuildError> {
        let mut path = Vec::new();
        let (top, _) = self.enter(&path)?;
        let mut levels = vec![top];
        while let Some(level) = levels.last_mut() {
            self.cancel.check()?;
            path.truncate(level.path_length);
            let Some(pair) = level.next() else {
                levels.pop();
                // The directory above was closed meanwhile: one level is open at a time.
                if let Some(above) = levels.last_mut() {
                    path.truncate(above.path_length);
                    above.before.dir = Some(open(self.before.tree, &path)?);
                    above.after.dir = Some(open(self.after.tree, &path)?);
                }
                continue;
            };
            push(&mut path, pair.name.as_bytes());
            let (Some(before_dir), Some(after_dir)) = (&level.before.dir, &level.after.dir) else {
                continue;
            };
            match (pair.before, pair.after) {
                (Some(before), Some(after)) => {
                    let both_are_directories = [&before, &after]
                        .iter()
                        .all(|file| file.as_ref().is_some_and(Metadata::is_dir));
                    let (name, dirs) = (&pair.name, (before_dir, after_dir));
                    let mut difference = self.both(&path, name, dirs, before, after)?;
                    if both_are_directories {
                        (level.before.dir, level.after.dir) = (None, None);
                        let (below, same_opacity) = self.enter(&path)?;
                        levels.push(below);
                        if !same_opacity {
                            difference.aspects.push(Aspect::Opacity);
                        }
                    }
                    if !difference.aspects.is_empty() {
                        (self.found)(difference)?;
                    }
                }
                (before, after) => {
                    let one = |side: &Side<'_>, dir: &Root, file: Option<Option<Metadata>>| {
                        let Some(file) = file else { return Ok(None) };
                        self.alone(side, &path, &pair.name, dir, file).map(Some)
                    };
                    let before = one(&self.before, before_dir, before)?;
                    let after = one(&self.after, after_dir, after)?;
                    let path = path.clone();
                    let aspects = Vec::new();
                    (self.found)(FileDifference { path, before, after, aspects, content: None })?;
                }
            }
        }
        Ok(())
    }

    /// Opens a directory in both trees, and says whether both hide as much.
    fn enter(&self, path: &[u8]) -> Result<(Level, bool), BuildError> {
        let half = |tree: &Root| -> Result<(Half, bool), BuildError> {
            let dir = open(tree, path)?;
            let Listing { is_opaque, names } = list(&dir, self.form)?;
            Ok((Half { dir: Some(dir), rest: names.into_iter().peekable() }, is_opaque))
        };
        let (before, hides_before) = half(self.before.tree)?;
        let (after, hides_after) = half(self.after.tree)?;
        let level = Level { path_length: path.len(), before, after };
        Ok((level, hides_before == hides_after))
    }

    /// What only one of them has.
    fn alone(
        &self,
        side: &Side<'_>,
        path: &[u8],
        name: &OsStr,
        dir: &Root,
        file: Option<Metadata>,
    ) -> Result<FileFacts, BuildError> {
        let mut facts = facts(dir, name, file.as_ref())?;
        if facts.kind == Some(FileKind::Directory) {
            let mut count = Count::default();
            let below = open(side.tree, path)?;
            walk(&below, self.form, &mut count, self.cancel)?;
            (facts.entries, facts.size) = (count.entries, count.bytes);
        }
        Ok(facts)
    }

    fn both(
        &mut self,
        path: &[u8],
        name: &OsStr,
        (before_dir, after_dir): (&Root, &Root),
        before: Option<Metadata>,
        after: Option<Metadata>,
    ) -> Result<FileDifference, BuildError> {
        let mut difference = FileDifference {
            path: path.to_vec(),
            before: Some(facts(before_dir, name, before.as_ref())?),
            after: Some(facts(after_dir, name, after.as_ref())?),
            aspects: Vec::new(),
            content: None,
        };
        let (before, after) = match (before, after) {
            (None, None) => return Ok(difference),
            (Some(before), Some(after)) if before.kind == after.kind => (before, after),
            _ => {
                difference.aspects.push(Aspect::Kind);
                return Ok(difference);
            }
        };
        let aspects = &mut difference.aspects;
        let mut note = |differs: bool, aspect| aspects.extend(differs.then_some(aspect));
        match before.kind {
            FileKind::Regular if !is_one_file(&before, &after) => {
                let open = |dir: &Root| dir.open_seen_file(name).map(|(file, _)| file);
                let (one, other) = (open(before_dir)?, open(after_dir)?);
                difference.content =
                    first_difference(one, other, self.cancel).map_err(|source| {
                        let what = format!("read {}", String::from_utf8_lossy(path));
                        BuildError::Io { what, source }
                    })?;
                note(difference.content.is_some(), Aspect::Content);
                if let Some(content) = &mut difference.content
                    && (before.mode & after.mode & READ_BY_ALL) == 0
                {
                    (content.before, content.after) = (Vec::new(), Vec::new());
                }
                let differ = capability(before_dir, name)? != capability(after_dir, name)?;
                note(differ, Aspect::Attributes);
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                note(before.rdev != after.rdev, Aspect::Device);
            }
            FileKind::Symlink => {
                let target = |facts: &Option<FileFacts>| facts.as_ref()?.target.clone();
                note(target(&difference.before) != target(&difference.after), Aspect::Target);
            }
            _ => {}
        }
        note(before.mode != after.mode, Aspect::Mode);
        note((before.uid, before.gid) != (after.uid, after.gid), Aspect::Owner);
        note(before.mtime.sec != after.mtime.sec, Aspect::Time);
        let first = self.before.first_name(path, &before).map(<[u8]>::to_vec);
        note(first.as_deref() != self.after.first_name(path, &after), Aspect::HardLink);
        Ok(difference)
    }
}

impl Side<'_> {
    /// The first name of a file, if that is another one.
    fn first_name(&mut self, path: &[u8], metadata: &Metadata) -> Option<&[u8]> {
        if metadata.nlink < 2 || metadata.is_dir() {
            return None;
        }
        let identity = (metadata.dev, metadata.ino);
        let first = self.first_names.entry(identity).or_insert_with(|| path.to_vec());
        (first != path).then_some(first)
    }
}

/// Whether both are one file of the store: layers are shared between images, and to read those
/// would take most of the time. A merged tree gives the inode numbers of the layers.
fn is_one_file(before: &Metadata, after: &Metadata) -> bool {
    let identity = |one: &Metadata| (one.ino, one.size, one.mtime, one.ctime);
    identity(before) == identity(after)
}

fn facts(dir: &Root, name: &OsStr, file: Option<&Metadata>) -> Result<FileFacts, BuildError> {
    let Some(metadata) = file else {
        return Ok(FileFacts {
            kind: None,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            target: None,
            entries: 0,
        });
    };
    Ok(FileFacts {
        kind: Some(metadata.kind),
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size: if metadata.is_file() { metadata.size } else { 0 },
        mtime: metadata.mtime.sec,
        target: metadata.is_symlink().then(|| dir.read_link(name)).transpose()?,
        entries: 0,
    })
}

fn first_difference(
    mut before: impl Read,
    mut after: impl Read,
    cancel: &CancelToken,
) -> std::io::Result<Option<ContentDifference>> {
    let (mut one, mut other) = (vec![0; BLOCK], vec![0; BLOCK]);
    let (mut offset, mut last) = (0_u64, Vec::new());
    loop {
        cancel.check().map_err(std::io::Error::other)?;
        let (length, other_length) = (fill(&mut before, &mut one)?, fill(&mut after, &mut other)?);
        let (left, right) = (&one[..length], &other[..other_length]);
        let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
        if same < length.max(other_length) {
            let at = offset + same as u64;
            let excerpt_offset = at.saturating_sub(BEFORE);
            // Some of it may have been in the last block.
            let start = same.saturating_sub(BEFORE as usize);
            let missing = (offset + start as u64 - excerpt_offset) as usize;
            let head: &[u8] = &last[last.len().saturating_sub(missing)..];
            let excerpt = |bytes: &[u8], rest: &mut dyn Read| -> std::io::Result<Vec<u8>> {
                let here = head.iter().chain(bytes.get(start..).unwrap_or_default());
                let mut excerpt: Vec<u8> = here.take(EXCERPT).copied().collect();
                rest.take((EXCERPT - excerpt.len()) as u64).read_to_end(&mut excerpt)?;
                Ok(excerpt)
            };
            let (before, after) = (excerpt(left, &mut before)?, excerpt(right, &mut after)?);
            return Ok(Some(ContentDifference { offset: at, excerpt_offset, before, after }));
        }
        if length < BLOCK {
            return Ok(None);
        }
        offset += length as u64;
        last = one[length - BEFORE as usize..length].to_vec();
    }
}

/// Reads until the buffer is full or the end is reached.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Counts what is in a directory.
#[derive(Default)]
struct Count {
    entries: u64,
    bytes: u64,
}

impl Visitor for Count {
    fn opaque(&mut self, _: &[u8]) -> Result<(), BuildError> {
        Ok(())
    }

    fn removed(&mut self, _: &[u8]) -> Result<(), BuildError> {
        self.entries += 1;
        Ok(())
    }

    fn file(&mut self, _: &[u8], metadata: &Metadata) -> Result<(), BuildError> {
        self.entries += 1;
        self.bytes += if metadata.is_file() { metadata.size } else { 0 };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(before: &[u8], after: &[u8]) -> Option<(u64, u64, Vec<u8>, Vec<u8>)> {
        let found = first_difference(before, after, &CancelToken::default()).unwrap();
        found.map(|one| (one.offset, one.excerpt_offset, one.before, one.after))
    }

    #[test]
    fn the_first_differing_byte_is_found_with_what_is_around_it() {
        assert_eq!(difference(b"same", b"same"), None);
        assert_eq!(difference(b"", b"x"), Some((0, 0, vec![], b"x".to_vec())));
        let expected = Some((2, 0, b"abcd".to_vec(), b"ab".to_vec()));
        assert_eq!(difference(b"abcd", b"ab"), expected);
        // Right before, at and behind the edge of a block.
        for at in [BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + 40, 2 * BLOCK] {
            let before: Vec<u8> = (0..3 * BLOCK).map(|byte| (byte % 251) as u8).collect();
            let mut after = before.clone();
            after[at] ^= 0xff;
            let (offset, start, one, other) = difference(&before, &after).unwrap();
            assert_eq!((offset, start), (at as u64, at as u64 - BEFORE));
            let range = at - BEFORE as usize..at - BEFORE as usize + EXCERPT;
            assert!(one == before[range.clone()] && other == after[range], "{at}");
            assert_eq!(difference(&before, &before[..at]).unwrap().0, at as u64);
        }
    }
}
