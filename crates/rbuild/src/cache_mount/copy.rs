//! `rbuild cache cp`: files between a cache mount and the host, by the rules of `docker cp`.
//!
//! What is written, and how links are kept inside, is the business of the copy that `COPY` does.
//! Links that the two paths are, or lead through, are followed. One that lies where something is to
//! go is not: an earlier copy may have put it there, to lead a later one elsewhere.

use std::path::{Path, PathBuf};

use rbuild_cache::Hold;
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{Follow, Metadata, Root};
use rbuild_solver::StepError;
use rbuild_solver::copy::{OwnerRule, Ownership, SourceTree, Target, apply, literal, select};
use rbuild_types::{CancelToken, Cancelled};

use crate::{BuildError, Engine};

/// setuid and setgid in a mode.
const SET_ID: u32 = 0o6000;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPlace {
    /// A path of the host.
    Local(PathBuf),
    /// A path in a cache mount.
    Cache {
        /// The cache mount's id.
        id: String,
        /// Absolute from its top.
        path: String,
    },
}

/// An end that was opened.
struct End {
    root: Root,
    /// As it was written, absolute from the root.
    path: String,
    shown: String,
    _held: Option<super::OpenCache>,
}

impl Engine {
    /// Copies a file or a directory from a cache mount to the host, or the other way. A directory
    /// becomes `to`, or goes into it when it is there; one that ends with `/.` stands for what is
    /// in it. With `archive` owners are kept; else what is copied belongs to root in a cache mount,
    /// and to the caller outside, and nothing of it runs as its owner: neither setuid and setgid
    /// nor capabilities are kept.
    ///
    /// # Errors
    ///
    /// When both ends are of one sort, or something is not there.
    pub fn copy_cache(
        &self,
        from: &CopyPlace,
        to: &CopyPlace,
        archive: bool,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let is_cache = |place: &CopyPlace| matches!(place, CopyPlace::Cache { .. });
        if is_cache(from) == is_cache(to) {
            let message = "one of the two places is in a cache mount (ID:/PATH), the other is a \
                           path of the host";
            return Err(BuildError::Request { message: message.to_owned() });
        }
        let inward = is_cache(to);
        let (from, to) = (self.open_end(from, cancel)?, self.open_end(to, cancel)?);
        let source = from.root.resolve(&from.path, Follow::Yes)?;
        let Some(found) = source.found else {
            return Err(BuildError::Request { message: format!("{} is not there", from.shown) });
        };
        let destination = destination(&from, &found, &to)?;
        let owner = if archive { OwnerRule::Keep } else { OwnerRule::Context };
        let ownership = if inward || archive { Ownership::Set } else { Ownership::Leave };
        let path = source.path.to_string_lossy();
        let source = CopySource::Input { input: 0, path: literal(&path) };
        let mut op = Copy::plain(vec![source], destination.as_str());
        op.chmod = (!archive).then(|| "ug-s".to_owned());
        let tree = SourceTree {
            root: &from.root,
            ignore: None,
            ignore_file: "",
            name: from.shown.clone(),
            owner,
            stamps: None,
        };
        let tree_of = |_: &CopySource| Some(tree.clone());
        let lookup_owner = |text: &str| Err(format!("{text:?} is nobody here"));
        let target = Target {
            root: &to.root,
            lookup_owner: &lookup_owner,
            archives: None,
            ownership,
            earlier: None,
        };
        let pool = self.pool()?;
        let selection = select(&op, &tree_of, pool, cancel).map_err(failed)?;
        if to.root.stat(&destination, Follow::No)?.is_some_and(|there| there.is_symlink()) {
            to.root.remove(&destination)?;
        }
        apply(&op, &selection, &tree_of, &target, pool, cancel).map_err(failed)?;
        if found.is_dir() && !is_contents(&from.path) {
            // A copy gives the directory that was named a mode of its own.
            let special = if archive { 0 } else { SET_ID };
            to.root.set_mode(&destination, found.mode & !special)?;
            if archive {
                to.root.set_owner(&destination, found.uid, found.gid)?;
            }
        }
        Ok(())
    }

    fn open_end(&self, place: &CopyPlace, cancel: &CancelToken) -> Result<End, BuildError> {
        match place {
            CopyPlace::Local(path) => {
                let text = path.to_str().ok_or_else(|| BuildError::Request {
                    message: format!("{} is not UTF-8 and cannot be copied", path.display()),
                })?;
                // What stands at the end has a meaning that a path has not.
                let end = match text {
                    "." => "/.",
                    text => ["/.", "/"].into_iter().find(|end| text.ends_with(end)).unwrap_or(""),
                };
                let absolute = std::path::absolute(path)
                    .map_err(|source| BuildError::Io { what: format!("find {text}"), source })?;
                let path = absolute.to_string_lossy().trim_end_matches('/').to_owned() + end;
                let shown = text.to_owned();
                Ok(End { root: Root::open("/")?, path, shown, _held: None })
            }
            CopyPlace::Cache { id, path } => {
                let held = self.open_cache(id, Hold::Shared, cancel)?;
                let root = held.root.try_clone()?;
                Ok(End {
                    root,
                    path: path.clone(),
                    shown: format!("{id}:{path}"),
                    _held: Some(held),
                })
            }
        }
    }
}

/// Whether a path stands for what is in a directory.
fn is_contents(path: &str) -> bool {
    path.ends_with("/.")
}

/// Where the source goes: by a path without links, but that its last name may be a link where a
/// file is to take its place.
fn destination(from: &End, source: &Metadata, to: &End) -> Result<String, BuildError> {
    let refuse = |message: String| Err(BuildError::Request { message });
    let there = to.root.resolve(&to.path, Follow::Yes)?;
    let real = there.path.to_string_lossy().into_owned();
    let name = Path::new(&from.path).file_name().map(|name| name.to_string_lossy());
    match there.found {
        Some(found) if found.is_dir() => match name {
            Some(name) if !is_contents(&from.path) => {
                let path = format!("{}/{name}", real.trim_end_matches('/'));
                let there = to.root.stat(&path, Follow::No)?;
                if source.is_dir() && there.is_some_and(|there| there.is_symlink()) {
                    return refuse(format!(
                        "{name} in {} is a link: a directory cannot be copied onto it",
                        to.shown
                    ));
                }
                Ok(path)
            }
            _ => Ok(real),
        },
        Some(_) if source.is_dir() => {
            refuse(format!("{} is a file: a directory cannot be copied onto it", to.shown))
        }
        None if !source.is_dir() && to.path.ends_with('/') => {
            refuse(format!("{} is not there: make the directory, or name the file", to.shown))
        }
        None => {
            let parent = Path::new(&real).parent().unwrap_or(Path::new("/"));
            match to.root.stat(parent, Follow::Yes)? {
                Some(found) if found.is_dir() => Ok(real),
                _ => refuse(format!("the directory of {} is not there", to.shown)),
            }
        }
        Some(_) => Ok(real),
    }
}

fn failed(error: rbuild_solver::copy::CopyError) -> BuildError {
    match StepError::from(error) {
        StepError::Cancelled(Cancelled) => BuildError::Cancelled(Cancelled),
        other => BuildError::Request { message: other.to_string() },
    }
}
