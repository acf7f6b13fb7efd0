//! Git's objects: names, kinds, and what commits, tags and trees say.
//!
//! Everything here reads a stranger's bytes: nothing panics, and nothing is believed that the
//! name of an object does not prove.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha1_checked::{Digest as _, Sha1};

/// SHA-1 of an object's kind, size and bytes. Kept as 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ObjectId(pub(super) [u8; 20]);

impl ObjectId {
    /// Reads 40 hexadecimal digits.
    pub(super) fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    pub(crate) fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl TryFrom<String> for ObjectId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::from_hex(text.as_bytes()).ok_or_else(|| "expected 40 hexadecimal digits".to_owned())
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.hex()
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }

    pub(super) fn of_name(name: &[u8]) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag]
            .into_iter()
            .find(|kind| kind.name().as_bytes() == name)
    }
}

/// Makes the name of an object whose bytes arrive in pieces.
pub(super) struct Naming(Sha1);

impl Naming {
    pub(super) fn new(kind: Kind, size: u64) -> Self {
        let mut naming = Self(Sha1::new());
        naming.0.update(format!("{} {size}\0", kind.name()));
        naming
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// `None` when the bytes were made so that others have the same name.
    pub(super) fn finish(self) -> Option<ObjectId> {
        let found = self.0.try_finalize();
        (!found.has_collision()).then(|| ObjectId((*found.hash()).into()))
    }

    pub(super) fn of(kind: Kind, bytes: &[u8]) -> Option<ObjectId> {
        let mut naming = Self::new(kind, bytes.len() as u64);
        naming.update(bytes);
        naming.finish()
    }
}

/// SHA-1 of bytes that are no object: the ends of packs and of the index.
pub(super) fn plain_sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// What is needed of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) tree: ObjectId,
    pub(super) has_parents: bool,
    /// The committer's time, seconds since 1970.
    pub(super) time: i64,
}

impl Commit {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let tree = ObjectId::from_hex(lines.next()?.strip_prefix(b"tree ")?)?;
        let mut has_parents = false;
        for line in lines.take_while(|line| !line.is_empty()) {
            has_parents |= line.starts_with(b"parent ");
            if let Some(committer) = line.strip_prefix(b"committer ") {
                let end = committer.rsplit(|byte| *byte == b'>').next()?;
                let seconds = std::str::from_utf8(end).ok()?.split_whitespace().next()?;
                return Some(Self { tree, has_parents, time: seconds.parse().ok()? });
            }
        }
        None
    }
}

/// What an annotated tag is about.
pub(super) fn tagged(bytes: &[u8]) -> Option<ObjectId> {
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    ObjectId::from_hex(line.strip_prefix(b"object ")?)
}

/// One name in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) mode: EntryMode,
    pub(super) id: ObjectId,
}

/// What a name in a tree is; git knows no other modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryMode {
    File,
    Executable,
    Link,
    Directory,
    /// A commit of another repository.
    Submodule,
}

impl EntryMode {
    fn of(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 6)?;
        let mode = u32::from_str_radix(text, 8).ok()?;
        match mode >> 12 {
            0o10 if mode & 0o100 != 0 => Some(Self::Executable),
            0o10 => Some(Self::File),
            0o12 => Some(Self::Link),
            0o04 => Some(Self::Directory),
            0o16 => Some(Self::Submodule),
            _ => None,
        }
    }

    /// As the index has it.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_000,
            Self::Directory => 0o040_000,
            Self::Submodule => 0o160_000,
        }
    }
}

/// The names in a tree; an error says what no tree may have.
pub(super) fn parse_tree(mut bytes: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or("a mode has no end")?;
        let (mode, rest) = bytes.split_at(space);
        let mode = EntryMode::of(mode).ok_or("a mode is unknown")?;
        let rest = rest.get(1..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).ok_or("a name has no end")?;
        let (name, rest) = rest.split_at(end);
        if is_unusable(name) {
            return Err("a name is one that no file may have");
        }
        // A second entry could make a link of the directory that the first one filled.
        if !seen.insert(name.to_vec()) {
            return Err("a name stands there twice");
        }
        let id = rest.get(1..21).and_then(|id| id.try_into().ok()).ok_or("it ends too early")?;
        entries.push(Entry { name: name.to_vec(), mode, id: ObjectId(id) });
        bytes = rest.get(21..).unwrap_or_default();
    }
    Ok(entries)
}

/// Names that would lead elsewhere, or be taken for the repository's own directory.
fn is_unusable(name: &[u8]) -> bool {
    name.is_empty()
        || name == b"."
        || name == b".."
        || name.eq_ignore_ascii_case(b".git")
        || name.contains(&b'/')
        || name.len() > 255
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_git_s() {
        let id = Naming::of(Kind::Blob, b"hello\n").unwrap();
        assert_eq!(id.hex(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(ObjectId::from_hex(id.hex().as_bytes()), Some(id));
        assert_eq!(ObjectId::from_hex(b"ce01"), None);
    }

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(mode, name): &(&str, &str)| {
            [mode.as_bytes(), b" ", name.as_bytes(), &[0], &[7; 20]].concat()
        };
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn trees_hold_no_name_that_leads_elsewhere() {
        let good = tree(&[("100644", "a"), ("100755", "b"), ("120000", "c"), ("40000", "d")]);
        let modes: Vec<_> = parse_tree(&good).unwrap().iter().map(|one| one.mode).collect();
        use EntryMode::{Directory, Executable, File, Link};
        assert_eq!(modes, [File, Executable, Link, Directory]);
        for bad in ["", ".", "..", ".git", ".GIT", "a/b", "../x"] {
            assert!(parse_tree(&tree(&[("100644", bad)])).is_err(), "{bad}");
        }
        assert!(parse_tree(&tree(&[("120000", "a"), ("40000", "a")])).is_err());
        assert!(parse_tree(&tree(&[("20000", "device")])).is_err());
    }

    #[test]
    fn commits_and_tags() {
        let id = "ce013625030ba8dba906f756967f9e9ca394464a";
        let text = format!(
            "tree {id}\nparent {id}\nauthor A <a> 1 +0000\ncommitter B > <b> 1500000000 +0200\n\nx"
        );
        let commit = Commit::parse(text.as_bytes()).unwrap();
        assert_eq!((commit.tree.hex().as_str(), commit.has_parents), (id, true));
        assert_eq!(commit.time, 1_500_000_000);
        assert_eq!(Commit::parse(format!("tree {id}\n\ncommitter B <b> 1").as_bytes()), None);
        assert_eq!(tagged(format!("object {id}\ntype commit\n").as_bytes()).unwrap().hex(), id);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Commit::parse(&bytes), tagged(&bytes), parse_tree(&bytes));
        }
    }
}
