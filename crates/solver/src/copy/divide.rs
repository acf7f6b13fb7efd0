//! A directory's files as pieces of work of equal size.

use std::collections::HashMap;
use std::ops::Range;

use super::tree::Dir;

/// Files that one task writes below one pair of held directories.
const CHUNK: usize = 512;
/// Some entries of one directory.
pub(super) struct Chunk {
    pub(super) dir: usize,
    pub(super) entries: Range<usize>,
}

/// Names of files that have an earlier name in the same item, with that name, both as directory
/// and entry index.
#[derive(Default)]
pub(super) struct SecondNames(pub(super) Vec<((usize, usize), (usize, usize))>);

impl SecondNames {
    pub(super) fn holds(&self, dir: usize, entry: usize) -> bool {
        self.0.binary_search_by_key(&(dir, entry), |(name, _)| *name).is_ok()
    }
}

pub(super) fn divide(dirs: &[Dir]) -> (Vec<Chunk>, SecondNames) {
    let mut chunks = Vec::new();
    let mut first_names = HashMap::new();
    let mut second_names = SecondNames::default();
    for (index, dir) in dirs.iter().enumerate() {
        let mut start = 0;
        while start < dir.entries.len() {
            let end = (start + CHUNK).min(dir.entries.len());
            chunks.push(Chunk { dir: index, entries: start..end });
            start = end;
        }
        for (number, entry) in dir.entries.iter().enumerate() {
            if let Some(inode) = entry.links {
                let first = *first_names.entry(inode).or_insert((index, number));
                if first != (index, number) {
                    // In order of both indices, which is what the search relies on.
                    second_names.0.push(((index, number), first));
                }
            }
        }
    }
    (chunks, second_names)
}
