//! The list of a cache mount: one document that says which files there are, and which chunks of
//! which packs they are made of.
//!
//! JSON, compressed as one zstd stream. Each pack's chunks are named in their order, those that no
//! file has any more too, so where a chunk lies in its pack follows from the lengths before it; files
//! name *runs* of them. Names that are no UTF-8 are written in hexadecimal digits.
//!
//! A list comes from elsewhere and is not trusted. Every path lies in a directory that the list has
//! named before, so none leads through a link or out; numbers are checked against what they count,
//! and nothing is allocated by them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rbuild_types::Digest;
use serde::{Deserialize, Serialize};

use super::{MAX_CHUNK, MAX_MOUNT, MAX_PACK, MAX_PACKS};
use crate::remote_cache::document;
use crate::{CacheFile, CacheFileKind};

/// What the bytes of a list are called.
pub(crate) const LIST_TYPE: &str = "application/vnd.rbuild.cache.mount.list.v1+json+zstd";

/// The form that this version writes and reads.
const VERSION: u32 = 1;
/// Names in a cache mount.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of a list, compressed and not. A name with a chunk of its own takes some 60 and 200.
pub(super) const MAX_LIST: u64 = 64 << 20;
const MAX_DOCUMENT: u64 = 256 << 20;
/// Chunks that all files name together: those of the largest mounts, and no more work than that.
const MAX_NAMED: u64 = 1 << 24;
/// Bytes of a path, and of a link's target, with a zero behind it.
const MAX_PATH: usize = 4096;

/// Why bytes are no list.
#[derive(Debug, thiserror::Error)]
#[error("its list {0}")]
pub(crate) struct ListError(String);

/// What is in a cache mount.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct List {
    /// A directory before what is in it; the first is the cache mount itself.
    pub(super) entries: Vec<Entry>,
    /// The chunks of each pack.
    pub(super) packs: Vec<Vec<Chunk>>,
}

/// A piece of files: its digest and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk(pub(super) Digest, pub(super) u32);

/// Chunks that follow each other in a pack: its number, that of the first chunk, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run(pub(super) u32, pub(super) u32, pub(super) u32);

/// One name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// From the top, without a slash in front.
    #[serde(with = "name")]
    path: PathBuf,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970.
    mtime: i64,
    /// And nanoseconds after that.
    nsec: u32,
    is: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Directory,
    File {
        runs: Vec<Run>,
        /// Of the whole file; where it is one chunk it is the chunk's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<Digest>,
    },
    /// Another name of a file whose entry has this number.
    Same(usize),
    Link(#[serde(with = "name")] PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Document<E, P> {
    version: u32,
    entries: E,
    packs: P,
}

impl List {
    /// A list of what was found. `runs` are those of the regular files, in their order.
    pub(super) fn of(files: Vec<CacheFile>, runs: Vec<Vec<Run>>, packs: Vec<Vec<Chunk>>) -> Self {
        let mut runs = runs.into_iter();
        let mut numbers = HashMap::new();
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let CacheFile { path, kind, mode, uid, gid, mtime, mtime_nsec: nsec } = file;
            let is = match kind {
                CacheFileKind::Directory => Kind::Directory,
                CacheFileKind::File { digest, .. } => {
                    numbers.insert(path.clone(), entries.len());
                    let runs = runs.next().unwrap_or_default();
                    let is_whole = matches!(runs.as_slice(), [] | [Run(_, _, 1)]);
                    Kind::File { runs, digest: (!is_whole).then_some(digest) }
                }
                CacheFileKind::HardLink { first } => match numbers.get(&first) {
                    Some(number) => Kind::Same(*number),
                    None => continue,
                },
                CacheFileKind::Symlink { target } => Kind::Link(target.into()),
            };
            entries.push(Entry { path, mode, uid, gid, mtime, nsec, is });
        }
        Self { entries, packs }
    }

    /// The names as they are made, each with its runs.
    pub(super) fn files(&self) -> Vec<(CacheFile, &[Run])> {
        let mut made = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let mut found: &[Run] = &[];
            let kind = match &entry.is {
                Kind::Directory => CacheFileKind::Directory,
                Kind::Link(target) => CacheFileKind::Symlink { target: target.clone().into() },
                Kind::Same(number) => {
                    let first = self.entries.get(*number).map(|first| first.path.clone());
                    CacheFileKind::HardLink { first: first.unwrap_or_default() }
                }
                Kind::File { runs, digest } => {
                    found = runs;
                    let size = self.chunks(runs).map(|chunk| u64::from(chunk.1)).sum();
                    let one = self.chunks(runs).next().map(|chunk| chunk.0);
                    let digest = digest.or(one).unwrap_or_else(|| Digest::of(""));
                    CacheFileKind::File { size, digest }
                }
            };
            let Entry { path, mode, uid, gid, mtime, nsec: mtime_nsec, .. } = entry.clone();
            made.push((CacheFile { path, kind, mode, uid, gid, mtime, mtime_nsec }, found));
        }
        made
    }

    /// The chunks of a file.
    fn chunks<'a>(&'a self, runs: &'a [Run]) -> impl Iterator<Item = &'a Chunk> {
        runs.iter().flat_map(|Run(pack, first, count)| {
            let chunks = self.packs.get(*pack as usize).map_or(&[][..], Vec::as_slice);
            chunks.iter().skip(*first as usize).take(*count as usize)
        })
    }

    /// How many files there are, and their bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.iter().fold((0, 0), |(files, bytes), entry| match &entry.is {
            Kind::File { runs, .. } => {
                (files + 1, self.chunks(runs).map(|chunk| u64::from(chunk.1)).sum::<u64>() + bytes)
            }
            _ => (files, bytes),
        })
    }

    /// The bytes of the list.
    pub(super) fn to_bytes(&self, pool: &rayon::ThreadPool) -> Result<Vec<u8>, ListError> {
        if let Some(problem) = self.problem() {
            return Err(ListError(format!("{problem}, and cannot be sent")));
        }
        let failed = |error: &dyn std::fmt::Display| ListError(format!("cannot be made: {error}"));
        let (entries, packs) = (&self.entries, &self.packs);
        let text = serde_json::to_vec(&Document { version: VERSION, entries, packs })
            .map_err(|error| failed(&error))?;
        let bytes = document::compressed(&text, pool).map_err(|error| failed(&error))?;
        if text.len() as u64 > MAX_DOCUMENT || bytes.len() as u64 > MAX_LIST {
            return Err(ListError("is too large to be sent".to_owned()));
        }
        Ok(bytes)
    }

    /// Reads a list.
    pub(super) fn parse(source: impl Read) -> Result<Self, ListError> {
        let Document { entries, packs, .. }: Document<Vec<Entry>, Vec<Vec<Chunk>>> =
            document::read(source, MAX_DOCUMENT, VERSION).map_err(ListError)?;
        let list = Self { entries, packs };
        match list.problem() {
            None => Ok(list),
            Some(problem) => Err(ListError(problem.to_owned())),
        }
    }

    /// What of it cannot be.
    fn problem(&self) -> Option<&'static str> {
        if self.entries.len() > MAX_ENTRIES {
            return Some("has too many names");
        }
        if self.packs.len() > MAX_PACKS {
            return Some("has too many packs");
        }
        for pack in &self.packs {
            let is_chunk = |chunk: &Chunk| (1..=MAX_CHUNK as u32).contains(&chunk.1);
            if pack.is_empty() || !pack.iter().all(is_chunk) {
                return Some("has a chunk of an absurd size");
            }
            if pack.iter().map(|chunk| u64::from(chunk.1)).sum::<u64>() > MAX_PACK {
                return Some("has a pack of an absurd size");
            }
        }
        let mut directories = HashSet::new();
        let mut paths = HashSet::new();
        let (mut named, mut bytes) = (0_u64, 0_u64);
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.mode > 0o7777 || entry.nsec >= 1_000_000_000 {
                return Some("has a name with an absurd mode or time");
            }
            let path = entry.path.as_path();
            let is_in_place = match path.parent() {
                None => number == 0 && entry.is == Kind::Directory,
                Some(parent) => is_plain(path) && directories.contains(parent),
            };
            if !is_in_place || !paths.insert(path) {
                return Some("has a name that is in no directory of it, or is there twice");
            }
            match &entry.is {
                Kind::Directory => _ = directories.insert(path),
                Kind::Link(target) => {
                    let target = target.as_os_str().as_bytes();
                    if target.is_empty() || target.len() >= MAX_PATH || target.contains(&0) {
                        return Some("has a link that leads to no name");
                    }
                }
                Kind::Same(first) => {
                    let first = self.entries.get(*first).filter(|_| *first < number);
                    if !first.is_some_and(|first| matches!(first.is, Kind::File { .. })) {
                        return Some("has another name for something that is no file");
                    }
                }
                Kind::File { runs, digest } => {
                    let Some(runs) = self.slices(runs) else {
                        return Some("has a file of chunks that are not there");
                    };
                    let count = runs.iter().map(|run| run.len() as u64).sum::<u64>();
                    if digest.is_none() && count > 1 {
                        return Some("has a file without a digest");
                    }
                    named += count;
                    if named > MAX_NAMED {
                        return Some("has files of too many chunks");
                    }
                    bytes +=
                        runs.into_iter().flatten().map(|chunk| u64::from(chunk.1)).sum::<u64>();
                }
            }
        }
        match bytes {
            ..=MAX_MOUNT if !self.entries.is_empty() => None,
            ..=MAX_MOUNT => Some("is empty"),
            _ => Some("has files of an absurd size"),
        }
    }

    /// The chunks of each run, if they are there.
    fn slices(&self, runs: &[Run]) -> Option<Vec<&[Chunk]>> {
        let slice = |Run(pack, first, count): &Run| {
            let end = first.checked_add(*count).filter(|_| *count > 0)?;
            self.packs.get(*pack as usize)?.get(*first as usize..end as usize)
        };
        runs.iter().map(slice).collect()
    }
}

/// Whether a path is made of ordinary names alone, as the kernel takes them.
fn is_plain(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let plain: PathBuf =
        path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    !bytes.contains(&0) && bytes.len() < MAX_PATH && plain.as_os_str() == path.as_os_str()
}

/// A name of bytes as JSON.
mod name {
    use serde::{Deserializer, Serializer, de::Error as _};

    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Bytes { hex: String },
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        let written = match path.to_str() {
            Some(text) => Written::Text(text.to_owned()),
            None => Written::Bytes { hex: hex::encode(path.as_os_str().as_bytes()) },
        };
        written.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Text(text) => text.into(),
            Written::Bytes { hex } => {
                OsString::from_vec(hex::decode(hex).map_err(D::Error::custom)?).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap()
    }

    fn file(path: &str, kind: CacheFileKind) -> CacheFile {
        let (mode, uid, gid, mtime, mtime_nsec) = (0o4750, 5, 6, -1, 999_999_999);
        CacheFile { path: path.into(), kind, mode, uid, gid, mtime, mtime_nsec }
    }

    fn bytes(size: u64, digest: Digest) -> CacheFileKind {
        CacheFileKind::File { size, digest }
    }

    fn chunk(text: &str, length: u32) -> Chunk {
        Chunk(Digest::of(text), length)
    }

    /// One of each kind.
    fn files() -> Vec<CacheFile> {
        let name = OsString::from_vec(b"no \xff utf-8".to_vec());
        let mut odd = file("", CacheFileKind::Symlink { target: name.clone() });
        odd.path = name.into();
        vec![
            file("", CacheFileKind::Directory),
            file("dir", CacheFileKind::Directory),
            file("dir/empty", bytes(0, Digest::of(""))),
            file("dir/one", bytes(3, Digest::of("a"))),
            file("dir/two", bytes(9, Digest::of("all"))),
            file("dir/two again", CacheFileKind::HardLink { first: "dir/two".into() }),
            odd,
        ]
    }

    fn list() -> List {
        let packs = vec![vec![chunk("a", 3), chunk("dead", 5)], vec![chunk("b", 6)]];
        let runs = vec![vec![], vec![Run(0, 0, 1)], vec![Run(0, 0, 1), Run(1, 0, 1)]];
        List::of(files(), runs, packs)
    }

    fn document() -> serde_json::Value {
        let list = list();
        let (entries, packs) = (list.entries, list.packs);
        serde_json::to_value(Document { version: VERSION, entries, packs }).unwrap()
    }

    fn parse(text: &[u8]) -> Result<List, ListError> {
        List::parse(document::compressed(text, &pool()).unwrap().as_slice())
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = list().to_bytes(&pool()).unwrap();
        let found = List::parse(bytes.as_slice()).unwrap();
        assert_eq!(found, list());
        assert_eq!(found.size(), (3, 12));
        let (made, runs): (Vec<_>, Vec<_>) = found.files().into_iter().unzip();
        assert_eq!(made, files());
        assert_eq!(runs[4], [Run(0, 0, 1), Run(1, 0, 1)]);
        // The same list gives the same bytes.
        assert_eq!(found.to_bytes(&pool()).unwrap(), bytes);
    }

    #[test]
    fn nonsense_is_refused() {
        type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
        let text = |change: Change<'_>| {
            let mut value = document();
            change(&mut value);
            value.to_string()
        };
        let path = |path: &'static str| {
            move |value: &mut serde_json::Value| {
                value["entries"][3]["path"] = path.into();
            }
        };
        let run = |run: [u64; 3]| {
            move |value: &mut serde_json::Value| {
                value["entries"][3]["is"]["file"]["runs"][0] = run.to_vec().into();
            }
        };
        assert!(parse(text(&|_| {}).as_bytes()).is_ok());
        let problems: [(&str, Change<'_>); 24] = [
            ("newer rbuild", &|value| value["version"] = 2.into()),
            ("in no directory", &path("../one")),
            ("in no directory", &path("dir/../one")),
            ("in no directory", &path("/dir/one")),
            ("in no directory", &path("dir//one")),
            ("in no directory", &path("dir/./one")),
            ("in no directory", &path("dir/one/")),
            ("in no directory", &path("dir/\0")),
            ("in no directory", &path("other/one")),
            ("in no directory", &path("dir/empty/one")),
            ("is there twice", &path("dir/empty")),
            ("in no directory", &path("")),
            ("in no directory", &|value| value["entries"][0]["path"] = "x".into()),
            ("in no directory", &|value| {
                value["entries"][0]["is"] = value["entries"][3]["is"].clone()
            }),
            ("no name", &|value| value["entries"][6]["is"]["link"] = "".into()),
            ("no file", &|value| value["entries"][5]["is"]["same"] = 5.into()),
            ("no file", &|value| value["entries"][5]["is"]["same"] = 1.into()),
            ("absurd mode", &|value| value["entries"][3]["mode"] = 0o10000.into()),
            ("absurd size", &|value| value["packs"][0][0][1] = (MAX_CHUNK as u64 + 1).into()),
            ("absurd size", &|value| value["packs"][0][0][1] = 0.into()),
            ("not there", &run([2, 0, 1])),
            ("not there", &run([0, 1, 2])),
            ("not there", &run([0, u32::MAX.into(), u32::MAX.into()])),
            ("is empty", &|value| value["entries"] = serde_json::json!([])),
        ];
        for (problem, change) in problems {
            let text = text(change);
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}: {text}");
        }
        let bomb = vec![b' '; MAX_DOCUMENT as usize + 1];
        assert!(parse(&bomb).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn many_names_of_the_same_chunks_are_no_end_of_bytes() {
        let root = file("", CacheFileKind::Directory);
        let large = file("large", bytes(0, Digest::of("")));
        let list = |packs: Vec<Vec<Chunk>>, runs: usize| {
            let many = vec![Run(0, 0, packs[0].len() as u32); runs];
            List::of(vec![root.clone(), large.clone()], vec![many], packs)
        };
        let large = list(vec![vec![chunk("a", MAX_CHUNK as u32); 4096]], 1024);
        assert_eq!(large.problem(), Some("has files of an absurd size"));
        let small = list(vec![vec![chunk("a", 1); 1 << 20]], 1 << 20);
        assert_eq!(small.problem(), Some("has files of too many chunks"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = List::parse(bytes.as_slice());
            let _ = parse(&bytes);
        }

        #[test]
        fn no_json_panics(text in r#"\{"version":1,"entries":\[(\{"path":("[a./]{0,4}"|\{"hex":"[0-9a-f]{0,4}"\}),"mode":[0-9]{1,5},"uid":[0-9]{1,11},"gid":1,"mtime":-?[0-9]{1,20},"nsec":[0-9]{1,10},"is":("directory"|\{"same":[0-9]{1,20}\}|\{"link":"[a./]{0,3}"\}|\{"file":\{"runs":\[(\[[0-9]{1,11},[0-9]{1,11},[0-9]{1,11}\],?){0,2}\]\}\})\},?){0,4}\],"packs":\[\]\}"#) {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn a_damaged_list_gives_an_error_or_names_that_stay_inside(
            position in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut text = document().to_string().into_bytes();
            let position = position.index(text.len());
            text[position] = byte;
            if let Ok(list) = parse(&text) {
                prop_assert_eq!(list.problem(), None);
                for (file, runs) in list.files() {
                    let is_normal = |part| matches!(part, Component::Normal(_));
                    prop_assert!(file.path.components().all(is_normal));
                    prop_assert!(runs.iter().all(|run| list.packs.len() > run.0 as usize));
                }
            }
        }
    }
}
