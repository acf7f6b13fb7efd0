//! Where in the destination things go.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rbuild_plan::op::Copy;
use rbuild_rooted::{CreatedDirs, Errno, FileKind, Follow, NewDirs, Root, RootedError};

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
    pub(crate) fn directory(&self) -> Result<CreatedDirs, CopyError> {
        self.make(Path::new(&self.op.destination))
    }

    /// The place of a file named `name` in its source.
    ///
    /// A destination that is written as a directory, or is one, is gone into; there a link of
    /// the same name is replaced. Otherwise the destination is the file's whole name, and a link
    /// of that name is written through, even to a target that is missing.
    pub(crate) fn file(&self, name: &OsStr) -> Result<FilePlace, CopyError> {
        let destination = Path::new(&self.op.destination);
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

    fn into(&self, directory: &Path, name: &OsStr) -> Result<FilePlace, CopyError> {
        let made = self.make(directory)?;
        Ok(FilePlace { dir: made.dir, name: name.to_owned(), path: made.path })
    }

    fn make(&self, directory: &Path) -> Result<CreatedDirs, CopyError> {
        self.root.create_dir_all(directory, self.new).map_err(|error| failed(directory, error))
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
