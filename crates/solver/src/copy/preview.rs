//! What would be copied, and what an ignore file does: for people, without hashing anything.

use std::path::{Path, PathBuf};

use rbuild_parser::ignore_file::MatchedAbove;
use rbuild_plan::op::{ContextName, Copy, CopySource};
use rbuild_rooted::{FileKind, Follow, RootedError};
use rbuild_types::CancelToken;

use super::digest::{self, Input};
use super::error::{CopyError, IgnoredBy};
use super::select::find;
use super::tree::{SourceTree, shown};
use super::walk::Contents;

/// The files that `op` selects, without their digests. Nothing is read but directories.
///
/// # Errors
///
/// As [`super::select`].
pub fn preview<'a>(
    op: &Copy,
    tree_of: &dyn Fn(&CopySource) -> Option<SourceTree<'a>>,
    pool: &rayon::ThreadPool,
    cancel: &CancelToken,
) -> Result<Vec<Input>, CopyError> {
    Ok(digest::inputs(&find(op, tree_of, pool, cancel, Contents::Leave)?))
}

/// A copy of `path` in a context to the same path: what a bind mount of it shows.
pub fn shown_by_mount(context: &ContextName, path: &str) -> Copy {
    let source = CopySource::Context { context: context.clone(), path: literal(path) };
    Copy::plain(vec![source], if path.is_empty() { "/" } else { path })
}

/// A path as a source of a copy that names nothing else: the source of a mount is no pattern.
pub fn literal(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for letter in path.chars() {
        if "*?[\\".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// A path that a rule of the ignore file decided on. Of directories that are left out whole, or
/// brought back whole, the topmost stands for what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// From the tree's root, without a slash in front.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it is left out; else it was brought back.
    pub ignored: bool,
    /// The rule.
    pub by: IgnoredBy,
    /// Files that it stands for.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What an ignore file does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Every path that is left out or was brought back, in the order of names.
    pub paths: Vec<Decided>,
    /// Rules that change nothing.
    pub idle: Vec<IgnoredBy>,
    /// Directories that could not be read; nothing is known of what is in them.
    pub unread: Vec<String>,
}

/// One path of the tree.
struct Seen {
    path: PathBuf,
    directory: bool,
    ignored: bool,
    rule: Option<usize>,
    size: u64,
    /// Index of its directory.
    parent: Option<usize>,
}

/// Finds out what the ignore rules of a tree do to each path in it.
///
/// # Errors
///
/// When the caller asks to stop.
pub fn decisions(tree: &SourceTree<'_>, cancel: &CancelToken) -> Result<Decisions, CopyError> {
    let Some(rules) = tree.ignore.filter(|rules| !rules.is_empty()) else {
        return Ok(Decisions::default());
    };
    let mut decisions = Decisions::default();
    let mut idle = vec![true; rules.rules().count()];
    let mut seen: Vec<Seen> = Vec::new();
    let mut waiting = vec![(PathBuf::new(), None, MatchedAbove::default())];
    while let Some((directory, parent, above)) = waiting.pop() {
        cancel.check()?;
        let Ok(listed) = list(tree, &directory) else {
            decisions.unread.push(shown(&directory));
            continue;
        };
        for (name, kind, size) in listed {
            let path = directory.join(name);
            let (verdict, matched) = rules.matches_below(&path.to_string_lossy(), &above);
            for index in matched.matched() {
                if let Some(idle) = idle.get_mut(index) {
                    *idle = false;
                }
            }
            let is_directory = kind == FileKind::Directory;
            if is_directory {
                waiting.push((path.clone(), Some(seen.len()), matched));
            }
            seen.push(Seen {
                path,
                directory: is_directory,
                ignored: verdict.excluded,
                rule: verdict.rule,
                size: if kind == FileKind::Regular { size } else { 0 },
                parent,
            });
        }
    }
    let named = |index: usize| {
        let rule = rules.rule(index)?;
        let file = tree.ignore_file.to_owned();
        Some(IgnoredBy { file, line: rule.line, rule: rule.text.to_owned() })
    };
    decisions.idle = idle
        .iter()
        .enumerate()
        .filter(|(_, idle)| **idle)
        .filter_map(|(at, _)| named(at))
        .collect();
    decisions.paths = topmost(&seen, &named);
    decisions.paths.sort_by(|a, b| a.path.cmp(&b.path));
    decisions.unread.sort();
    Ok(decisions)
}

type Listed = Vec<(std::ffi::OsString, FileKind, u64)>;

fn list(tree: &SourceTree<'_>, directory: &Path) -> Result<Listed, RootedError> {
    let held = tree.root.open_real_dir(Path::new("/").join(directory))?;
    let mut listed = Vec::new();
    for entry in held.read_dir("")? {
        // It may have gone since it was listed.
        if let Some(found) = held.stat(Path::new(&entry.name), Follow::No)? {
            listed.push((entry.name, found.kind, found.size));
        }
    }
    Ok(listed)
}

/// Puts what is below a directory of the same fate into the directory. In `seen` directories come
/// before what is in them.
fn topmost(seen: &[Seen], named: &dyn Fn(usize) -> Option<IgnoredBy>) -> Vec<Decided> {
    let count = |one: &Seen| (u64::from(!one.directory), one.size);
    let mut totals: Vec<(u64, u64)> = seen.iter().map(count).collect();
    // Whether everything below has the same fate, whichever rule said so.
    let mut whole = vec![true; seen.len()];
    for (index, one) in seen.iter().enumerate().rev() {
        let (Some(parent), Some(total)) = (one.parent, totals.get(index).copied()) else {
            continue;
        };
        let is_whole = whole.get(index).copied().unwrap_or_default();
        if let (Some(sum), Some(all), Some(above)) =
            (totals.get_mut(parent), whole.get_mut(parent), seen.get(parent))
        {
            sum.0 += total.0;
            sum.1 += total.1;
            *all &= is_whole && above.ignored == one.ignored;
        }
    }
    let mut covered = vec![false; seen.len()];
    let mut decided = Vec::new();
    for (index, one) in seen.iter().enumerate() {
        let above = one.parent.and_then(|parent| seen.get(parent).zip(covered.get(parent)));
        let same_fate = above.is_some_and(|(above, covered)| {
            *covered && above.ignored == one.ignored && (one.ignored || above.rule.is_some())
        });
        let is_whole = whole.get(index).copied().unwrap_or_default();
        if let Some(covered) = covered.get_mut(index) {
            *covered = same_fate || is_whole && one.rule.is_some();
        }
        // A directory that is left out and holds something that is not says nothing itself.
        if same_fate || one.directory && !is_whole {
            continue;
        }
        let Some(by) = one.rule.and_then(named) else { continue };
        let (files, bytes) = totals.get(index).copied().unwrap_or_default();
        decided.push(Decided {
            path: shown(&one.path),
            directory: one.directory,
            ignored: one.ignored,
            by,
            files,
            bytes,
        });
    }
    decided
}
