//! Writing the files of a commit.
//!
//! Modes are those that git knows, 0644 and 0755, whatever the umask. Attributes (line ends,
//! filters) are not applied: the bytes are those of the repository.

use std::ffi::OsStr;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rbuild_rooted::{Root, Time};
use rbuild_types::Ctx;

use super::database::Database;
use super::error::GitError;
use super::object::{Entry, EntryMode, Kind, ObjectId, parse_tree};

/// Most files and directories of one checkout: a few trees that name each other can stand for any
/// number.
const MAX_FILES: usize = 10_000_000;
/// Most directories inside one another.
const MAX_DEPTH: usize = 512;
/// Longest target of a link, bytes (`PATH_MAX`).
const MAX_TARGET: usize = 4095;
const DIRECTORY_MODE: u32 = 0o755;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Files, links and submodules with their paths.
    pub(super) files: Vec<(Vec<u8>, EntryMode, ObjectId)>,
    /// Trees, the top one first.
    pub(super) trees: Vec<ObjectId>,
    /// Paths of directories below the top, parents first.
    directories: Vec<PathBuf>,
}

impl Written {
    /// Commits of other repositories, with their paths.
    pub(super) fn submodules(&self) -> impl Iterator<Item = (&[u8], &ObjectId)> {
        let files = self.files.iter();
        files
            .filter(|(_, mode, _)| *mode == EntryMode::Submodule)
            .map(|(path, _, id)| (&**path, id))
    }

    /// Gives everything one time.
    pub(super) fn set_times(&self, root: &Root, seconds: i64) -> Result<(), GitError> {
        let time = Time { sec: seconds, nsec: 0 };
        for (path, ..) in &self.files {
            root.set_times(OsStr::from_bytes(path), time, time)?;
        }
        // Children first: what is in a directory touches it.
        for path in self.directories.iter().rev() {
            root.set_times(path, time, time)?;
        }
        Ok(root.set_times("/", time, time)?)
    }
}

/// The tree at a path of a commit's tree.
pub(super) fn find_tree(
    database: &Database<'_>,
    top: &ObjectId,
    subdir: &str,
) -> Result<ObjectId, GitError> {
    let wrong = |problem| GitError::Subdir { subdir: subdir.to_owned(), problem };
    let mut at = *top;
    for name in subdir.split('/').filter(|name| !name.is_empty()) {
        let entries = entries(database, &at)?;
        let entry = entries.into_iter().find(|entry| entry.name == name.as_bytes());
        at = match entry.map(|entry| (entry.mode, entry.id)) {
            Some((EntryMode::Directory, id)) => id,
            Some((EntryMode::Submodule, _)) => {
                return Err(GitError::Unsupported(format!("subdir {subdir} in a submodule")));
            }
            Some(_) => return Err(wrong("it is not a directory")),
            None => return Err(wrong("there is no such directory")),
        };
    }
    Ok(at)
}

pub(super) fn entries(database: &Database<'_>, id: &ObjectId) -> Result<Vec<Entry>, GitError> {
    let bytes = database.read_as(Kind::Tree, id)?;
    parse_tree(&bytes).map_err(|problem| GitError::object(*id, problem))
}

/// Writes a tree into `root`, which is empty.
pub(super) fn write_tree(
    database: &Database<'_>,
    tree: &ObjectId,
    root: &Root,
    ctx: Ctx<'_>,
) -> Result<Written, GitError> {
    let mut written = Written::default();
    let mut waiting = vec![(*tree, PathBuf::new(), 0)];
    while let Some((id, path, depth)) = waiting.pop() {
        written.trees.push(id);
        if depth > MAX_DEPTH {
            return Err(GitError::object(id, "too many directories inside one another"));
        }
        for entry in entries(database, &id)? {
            ctx.cancel.check()?;
            if written.files.len() + written.directories.len() + waiting.len() > MAX_FILES {
                return Err(GitError::object(id, "too many files"));
            }
            let at = path.join(OsStr::from_bytes(&entry.name));
            match entry.mode {
                EntryMode::Directory => {
                    make_directory(root, &at)?;
                    written.directories.push(at.clone());
                    waiting.push((entry.id, at, depth + 1));
                    continue;
                }
                EntryMode::Submodule => make_directory(root, &at)?,
                EntryMode::Link => write_link(database, &entry.id, root, &at)?,
                EntryMode::File => write_file(database, &entry.id, root, &at, 0o644)?,
                EntryMode::Executable => write_file(database, &entry.id, root, &at, 0o755)?,
            }
            written.files.push((at.into_os_string().into_encoded_bytes(), entry.mode, entry.id));
        }
    }
    Ok(written)
}

fn make_directory(root: &Root, path: &Path) -> Result<(), GitError> {
    root.create_private_dir(path)?;
    Ok(root.set_mode(path, DIRECTORY_MODE)?)
}

fn write_file(
    database: &Database<'_>,
    id: &ObjectId,
    root: &Root,
    path: &Path,
    mode: u32,
) -> Result<(), GitError> {
    let mut out = BufWriter::new(root.create_file(path, mode)?);
    database.copy(id, &mut out)?;
    Ok(out.flush()?)
}

fn write_link(
    database: &Database<'_>,
    id: &ObjectId,
    root: &Root,
    path: &Path,
) -> Result<(), GitError> {
    let target = database.read_as(Kind::Blob, id)?;
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err(GitError::object(*id, "it cannot be the target of a link"));
    }
    Ok(root.symlink(OsStr::from_bytes(&target), path)?)
}
