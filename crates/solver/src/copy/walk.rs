//! Walking directories of a source, in parallel, below the ignore and exclude rules.
//!
//! One task per directory. A task opens its directory by the real path from the tree's root,
//! with links refused, so no task holds a descriptor for another one and a directory that is
//! swapped for a link meanwhile is an error. Everything in it is then one name below that
//! descriptor. Results go to one list under a lock and are sorted at the end, so the order of
//! tasks does not show.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use rbuild_parser::ignore_file::{MatchedAbove, Patterns};
use rbuild_rooted::{DirEntry, FileKind, Follow, Root, RootedError};
use rbuild_types::CancelToken;

use super::content;
use super::error::CopyError;
use super::pattern::parents;
use super::tree::{Dir, Entry, SourceTree, shown, stamp_of};

/// Entries of one directory that one thread looks at before others may help.
const CHUNK: usize = 256;

/// The rules that hold for one source.
#[derive(Clone, Copy)]
pub(crate) struct Filter<'a> {
    /// By the path from the tree's root.
    pub(crate) ignore: Option<&'a Patterns>,
    /// By the path from the top of what is copied.
    pub(crate) exclude: Option<&'a Patterns>,
}

/// What the rules say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) visible: bool,
    /// Whether something below it may be visible.
    pub(crate) descend: bool,
}

/// Which rules hold for a directory already, so that they are not tried again for all that is in
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Above {
    ignore: MatchedAbove,
    exclude: MatchedAbove,
}

impl Filter<'_> {
    /// Whether there is any rule.
    fn is_empty(&self) -> bool {
        self.ignore.is_none_or(Patterns::is_empty) && self.exclude.is_none_or(Patterns::is_empty)
    }

    /// Judges a path with everything above it.
    pub(crate) fn judge(&self, source: &Path, inside: &Path) -> Verdict {
        let mut verdict = Verdict { visible: true, descend: true };
        for (patterns, path) in [(self.ignore, source), (self.exclude, inside)] {
            let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) else { continue };
            let path = path.strip_prefix("/").unwrap_or(path);
            if !path.as_os_str().is_empty() {
                verdict.add(patterns.matches(&path.to_string_lossy()).excluded, patterns);
            }
        }
        verdict
    }

    /// Judges a name in a directory that gave `above`.
    fn judge_below(&self, above: &Above, dir: &Start, name: &OsStr) -> (Verdict, Above) {
        let mut verdict = Verdict { visible: true, descend: true };
        let mut here = Above::default();
        for (patterns, path, above, here) in [
            (self.ignore, &dir.source, &above.ignore, &mut here.ignore),
            (self.exclude, &dir.path, &above.exclude, &mut here.exclude),
        ] {
            let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) else { continue };
            // Paths are only put together where there are rules: this runs once per file.
            let path = path.strip_prefix("/").unwrap_or(path).join(name);
            let (judged, matched) = patterns.matches_below(&path.to_string_lossy(), above);
            *here = matched;
            verdict.add(judged.excluded, patterns);
        }
        (verdict, here)
    }

    /// What holds for a directory that a walk starts at.
    fn above(&self, source: &Path, inside: &Path) -> Above {
        let fold = |patterns: Option<&Patterns>, path: &Path| {
            let Some(patterns) = patterns else { return MatchedAbove::default() };
            let path = path.strip_prefix("/").unwrap_or(path);
            let mut matched = MatchedAbove::default();
            for directory in parents(path).iter().map(PathBuf::as_path).chain([path]) {
                if !directory.as_os_str().is_empty() {
                    matched = patterns.matches_below(&directory.to_string_lossy(), &matched).1;
                }
            }
            matched
        };
        Above { ignore: fold(self.ignore, source), exclude: fold(self.exclude, inside) }
    }
}

impl Verdict {
    fn add(&mut self, excluded: bool, by: &Patterns) {
        if excluded {
            self.visible = false;
            self.descend &= by.has_exceptions();
        }
    }
}

/// A directory to walk: where it goes and where it is.
pub(crate) struct Start {
    pub(crate) path: PathBuf,
    pub(crate) source: PathBuf,
}

/// What a walk is done with.
#[derive(Clone, Copy)]
pub(crate) struct Walker<'a> {
    pub(crate) tree: &'a SourceTree<'a>,
    pub(crate) root: &'a Root,
    pub(crate) stamps: Option<&'a dyn super::tree::DigestCache>,
    pub(crate) filter: Filter<'a>,
    pub(crate) cancel: &'a CancelToken,
    /// Whether files are hashed; a listing does not need it.
    pub(crate) contents: Contents,
}

/// Whether files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    Hash,
    Leave,
}

/// A visible path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Absolute from the tree's root.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
}

/// Everything of a tree that its ignore rules leave visible, parents before children: what a
/// bind mount of the context may show.
pub fn list(
    tree: &SourceTree<'_>,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
) -> Result<Vec<Visible>, CopyError> {
    let start = Start { path: PathBuf::new(), source: PathBuf::from("/") };
    let filter = Filter { ignore: tree.ignore, exclude: None };
    let walker =
        Walker { tree, root: tree.root, stamps: None, filter, cancel, contents: Contents::Leave };
    let dirs = walker.walk(vec![start], pool)?;
    Ok(dirs
        .iter()
        .flat_map(|dir| {
            dir.entries
                .iter()
                .map(|entry| Visible { path: dir.source.join(&entry.name), kind: entry.kind })
        })
        .collect())
}

/// A directory that was walked, before those without anything visible are left out.
struct Walked {
    dir: Dir,
    visible: bool,
}

/// One directory to look at.
struct Task {
    start: Start,
    above: Above,
    visible: bool,
}

/// One name that was looked at.
struct Looked {
    entry: Entry,
    verdict: Verdict,
    above: Above,
}

/// What the tasks of one walk share.
struct Shared {
    walked: Mutex<Vec<Walked>>,
    failed: Mutex<Option<CopyError>>,
}

impl<'a> Walker<'a> {
    /// Walks everything below `starts`; the result is sorted by `path`, name by name.
    pub(crate) fn walk(
        &self,
        starts: Vec<Start>,
        pool: &rayon::ThreadPool,
    ) -> Result<Vec<Dir>, CopyError> {
        let shared = Shared { walked: Mutex::default(), failed: Mutex::default() };
        pool.scope(|scope| {
            for start in starts {
                let above = self.filter.above(&start.source, &start.path);
                self.spawn(scope, &shared, Task { start, above, visible: true });
            }
        });
        if let Some(error) = lock(&shared.failed).take() {
            return Err(error);
        }
        let mut walked = std::mem::take(&mut *lock(&shared.walked));
        walked.sort_unstable_by(|a, b| a.dir.path.cmp(&b.dir.path));
        Ok(without_invisible(walked))
    }

    fn spawn<'s>(&'s self, scope: &rayon::Scope<'s>, shared: &'s Shared, task: Task) {
        scope.spawn(move |scope| {
            if lock(&shared.failed).is_some() {
                return;
            }
            let visible = task.visible;
            match self.visit(scope, shared, task) {
                Ok(dir) => lock(&shared.walked).push(Walked { dir, visible }),
                Err(error) => {
                    lock(&shared.failed).get_or_insert(error);
                }
            }
        });
    }

    fn visit<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        shared: &'s Shared,
        task: Task,
    ) -> Result<Dir, CopyError> {
        self.cancel.check()?;
        let Task { start, above, .. } = task;
        let error = |error| self.error(&start.source, error);
        let held = self.root.open_real_dir(&start.source).map_err(error)?;
        let names = held.read_dir("").map_err(error)?;
        let look = |name: &DirEntry| self.look(&held, &start, &above, name);
        let looked: Vec<Option<Looked>> = if names.len() > CHUNK {
            names.par_iter().with_min_len(CHUNK).map(look).collect::<Result<_, _>>()?
        } else {
            names.iter().map(look).collect::<Result<_, _>>()?
        };
        let mut entries = Vec::with_capacity(looked.len());
        for Looked { entry, verdict, above } in looked.into_iter().flatten() {
            if entry.kind == FileKind::Directory {
                let below = Start {
                    path: start.path.join(&entry.name),
                    source: start.source.join(&entry.name),
                };
                let task = Task { start: below, above, visible: verdict.visible };
                self.spawn(scope, shared, task);
            }
            entries.push(entry);
        }
        Ok(Dir { path: start.path, source: start.source, entries })
    }

    /// Describes one name; `None` when it is hidden or has gone since it was listed.
    fn look(
        &self,
        held: &Root,
        start: &Start,
        above: &Above,
        name: &DirEntry,
    ) -> Result<Option<Looked>, CopyError> {
        let mut verdict = Verdict { visible: true, descend: true };
        let mut here = Above::default();
        if !self.filter.is_empty() {
            (verdict, here) = self.filter.judge_below(above, start, &name.name);
            let may_hold = name.kind == FileKind::Directory && verdict.descend;
            if !verdict.visible && !may_hold {
                return Ok(None);
            }
        }
        let entry = self.describe(held, &start.source, &name.name)?;
        Ok(entry
            .filter(|entry| verdict.visible || entry.kind == FileKind::Directory)
            .map(|entry| Looked { entry, verdict, above: here }))
    }

    /// What `name` in the held directory is; `None` when nothing is there.
    pub(crate) fn describe(
        &self,
        held: &Root,
        directory: &Path,
        name: &OsStr,
    ) -> Result<Option<Entry>, CopyError> {
        let path = Path::new(name);
        let error = |error| self.error(&directory.join(name), error);
        let Some(metadata) = held.stat(path, Follow::No).map_err(error)? else {
            return Ok(None);
        };
        let owner = self.tree.owner;
        let mut entry = Entry::from_metadata(name.to_owned(), &metadata, owner);
        match metadata.kind {
            FileKind::Symlink => entry.target = Some(held.read_link(path).map_err(error)?),
            FileKind::Regular if self.contents == Contents::Hash => {
                let stamp = stamp_of(&metadata);
                match self.stamps.and_then(|stamps| stamps.get(&stamp)) {
                    Some(digest) => entry.digest = Some(digest),
                    None => self.hash(held, directory, &mut entry)?,
                }
                if !owner.is_context() {
                    entry.capability =
                        held.get_xattr(path, "security.capability").map_err(error)?;
                }
            }
            _ => {}
        }
        Ok(Some(entry))
    }

    /// Reads the file; its attributes are then those of the descriptor that was read.
    fn hash(&self, held: &Root, directory: &Path, entry: &mut Entry) -> Result<(), CopyError> {
        let path = directory.join(&entry.name);
        let error = |error| self.error(&path, error);
        let (file, before) =
            held.open_seen_file(Path::new(&entry.name)).map_err(|failure| match failure {
                RootedError::WrongKind { .. } => self.changed(&path),
                failure => error(failure),
            })?;
        let content = content::hash(&file, self.cancel)
            .map_err(|failure| failure.named(&self.tree.name, &shown(&path), ""))?;
        let name = std::mem::take(&mut entry.name);
        *entry = Entry::from_metadata(name, &before, self.tree.owner);
        entry.size = content.size;
        entry.digest = Some(content.digest);
        if let Some(stamps) = self.stamps {
            let stamp = stamp_of(&before);
            // Unchanged while it was read, or it is not worth remembering.
            let after = rustix::fs::fstat(&file)
                .map(|stat| stamp_of(&rbuild_rooted::Metadata::from_stat(&stat)));
            if after == Ok(stamp) && stamp.size == content.size {
                stamps.insert(stamp, content.digest);
            }
        }
        Ok(())
    }

    pub(crate) fn error(&self, path: &Path, source: RootedError) -> CopyError {
        CopyError::Source { tree: self.tree.name.clone(), path: shown(path), source }
    }

    fn changed(&self, path: &Path) -> CopyError {
        CopyError::Changed { tree: self.tree.name.clone(), path: shown(path) }
    }
}

/// Leaves out hidden directories in which nothing is visible. `walked` is sorted; the first of
/// each walk is what was asked for and stays.
fn without_invisible(mut walked: Vec<Walked>) -> Vec<Dir> {
    if walked.iter().any(|walked| !walked.visible) {
        let mut dropped: HashSet<PathBuf> = HashSet::new();
        // Children come after their parents, so they are decided first.
        for walked in walked.iter_mut().rev() {
            let path = &walked.dir.path;
            walked.dir.entries.retain(|entry| {
                entry.kind != FileKind::Directory || !dropped.contains(&path.join(&entry.name))
            });
            if !walked.visible && walked.dir.entries.is_empty() {
                dropped.insert(path.clone());
            }
        }
        walked.retain(|walked| !dropped.contains(&walked.dir.path));
    }
    walked.into_iter().map(|walked| walked.dir).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
