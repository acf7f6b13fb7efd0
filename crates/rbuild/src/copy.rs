//! `rbuild cp` and `cache cp`: files between the host and a container or cache mount, and from steps of
//! past builds, by the rules of `docker cp`.
//!
//! What is written, and how links are kept inside, is the business of the copy that `COPY` does.
//! Links that the two paths lead through are followed inside their own tree, and so is one that is
//! the destination. One that lies where something is to go is not: an earlier copy may have put it
//! there, to lead a later one elsewhere.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rbuild_cache::{Hold, Lease};
use rbuild_image::layer::{PackOptions, TreeForm, UnpackOptions, pack, unpack_archive};
use rbuild_plan::op::{Copy, CopySource};
use rbuild_rooted::{Follow, Metadata, Root};
use rbuild_solver::StepError;
use rbuild_solver::copy::{OwnerRule, Ownership, SourceTree, Target, apply, literal, select};
use rbuild_types::{CancelToken, Cancelled};

use crate::cache_mount::OpenCache;
use crate::containers::{Access, ContainerFiles, Hidden};
use crate::sources::image::chain;
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
    /// A path in a container, whether it runs or not.
    Container {
        /// Its name or id.
        container: String,
        /// From its root.
        path: String,
    },
    /// A path in a step of a past build, to be read only.
    Step {
        /// Its name, as for [`Engine::past_step`].
        step: String,
        /// From its root.
        path: String,
    },
}

/// How files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyOptions {
    /// Whether owners are kept, and with them setuid and setgid. Else what is copied belongs to root
    /// inside, and to the caller outside, and nothing of it runs as its owner.
    pub archive: bool,
    /// Whether a link that is the source stands for what it leads to.
    pub follow: bool,
}

/// An end that was opened.
struct End {
    root: Root,
    /// Absolute from the root, with the end that was written, which has a meaning.
    path: String,
    /// What the last name was; none where the path stands for what is in a directory.
    name: Option<String>,
    shown: String,
    hidden: Vec<Hidden>,
    _held: Held,
}

/// What stays as it is while an end is open.
enum Held {
    Host,
    Cache(#[expect(dead_code, reason = "held")] OpenCache),
    Container(#[expect(dead_code, reason = "held")] ContainerFiles),
    Step(#[expect(dead_code, reason = "held")] Lease),
}

impl Engine {
    /// Copies a file or a directory from a container, step or cache mount to the host, or, but for
    /// steps, the other way. A
    /// directory becomes `to`, or goes into it when it is there; one that ends with `/.` stands for
    /// what is in it.
    ///
    /// # Errors
    ///
    /// When both ends are of one sort, or something is not there.
    pub fn copy_files(
        &self,
        from: &CopyPlace,
        to: &CopyPlace,
        options: CopyOptions,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let is_local = |place: &CopyPlace| matches!(place, CopyPlace::Local(_));
        if is_local(from) == is_local(to) {
            let message = "one of the two places is in a container (NAME:/PATH) or cache mount \
                           (ID:/PATH), the other is a path of the host";
            return Err(BuildError::Request { message: message.to_owned() });
        }
        let CopyOptions { archive, .. } = options;
        let inward = !is_local(to);
        let from = self.open_end(from, Access::Read, cancel)?;
        let to = self.open_end(to, Access::Write, cancel)?;
        let (path, found) = from.source(options.follow)?;
        let destination = destination(&from, &found, &to)?;
        from.refuse_hidden(&path, |_| Ok(found.is_dir()))?;
        to.refuse_hidden(&destination, |rest| {
            let there = || from.root.stat(path.join(rest), Follow::No);
            Ok(rest.as_os_str().is_empty() || there()?.is_some())
        })?;
        let owner = if archive { OwnerRule::Keep } else { OwnerRule::Context };
        let ownership = if inward || archive { Ownership::Set } else { Ownership::Leave };
        if to.root.stat(&destination, Follow::No)?.is_some_and(|there| there.is_symlink()) {
            to.root.remove(&destination)?;
        }
        if found.is_symlink() {
            to.root.symlink(from.root.read_link(&path)?, &destination)?;
            match (archive, inward) {
                (true, _) => to.root.set_owner(&destination, found.uid, found.gid)?,
                (false, true) => to.root.set_owner(&destination, 0, 0)?,
                (false, false) => {}
            }
            return Ok(());
        }
        let source = CopySource::Input { input: 0, path: literal(&path.to_string_lossy()) };
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

    /// Writes a file or a directory as a tar, under its own name; a directory whose path ends with `/.` stands for what is in it.
    ///
    /// # Errors
    ///
    /// When it is not there, or the tar cannot be written.
    pub fn copy_to_tar(
        &self,
        from: &CopyPlace,
        follow: bool,
        sink: &mut dyn Write,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let from = self.open_end(from, Access::Read, cancel)?;
        let (path, found) = from.source(follow)?;
        from.refuse_hidden(&path, |_| Ok(found.is_dir()))?;
        let plain = PackOptions { form: TreeForm::Plain, ..PackOptions::default() };
        let (tree, options) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) if !(is_contents(&from.path) && found.is_dir()) => {
                let only = Some(name.to_owned());
                (from.root.open_dir(parent)?, PackOptions { only, ..plain })
            }
            _ => (from.root.open_dir(&path)?, plain),
        };
        pack(&tree, &options, sink, cancel)?;
        Ok(())
    }

    /// Unpacks a tar, compressed or not, into a directory of a container. What is in it belongs to
    /// those that it says, and stays inside that directory.
    ///
    /// # Errors
    ///
    /// When there is no such directory, or the tar is damaged: what came before that stays.
    pub fn copy_from_tar(
        &self,
        container: &str,
        path: &str,
        tar: &mut dyn Read,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let place = CopyPlace::Container { container: container.to_owned(), path: path.to_owned() };
        let to = self.open_end(&place, Access::Write, cancel)?;
        let refuse = |why: &str| BuildError::Request { message: format!("{} {why}", to.shown) };
        let there = to.root.resolve(&to.path, Follow::Yes)?;
        match there.found {
            Some(found) if found.is_dir() => {}
            Some(_) => return Err(refuse("is no directory: a tar cannot be unpacked there")),
            None => return Err(refuse("is not there")),
        }
        let into = to.root.open_dir(&there.path)?;
        unpack_archive(tar, &into, &UnpackOptions::default(), cancel)?;
        Ok(())
    }

    fn open_end(
        &self,
        place: &CopyPlace,
        access: Access,
        cancel: &CancelToken,
    ) -> Result<End, BuildError> {
        match place {
            CopyPlace::Local(path) => {
                let text = path.to_str().ok_or_else(|| BuildError::Request {
                    message: format!("{} is not UTF-8 and cannot be copied", path.display()),
                })?;
                // What stands at the end has a meaning that a path has not.
                let end = match text {
                    "." => "/.",
                    text => ending(text),
                };
                let absolute = std::path::absolute(path)
                    .map_err(|source| BuildError::Io { what: format!("find {text}"), source })?;
                let path = absolute.to_string_lossy().trim_end_matches('/').to_owned() + end;
                Ok(End::new(Root::open("/")?, path, text.to_owned(), Held::Host))
            }
            CopyPlace::Cache { id, path } => {
                let held = self.open_cache(id, Hold::Shared, cancel)?;
                let (root, shown) = (held.root()?, format!("{id}:{path}"));
                Ok(End::new(root, path.clone(), shown, Held::Cache(held)))
            }
            CopyPlace::Container { container, path } => {
                let shown = format!("{container}:{path}");
                let whole = format!("/{}", path.trim_start_matches('/'));
                let mut files = self.container(container)?.files(&whole, access, cancel)?;
                let hidden = std::mem::take(&mut files.hidden);
                let path = files.path.to_string_lossy().trim_end_matches('/').to_owned();
                let path = path + ending(&whole);
                let name = End::name_of(&whole);
                let root = files.root.try_clone()?;
                Ok(End { name, hidden, ..End::new(root, path, shown, Held::Container(files)) })
            }
            CopyPlace::Step { step, path } if access == Access::Read => {
                let (lease, root) = self.step_root(&self.past_step(step)?)?;
                let whole = format!("/{}", path.trim_start_matches('/'));
                Ok(End::new(root, whole, format!("{step}:{path}"), Held::Step(lease)))
            }
            CopyPlace::Step { step, .. } => {
                let message = format!(
                    "step {step} is what it was and cannot be changed: `rbuild shell {step}` opens a \
                     copy of it that can"
                );
                Err(BuildError::Request { message })
            }
        }
    }
}

impl End {
    fn new(root: Root, path: String, shown: String, held: Held) -> Self {
        let hidden = Vec::new();
        Self { name: Self::name_of(&path), root, path, shown, hidden, _held: held }
    }

    fn name_of(path: &str) -> Option<String> {
        let name = Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        name.filter(|_| !is_contents(path))
    }

    /// Fails if something is mounted in the container at or below a path, does not show here, and
    /// `concerned` says that it matters, given its path from there.
    fn refuse_hidden(
        &self,
        path: impl AsRef<Path>,
        concerned: impl Fn(&Path) -> Result<bool, BuildError>,
    ) -> Result<(), BuildError> {
        for Hidden { target, path: place } in &self.hidden {
            if let Ok(rest) = place.strip_prefix(&path)
                && concerned(rest)?
            {
                let message = format!(
                    "{}: what is mounted at {target} is there only while the container runs: start                      it, or copy {target} and the rest one by one",
                    self.shown
                );
                return Err(BuildError::Conflict { message });
            }
        }
        Ok(())
    }

    /// Where it is without links, and what it is.
    fn source(&self, follow: bool) -> Result<(PathBuf, Metadata), BuildError> {
        let follow = match follow || self.path.ends_with('/') || is_contents(&self.path) {
            true => Follow::Yes,
            false => Follow::No,
        };
        let source = self.root.resolve(&self.path, follow)?;
        let none = || BuildError::Request { message: format!("{} is not there", self.shown) };
        let found = source.found.ok_or_else(none)?;
        match !found.is_dir() && !ending(&self.path).is_empty() {
            true => Err(BuildError::Request { message: format!("{} is a file", self.shown) }),
            false => Ok((source.path, found)),
        }
    }
}

/// What stands behind a path and has a meaning.
fn ending(path: &str) -> &'static str {
    ["/.", "/"].into_iter().find(|end| path.ends_with(end)).unwrap_or("")
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
    match there.found {
        Some(found) if found.is_dir() => match &from.name {
            Some(name) => {
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
        other => BuildError::Request { message: chain(&other) },
    }
}
