//! What became of every path of an image, layer by layer.
//!
//! Memory: an entry for each path that is no directory, and a few words for each layer that says
//! something of it; about 150 bytes beside the path itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

/// What a layer says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// Index of the layer.
    layer: u16,
    /// Bytes of the file; `None` where the path is taken away.
    size: Option<u64>,
}

/// What became of a version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in the image's root filesystem.
    Kept,
    /// The layer of this index has another version.
    Replaced(usize),
    /// The layer of this index takes it away.
    Removed(usize),
}

/// A file as one layer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathVersion<'a> {
    /// Its path, without a slash in front.
    pub path: &'a [u8],
    /// Index of the layer, 0 for the bottom one.
    pub layer: usize,
    /// Bytes. A further name of a file in its layer has none.
    pub size: u64,
    /// Whether a layer below has the path too.
    pub is_change: bool,
    /// What became of it.
    pub fate: Fate,
}

/// What a layer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doings {
    pub(crate) added: u64,
    pub(crate) changed: u64,
    pub(crate) removed: u64,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Bytes of those that a layer above hides.
    pub(crate) wasted: u64,
}

/// All paths that are no directories, with what each layer says of them, the lowest first.
#[derive(Debug, Default)]
pub(crate) struct PathHistory {
    paths: BTreeMap<Vec<u8>, Vec<Said>>,
    layers: Vec<Doings>,
}

/// What a layer digest and its history line do not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    /// Bytes of all files of all layers.
    pub(crate) total: u64,
    /// Bytes of those that no layer above hides.
    pub(crate) kept: u64,
    /// Sum of the smallest size that each path ever had; 0 for what is not there in the end.
    smallest: u64,
}

impl Sums {
    /// dive's measure: 1 where every path has one version. A directory that is removed counts as
    /// all the files in it.
    pub(crate) fn efficiency(&self) -> f64 {
        match self.total {
            0 => 1.0,
            total => self.smallest as f64 / total as f64,
        }
    }
}

impl PathHistory {
    /// What is said from now on, the next layer says.
    pub(crate) fn begin_layer(&mut self) {
        self.layers.push(Doings::default());
    }

    fn layer(&self) -> u16 {
        u16::try_from(self.layers.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    fn doings(&mut self) -> &mut Doings {
        if self.layers.is_empty() {
            self.begin_layer();
        }
        let last = self.layers.len() - 1;
        &mut self.layers[last]
    }

    /// The layer has a file, or anything that is no directory.
    pub(crate) fn file(&mut self, path: &[u8], size: u64) {
        self.hide_below(path);
        let said = Said { layer: self.layer(), size: Some(size) };
        let was_there = match self.paths.entry(path.to_vec()) {
            Entry::Vacant(place) => {
                place.insert(vec![said]);
                false
            }
            Entry::Occupied(mut place) => {
                let was_there = is_there(place.get());
                place.get_mut().push(said);
                was_there
            }
        };
        let doings = self.doings();
        doings.bytes += size;
        match was_there {
            true => doings.changed += 1,
            false => doings.added += 1,
        }
    }

    /// The layer has a directory, through which what is below it may show.
    pub(crate) fn directory(&mut self, path: &[u8]) {
        self.hide(path);
    }

    /// The layer takes a path away, with all that is below it.
    pub(crate) fn removed(&mut self, path: &[u8]) {
        self.hide(path);
        self.hide_below(path);
    }

    /// Takes a file away.
    fn hide(&mut self, path: &[u8]) {
        let said = Said { layer: self.layer(), size: None };
        if let Some(versions) = self.paths.get_mut(path)
            && is_there(versions)
        {
            versions.push(said);
            self.doings().removed += 1;
        }
    }

    /// Takes everything in a directory away; of the empty path, everything.
    pub(crate) fn hide_below(&mut self, path: &[u8]) {
        let said = Said { layer: self.layer(), size: None };
        let mut first = path.to_vec();
        let mut last = path.to_vec();
        let (from, to) = match path {
            [] => (Bound::Unbounded, Bound::Unbounded),
            _ => {
                first.push(b'/');
                last.push(b'/' + 1);
                (Bound::Included(first), Bound::Excluded(last))
            }
        };
        let mut removed = 0;
        for (_, versions) in self.paths.range_mut::<Vec<u8>, _>((from, to)) {
            if is_there(versions) {
                versions.push(said);
                removed += 1;
            }
        }
        self.doings().removed += removed;
    }

    /// What each layer does, and the sums over all of them.
    pub(crate) fn finish(&self) -> (Vec<Doings>, Sums) {
        let mut layers = self.layers.clone();
        let mut sums = Sums { total: 0, kept: 0, smallest: 0 };
        for versions in self.paths.values() {
            let smallest = versions.iter().map(|said| said.size.unwrap_or_default()).min();
            sums.smallest += smallest.unwrap_or_default();
            sums.total += versions.iter().filter_map(|said| said.size).sum::<u64>();
        }
        for version in self.versions() {
            match version.fate {
                Fate::Kept => sums.kept += version.size,
                Fate::Replaced(_) | Fate::Removed(_) => {
                    layers[version.layer].wasted += version.size
                }
            }
        }
        (layers, sums)
    }

    /// Every version of every file, in the order of the paths.
    pub(crate) fn versions(&self) -> impl Iterator<Item = PathVersion<'_>> {
        self.paths.iter().flat_map(|(path, versions)| {
            versions.iter().enumerate().filter_map(move |(index, said)| {
                let before = versions.get(..index).unwrap_or_default();
                let fate = match versions.get(index + 1) {
                    None => Fate::Kept,
                    Some(Said { layer, size: Some(_) }) => Fate::Replaced(usize::from(*layer)),
                    Some(Said { layer, size: None }) => Fate::Removed(usize::from(*layer)),
                };
                Some(PathVersion {
                    path,
                    layer: usize::from(said.layer),
                    size: said.size?,
                    is_change: is_there(before),
                    fate,
                })
            })
        })
    }
}

fn is_there(versions: &[Said]) -> bool {
    versions.last().is_some_and(|said| said.size.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(history: &PathHistory) -> Vec<(String, usize, u64, Fate)> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let all = history.versions();
        all.map(|one| (shown(one.path), one.layer, one.size, one.fate)).collect()
    }

    #[test]
    fn what_is_replaced_or_removed_above_is_wasted() {
        let mut history = PathHistory::default();
        history.begin_layer();
        history.directory(b"a");
        history.file(b"a/replaced", 100);
        history.file(b"a/kept", 10);
        history.file(b"gone", 30);
        history.begin_layer();
        history.directory(b"a");
        history.file(b"a/replaced", 40);
        history.removed(b"gone");
        let (layers, sums) = history.finish();
        let first = Doings { added: 3, changed: 0, removed: 0, bytes: 140, wasted: 130 };
        let second = Doings { added: 0, changed: 1, removed: 1, bytes: 40, wasted: 0 };
        assert_eq!(layers, [first, second]);
        assert_eq!((sums.total, sums.kept), (180, 50));
        // 40 for the smaller version, 10 for what was not touched, 0 for what is gone.
        assert_eq!(sums.efficiency(), 50.0 / 180.0);
        let fates = [
            ("a/kept".to_owned(), 0, 10, Fate::Kept),
            ("a/replaced".to_owned(), 0, 100, Fate::Replaced(1)),
            ("a/replaced".to_owned(), 1, 40, Fate::Kept),
            ("gone".to_owned(), 0, 30, Fate::Removed(1)),
        ];
        assert_eq!(versions(&history), fates);
    }

    #[test]
    fn a_directory_goes_with_all_that_is_in_it_and_nothing_else() {
        for way in 0..4 {
            let mut history = PathHistory::default();
            history.begin_layer();
            for path in ["d/e/f", "d/x", "d-", "d0", "d"] {
                // A file and a directory cannot have one name: `d` stands for another day.
                if path != "d" {
                    history.file(path.as_bytes(), 1);
                }
            }
            history.begin_layer();
            match way {
                0 => history.removed(b"d"),
                1 => history.hide_below(b"d"),
                2 => history.file(b"d", 5),
                _ => history.hide_below(b""),
            }
            let (layers, sums) = history.finish();
            let removed = if way == 3 { 4 } else { 2 };
            assert_eq!(layers[1].removed, removed, "{way}");
            assert_eq!(layers[0].wasted, removed);
            assert_eq!(sums.kept, 4 - removed + if way == 2 { 5 } else { 0 });
        }
    }

    #[test]
    fn a_directory_takes_the_place_of_a_file_and_back() {
        let mut history = PathHistory::default();
        history.begin_layer();
        history.file(b"x", 7);
        history.begin_layer();
        history.directory(b"x");
        history.file(b"x/y", 1);
        history.begin_layer();
        history.file(b"x", 3);
        let (layers, sums) = history.finish();
        assert_eq!((layers[1].added, layers[1].changed, layers[1].removed), (1, 0, 1));
        assert_eq!((layers[2].added, layers[2].changed, layers[2].removed), (1, 0, 1));
        assert_eq!((sums.total, sums.kept), (11, 3));
    }

    #[test]
    fn nothing_is_efficient() {
        assert_eq!(PathHistory::default().finish().1.efficiency(), 1.0);
    }
}
