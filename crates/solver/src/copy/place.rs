//! Where in the destination things go.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rbuild_plan::op::Copy;
use rbuild_rooted::{CreatedDirs, Errno, FileKind, Follow, NewDirs, Root, RootedError, Time};

use super::error::CopyError;
use super::tree::shown;

/// The destination of an instruction in a tree.
pub(crate) struct Place<'a> {
    pub(crate) root: &'a Root,
    pub(crate) op: &'a Copy,
    /// How directories that are missing are made.
    pub(crate) new: NewDirs,
    /// Several files were selected, so they cannot all get the destination's own name.
    pub(crate) several: bool,
    pub(crate) times: DirTimes,
}

/// Times of directories that the copy changes only by writing into them. Put right in the end:
/// else every build would make another layer.
#[derive(Default)]
pub(crate) struct DirTimes {
    /// Directories that were there before, with their times.
    kept: BTreeMap<PathBuf, Time>,
    /// Directories that were made for the destination.
    made: BTreeSet<PathBuf>,
}

impl DirTimes {
    /// A directory that was there, by its real path.
    pub(crate) fn keep(&mut self, path: PathBuf, time: Time) {
        if !self.made.contains(&path) {
            self.kept.entry(path).or_insert(time);
        }
    }

    /// A directory that was there gets other times from what is copied onto it.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.kept.remove(path);
    }

    /// Gives directories that were there their times back, and those that were made `created`.
    pub(crate) fn restore(&self, root: &Root, created: Option<Time>) -> Result<(), CopyError> {
        let kept = self.kept.iter().map(|(path, time)| (path, *time));
        let made = self.made.iter().filter_map(|path| Some((path, created?)));
        for (path, time) in made.chain(kept) {
            root.set_times(path, time, time).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }
}

/// The place of one file: a held directory and a name in it.
pub(crate) struct FilePlace {
    pub(crate) dir: Root,
    pub(crate) name: OsString,
    /// Real path of the directory, for messages.
    pub(crate) path: PathBuf,
}

impl Place<'_> {
    /// The destination as a directory, made if it is missing, links followed inside the tree.
    pub(crate) fn directory(&mut self) -> Result<CreatedDirs, CopyError> {
        self.make(Path::new(&self.op.destination))
    }

    /// The place of a file named `name` in its source.
    ///
    /// A destination that is written as a directory, or is one, is gone into; there a link of
    /// the same name is replaced. Otherwise the destination is the file's whole name, and a link
    /// of that name is written through, even to a target that is missing.
    pub(crate) fn file(&mut self, name: &OsStr) -> Result<FilePlace, CopyError> {
        let op = self.op;
        let destination = Path::new(&op.destination);
        if self.op.into_directory {
            return self.into(destination, name);
        }
        let resolved = self
            .root
            .resolve(destination, Follow::Yes)
            .map_err(|error| failed(destination, error))?;
        match resolved.found {
            Some(found) if found.kind == FileKind::Directory => self.into(&resolved.path, name),
            _ if self.several => {
                Err(CopyError::SeveralToOne { destination: self.op.destination.clone() })
            }
            _ => {
                let name = resolved.path.file_name().unwrap_or(name).to_owned();
                let parent = resolved.path.parent().unwrap_or(Path::new("/"));
                let made = self.make(parent)?;
                Ok(FilePlace { dir: made.dir, name, path: made.path })
            }
        }
    }

    fn into(&mut self, directory: &Path, name: &OsStr) -> Result<FilePlace, CopyError> {
        let made = self.make(directory)?;
        Ok(FilePlace { dir: made.dir, name: name.to_owned(), path: made.path })
    }

    fn make(&mut self, directory: &Path) -> Result<CreatedDirs, CopyError> {
        let above = self.deepest(directory);
        let made = self.root.create_dir_all(directory, self.new);
        let made = made.map_err(|error| failed(directory, error))?;
        if let Some((path, time)) = above {
            self.times.keep(path, time);
        }
        self.times.made.extend(made.created.iter().cloned());
        Ok(made)
    }

    /// The deepest directory of a path that is there. What is wrong with the path is told when it
    /// is made.
    fn deepest(&self, directory: &Path) -> Option<(PathBuf, Time)> {
        let resolved = self.root.resolve(directory, Follow::Yes).ok()?;
        resolved.path.ancestors().find_map(|path| {
            let found = self.root.stat(path, Follow::No).ok()??;
            found.is_dir().then(|| (path.to_owned(), found.mtime))
        })
    }
}

/// An error of the destination, in the words that people know.
pub(crate) fn failed(path: &Path, error: RootedError) -> CopyError {
    match error {
        RootedError::WrongKind { path, expected: FileKind::Directory, .. } => {
            CopyError::NotADirectory { path: shown(&path) }
        }
        error if error.errno() == Some(Errno::NOTDIR) => {
            CopyError::NotADirectory { path: shown(path) }
        }
        error if error.errno() == Some(Errno::ISDIR) => {
            CopyError::IsADirectory { path: shown(path) }
        }
        source => CopyError::Destination { path: shown(path), source },
    }
}
