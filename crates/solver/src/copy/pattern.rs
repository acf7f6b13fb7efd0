//! Finding what a source path or pattern names in a tree.
//!
//! A path is taken name by name. A plain name is looked up, a name with wildcards is compared
//! with a listing, and `**` (with `--parents` only) stands for any number of directories. Links
//! among the directories are followed inside the tree; the last name is left as it is.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_parser::ignore_file::glob_match;
use rbuild_rooted::{FileKind, Follow};

use super::error::CopyError;
use super::walk::Walker;

/// Something that a path or pattern names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The path as it was matched, from the top of the search.
    pub(crate) path: PathBuf,
    /// The real path from the tree's root; its last name may be a link.
    pub(crate) source: PathBuf,
    pub(crate) kind: FileKind,
}

/// A path as a list of names, `.` and empty ones left out and `..` resolved by text.
pub(crate) fn names(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

/// Whether a name holds a wildcard that is not behind a backslash.
pub(crate) fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether `**` is a name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoubleStar {
    AnyDepth,
    LikeStar,
}

/// A place in the search: a real directory and the names still to match.
struct Place {
    path: PathBuf,
    source: PathBuf,
    next: usize,
}

impl Walker<'_> {
    /// Everything below the real directory `top` that `pattern` names, sorted by path.
    ///
    /// Hidden directories are looked into as long as a rule may show something in them; the
    /// caller judges what is hit. Links to directories are gone through before the first wildcard,
    /// from there on they are no directories, as in BuildKit.
    pub(crate) fn expand(
        &self,
        top: &Path,
        pattern: &str,
        double_star: DoubleStar,
    ) -> Result<Vec<Hit>, CopyError> {
        let names = names(pattern);
        let literal = names.iter().take_while(|name| !has_wildcards(name)).count();
        let mut hits = BTreeMap::new();
        // With several `**` one place can be reached in many ways; once is enough.
        let mut seen = HashSet::new();
        let mut places = vec![Place { path: PathBuf::new(), source: top.to_owned(), next: 0 }];
        while let Some(place) = places.pop() {
            self.cancel.check()?;
            let Some(name) = names.get(place.next) else { continue };
            if double_star == DoubleStar::AnyDepth && !seen.insert((place.path.clone(), place.next))
            {
                continue;
            }
            let last = place.next + 1 == names.len();
            if *name == "**" && double_star == DoubleStar::AnyDepth {
                for (child, kind) in self.children(&place)? {
                    if last {
                        hits.insert(child.path.clone(), hit(&child, kind));
                    } else if kind == FileKind::Directory {
                        places.push(Place { next: place.next, ..child });
                    }
                }
                if !last {
                    places.push(Place { next: place.next + 1, ..place });
                }
                continue;
            }
            let matched = if has_wildcards(name) {
                self.matching(&place, pattern, name)?
            } else {
                self.named(&place, name)?.into_iter().collect()
            };
            for (child, kind) in matched {
                if last {
                    hits.insert(child.path.clone(), hit(&child, kind));
                } else if kind == FileKind::Directory {
                    places.push(Place { next: place.next + 1, ..child });
                } else if kind == FileKind::Symlink
                    && place.next < literal
                    && let Some((source, FileKind::Directory)) = self.follow(&child.source)?
                {
                    places.push(Place { source, next: place.next + 1, ..child });
                }
            }
        }
        Ok(hits.into_values().collect())
    }

    /// Where a path leads inside the tree, links followed; `None` when nothing is there.
    pub(crate) fn follow(&self, source: &Path) -> Result<Option<(PathBuf, FileKind)>, CopyError> {
        match self.root.resolve(source, Follow::Yes) {
            Ok(resolved) => Ok(resolved.found.map(|found| (resolved.path, found.kind))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(rbuild_rooted::RootedError::TooManyLinks { .. }) => Ok(None),
            Err(error) => Err(self.error(source, error)),
        }
    }

    /// A child by its plain name; as written, or without backslashes.
    fn named(&self, place: &Place, name: &str) -> Result<Option<(Place, FileKind)>, CopyError> {
        for name in [name.to_owned(), unescaped(name)] {
            let source = place.source.join(&name);
            let found =
                self.root.stat(&source, Follow::No).map_err(|error| self.error(&source, error));
            match found {
                Ok(Some(metadata)) => return Ok(Some((place.child(name), metadata.kind))),
                Ok(None) => {}
                Err(CopyError::Source { source, .. })
                    if source.errno() == Some(rbuild_rooted::Errno::NAMETOOLONG) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn children(&self, place: &Place) -> Result<Vec<(Place, FileKind)>, CopyError> {
        let error = |error| self.error(&place.source, error);
        let held = self.root.open_real_dir(&place.source).map_err(error)?;
        let entries = held.read_dir("").map_err(error)?;
        Ok(entries.into_iter().map(|entry| (place.child(entry.name), entry.kind)).collect())
    }

    fn matching(
        &self,
        place: &Place,
        pattern: &str,
        name: &str,
    ) -> Result<Vec<(Place, FileKind)>, CopyError> {
        let bad = |_| CopyError::BadPattern { pattern: pattern.to_owned() };
        // Also when there is nothing to compare it with.
        glob_match(name, "x").map_err(bad)?;
        let mut matched = Vec::new();
        for (child, kind) in self.children(place)? {
            let file_name = child.source.file_name().unwrap_or_default();
            if glob_match(name, &file_name.to_string_lossy()).map_err(bad)? {
                matched.push((child, kind));
            }
        }
        Ok(matched)
    }
}

impl Place {
    fn child(&self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        Self { path: self.path.join(&name), source: self.source.join(&name), next: self.next }
    }
}

fn hit(child: &Place, kind: FileKind) -> Hit {
    Hit { path: child.path.clone(), source: child.source.clone(), kind }
}

fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        });
    }
    plain
}

/// Every directory above a path, top first, without the path itself.
pub(crate) fn parents(path: &Path) -> Vec<PathBuf> {
    let mut parents: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().as_bytes().is_empty())
        .map(Path::to_path_buf)
        .collect();
    parents.reverse();
    parents
}

/// The last name of a source as it is written, for a file that goes into a directory.
pub(crate) fn last_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_text_and_stop_at_the_root() {
        assert_eq!(names("/a//./b/../c/"), ["a", "c"]);
        assert_eq!(names("../../x"), ["x"]);
        assert!(names("/").is_empty());
        assert!(has_wildcards("a*") && has_wildcards("[x]") && has_wildcards("a/?"));
        assert!(!has_wildcards("a\\*b") && !has_wildcards("{a,b}"));
        assert_eq!(unescaped("a\\*b\\"), "a*b\\");
    }
}
