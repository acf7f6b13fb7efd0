//! From the sources of an instruction to the files that they are.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rbuild_image::layer::FileTimes;
use rbuild_parser::ignore_file::Patterns;
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{FileKind, Time};
use rbuild_types::{CancelToken, Digest};

use super::chmod::Chmod;
use super::digest::{self, Input, Overrides};
use super::error::{Absence, CopyError, IgnoredBy};
use super::pattern::{DoubleStar, Hit, has_wildcards, last_name, names, parents};
use super::tree::{Dir, Entry, SourceTree};
use super::walk::{Contents, Filter, Start, Walker};

/// Mode of a file that is written in the Dockerfile.
const INLINE_MODE: u32 = 0o644;

/// The files that a COPY or ADD names, as they were found.
#[derive(Debug, Clone)]
pub struct Selection {
    pub(crate) items: Vec<Item>,
    pub(crate) digest: Digest,
}

/// One thing to copy: a named file, a match of a pattern, the contents of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Index into the op's sources.
    pub(crate) source: usize,
    pub(crate) kind: ItemKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ItemKind {
    /// A file from the Dockerfile.
    Inline { entry: Box<Entry>, content: String },
    /// One file: the real directory it is in, what it is (with its real name), and the name it
    /// was asked for by.
    File { dir: PathBuf, entry: Box<Entry>, name: OsString },
    /// Contents of directories, parents first; the first is the top and has an empty path.
    Dir { dirs: Vec<Dir> },
}

impl Selection {
    /// What a key holds of the files: see the header of `digest.rs`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether nothing at all was selected, as by a pattern without a match.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Every selected file, to explain why a key differs.
    pub fn inputs(&self) -> Vec<Input> {
        digest::inputs(&self.items)
    }
}

/// Finds and hashes what `op` copies. Reads only.
///
/// `tree_of` gives the tree of a source; it is not asked for inline and empty sources.
///
/// # Errors
/// A plain path that is not there (or hidden by an ignore file), a bad pattern or `--chmod`, or a
/// failure to read.
pub fn select<'a>(
    op: &Copy,
    tree_of: &dyn Fn(&CopySource) -> Option<SourceTree<'a>>,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
) -> Result<Selection, CopyError> {
    let mut items = find(op, tree_of, pool, cancel, Contents::Hash)?;
    if let Some(latest) = op.latest {
        clamp(&mut items, latest);
    }
    let chmod = Chmod::parse(op.chmod.as_deref().unwrap_or_default())?;
    let overrides = Overrides { chmod: chmod.as_ref(), owner: op.chown.is_some() };
    let digest = digest::digest(&items, &overrides);
    Ok(Selection { items, digest })
}

/// Gives what was found no later time than that: whatever is copied has it from the start.
fn clamp(items: &mut [Item], latest: i64) {
    let clamp = |entry: &mut Entry| entry.mtime = FileTimes::AtMost(latest).of(entry.mtime);
    for item in items {
        match &mut item.kind {
            ItemKind::Inline { entry, .. } | ItemKind::File { entry, .. } => clamp(entry),
            ItemKind::Dir { dirs } => {
                dirs.iter_mut().flat_map(|dir| &mut dir.entries).for_each(clamp);
            }
        }
    }
}

/// Finds what `op` copies.
pub(super) fn find<'a>(
    op: &Copy,
    tree_of: &dyn Fn(&CopySource) -> Option<SourceTree<'a>>,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
    contents: Contents,
) -> Result<Vec<Item>, CopyError> {
    Chmod::parse(op.chmod.as_deref().unwrap_or_default())?;
    let exclude = Patterns::from_list(&op.exclude)
        .map_err(|diagnostic| CopyError::BadExclude { message: diagnostic.message })?;
    let mut items = Vec::new();
    for (index, source) in op.sources.iter().enumerate() {
        cancel.check()?;
        let path = match source {
            CopySource::Context { path, .. } | CopySource::Input { path, .. } => path,
            CopySource::Inline { name, content } => {
                items.push(Item { source: index, kind: inline(name, content) });
                continue;
            }
            CopySource::Empty { path } => {
                if !names(path).is_empty() && !has_wildcards(path) {
                    return Err(not_found("scratch", path, UNKNOWN));
                }
                continue;
            }
        };
        let tree = tree_of(source).ok_or_else(|| match source {
            CopySource::Context { path, .. } => CopyError::NoContext { path: path.clone() },
            _ => CopyError::NoTree { index },
        })?;
        let walker = Walker {
            tree: &tree,
            root: tree.root,
            stamps: tree.stamps,
            filter: Filter { ignore: tree.ignore, exclude: Some(&exclude) },
            cancel,
            contents,
        };
        let search = Search { walker, path, pool };
        let kinds = if op.parents { search.with_parents()? } else { search.plain()? };
        items.extend(kinds.into_iter().map(|kind| Item { source: index, kind }));
    }
    Ok(items)
}

fn inline(name: &str, content: &str) -> ItemKind {
    let entry = Entry {
        name: name.into(),
        kind: FileKind::Regular,
        mode: INLINE_MODE,
        uid: 0,
        gid: 0,
        size: content.len() as u64,
        rdev: 0,
        mtime: Time::default(),
        links: None,
        digest: Some(Digest::of(content)),
        target: None,
        capability: None,
        made_up: true,
        only_above: false,
    };
    ItemKind::Inline { entry: Box::new(entry), content: content.to_owned() }
}

/// Until somebody has looked for a near name.
const UNKNOWN: Absence = Absence::Unknown { near: None };

fn not_found(tree: &str, path: &str, why: Absence) -> CopyError {
    let path = format!("/{}", names(path).join("/"));
    CopyError::NotFound { tree: tree.to_owned(), path, why: Box::new(why) }
}

/// One source of an instruction.
struct Search<'a> {
    walker: Walker<'a>,
    path: &'a str,
    pool: &'a rayon::ThreadPool,
}

impl Search<'_> {
    fn not_found(&self, why: Absence) -> CopyError {
        let why = match why {
            Absence::Unknown { near: None } => {
                Absence::Unknown { near: self.walker.near(self.path) }
            }
            known => known,
        };
        not_found(&self.walker.tree.name, self.path, why)
    }

    /// Without `--parents`: each match is a file, or a directory whose contents are copied.
    fn plain(&self) -> Result<Vec<ItemKind>, CopyError> {
        let wild = has_wildcards(self.path);
        if names(self.path).is_empty() {
            let dirs = self.walk(PathBuf::from("/"))?;
            return Ok(vec![ItemKind::Dir { dirs }]);
        }
        let hits = self.walker.expand(Path::new("/"), self.path, DoubleStar::LikeStar)?;
        if !wild {
            let Some(hit) = hits.first() else { return Err(self.not_found(UNKNOWN)) };
            return match self.take(hit)? {
                Taken::Item(kind) => Ok(vec![kind]),
                Taken::Missing(why) | Taken::Broken(why) => Err(self.not_found(why)),
            };
        }
        let taken: Vec<Taken> = self
            .pool
            .install(|| hits.par_iter().map(|hit| self.take(hit)).collect::<Result<_, _>>())?;
        let mut kinds = Vec::new();
        for (hit, taken) in hits.iter().zip(taken) {
            match taken {
                Taken::Item(kind) => kinds.push(kind),
                Taken::Missing(_) => {}
                Taken::Broken(why) => {
                    let path = hit.path.to_string_lossy();
                    return Err(not_found(&self.walker.tree.name, &path, why));
                }
            }
        }
        Ok(kinds)
    }

    /// The file or directory that a match is, after following it if it is a link. `--exclude` is
    /// about what is in a directory, never about what the source names itself: so it is in BuildKit,
    /// against its manual.
    fn take(&self, hit: &Hit) -> Result<Taken, CopyError> {
        let ignore = Filter { exclude: None, ..self.walker.filter };
        // The name as written and the place it leads to must both be in the context.
        let written = ignore.judge(&hit.path, Path::new(""));
        let name = last_name(&hit.path);
        let missing = |why| match hit.kind {
            FileKind::Symlink if written.visible => Taken::Broken(why),
            _ => Taken::Missing(why),
        };
        let Some((source, kind)) = self.walker.follow(&hit.source)? else {
            let target = match hit.kind {
                FileKind::Symlink => self.walker.root.read_link(&hit.source).ok(),
                _ => None,
            };
            return Ok(missing(match target {
                Some(target) => Absence::Dangling(target.to_string_lossy().into_owned()),
                None => UNKNOWN,
            }));
        };
        let real = ignore.judge(&source, Path::new(""));
        let hidden = || missing(Absence::Ignored(self.walker.ignored_by(&[&hit.path, &source])));
        if kind == FileKind::Directory {
            if !(written.descend && real.descend) {
                return Ok(hidden());
            }
            let dirs = self.walk(source.clone())?;
            let empty = dirs.first().is_none_or(|top| top.entries.is_empty());
            if empty && !(written.visible && real.visible) {
                return Ok(hidden());
            }
            return Ok(Taken::Item(ItemKind::Dir { dirs }));
        }
        if !(written.visible && real.visible) {
            return Ok(hidden());
        }
        let directory = source.parent().unwrap_or(Path::new("/")).to_owned();
        match self.describe(&directory, &source)? {
            Some(entry) => {
                let (entry, name) = (Box::new(entry), name.to_owned());
                Ok(Taken::Item(ItemKind::File { dir: directory, entry, name }))
            }
            None => Ok(Taken::Missing(UNKNOWN)),
        }
    }

    fn describe(&self, directory: &Path, source: &Path) -> Result<Option<Entry>, CopyError> {
        let held = self
            .walker
            .root
            .open_real_dir(directory)
            .map_err(|error| self.walker.error(directory, error))?;
        self.walker.describe(&held, directory, last_name(source))
    }

    fn walk(&self, source: PathBuf) -> Result<Vec<Dir>, CopyError> {
        self.walker.walk(vec![Start { path: PathBuf::new(), source }], self.pool)
    }

    /// With `--parents`: one directory item, in which every match has the directories above it,
    /// from the pivot `/./` on.
    fn with_parents(&self) -> Result<Vec<ItemKind>, CopyError> {
        let (base, rest) = self.path.split_once("/./").unwrap_or(("/", self.path));
        let tops = if names(base).is_empty() {
            vec![PathBuf::from("/")]
        } else {
            let mut tops = Vec::new();
            for hit in self.walker.expand(Path::new("/"), base, DoubleStar::AnyDepth)? {
                if let Some((top, FileKind::Directory)) = self.walker.follow(&hit.source)? {
                    tops.push(top);
                }
            }
            tops
        };
        let wild = has_wildcards(self.path);
        let mut kinds = Vec::new();
        let mut why = UNKNOWN;
        for top in tops {
            if names(rest).is_empty() {
                kinds.push(ItemKind::Dir { dirs: self.walk(top)? });
                continue;
            }
            let hits = self.walker.expand(&top, rest, DoubleStar::AnyDepth)?;
            match self.kept(&top, &hits)? {
                Kept::Dirs(dirs) => kinds.push(ItemKind::Dir { dirs }),
                // The destination is made all the same, as in BuildKit.
                _ if wild => kinds.push(ItemKind::Dir { dirs: vec![Dir::first(&top)] }),
                Kept::Excluded => why = Absence::Excluded,
                Kept::Ignored(rule) => why = Absence::Ignored(rule),
                Kept::Nothing => {}
            }
        }
        if kinds.is_empty() && !wild {
            return Err(self.not_found(why));
        }
        Ok(kinds)
    }

    /// Puts matches below `top` together with the directories above them.
    fn kept(&self, top: &Path, hits: &[Hit]) -> Result<Kept, CopyError> {
        let (mut starts, mut hidden, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let mut inside: Option<&Path> = None;
        for hit in hits {
            if inside.is_some_and(|dir| hit.path.starts_with(dir)) {
                continue;
            }
            let verdict = self.walker.filter.judge(&hit.source, &hit.path);
            if hit.kind == FileKind::Directory && verdict.descend {
                inside = Some(&hit.path);
                if !verdict.visible {
                    hidden.push(hit.path.clone());
                }
                starts.push(Start { path: hit.path.clone(), source: hit.source.clone() });
            } else if hit.kind != FileKind::Directory && verdict.visible {
                files.push(hit);
            }
        }
        let tops: Vec<(PathBuf, PathBuf)> =
            starts.iter().map(|start| (start.path.clone(), start.source.clone())).collect();
        let mut dirs: BTreeMap<PathBuf, Dir> = self
            .walker
            .walk(starts, self.pool)?
            .into_iter()
            .map(|dir| (dir.path.clone(), dir))
            .collect();
        for path in &hidden {
            if dirs.get(path).is_some_and(|dir| dir.entries.is_empty()) {
                dirs.remove(path);
            }
        }
        let mut kept: Vec<(&Path, &Path)> = tops
            .iter()
            .filter(|(path, _)| dirs.contains_key(path))
            .map(|(path, source)| (path.as_path(), source.as_path()))
            .collect();
        kept.extend(files.iter().map(|hit| (hit.path.as_path(), hit.source.as_path())));
        if kept.is_empty() {
            let ignore = Filter { exclude: None, ..self.walker.filter };
            let shown = |hit: &Hit| ignore.judge(&hit.source, Path::new("")).visible;
            return Ok(if hits.is_empty() {
                Kept::Nothing
            } else if hits.iter().any(shown) {
                Kept::Excluded
            } else {
                let sources: Vec<&Path> = hits.iter().map(|hit| hit.source.as_path()).collect();
                Kept::Ignored(self.walker.ignored_by(&sources))
            });
        }
        for (path, source) in kept {
            self.add_parents(top, path, &mut dirs)?;
            let directory = source.parent().unwrap_or(Path::new("/"));
            if let Some(entry) = self.describe(directory, source)? {
                add(&mut dirs, path, entry);
            }
        }
        dirs.entry(PathBuf::new()).or_insert_with(|| Dir::first(top));
        let mut dirs: Vec<Dir> = dirs.into_values().collect();
        for dir in &mut dirs {
            dir.entries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(Kept::Dirs(dirs))
    }

    /// Makes sure that every directory above `path` is in `dirs`, and in its own parent.
    fn add_parents(
        &self,
        top: &Path,
        path: &Path,
        dirs: &mut BTreeMap<PathBuf, Dir>,
    ) -> Result<(), CopyError> {
        dirs.entry(PathBuf::new()).or_insert_with(|| Dir::first(top));
        for parent in parents(path) {
            if dirs.contains_key(&parent) {
                continue;
            }
            // A link on the way becomes a directory with the attributes of its target.
            let Some((source, _)) = self.walker.follow(&top.join(&parent))? else { continue };
            let held = self
                .walker
                .root
                .open_real_dir(&source)
                .and_then(|held| held.metadata())
                .map_err(|error| self.walker.error(&source, error))?;
            let name = last_name(&parent).to_owned();
            let entry = Entry::from_metadata(name, &held, self.walker.tree.owner);
            let entry = Entry { only_above: true, ..entry };
            dirs.insert(parent.clone(), Dir { path: parent.clone(), source, entries: Vec::new() });
            add(dirs, &parent, entry);
        }
        Ok(())
    }
}

/// Puts an entry into the directory that holds `path`. No path comes twice: matches are unique,
/// and what is below a matched directory is not taken again.
fn add(dirs: &mut BTreeMap<PathBuf, Dir>, path: &Path, entry: Entry) {
    let parent = path.parent().unwrap_or(Path::new(""));
    if let Some(dir) = dirs.get_mut(parent) {
        dir.entries.push(entry);
    }
}

/// What became of one match.
enum Taken {
    Item(ItemKind),
    Missing(Absence),
    /// It is a link, and there is nothing where it leads. Also among the matches of a pattern that
    /// is an error, as in BuildKit: what the pattern names would be missing without a word.
    Broken(Absence),
}

/// What became of the matches below one pivot.
enum Kept {
    Dirs(Vec<Dir>),
    /// `--exclude` leaves all of them out.
    Excluded,
    /// The ignore file hides all of them.
    Ignored(Option<IgnoredBy>),
    Nothing,
}
