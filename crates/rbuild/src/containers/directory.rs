//! `containers/`: one directory for each container, and a lock on all of them for names.
//!
//! Whoever makes, renames or sweeps containers holds a kernel lock on the directory itself, for a
//! moment. Besides what `rbuild-container` keeps in a container's directory, there are `name`,
//! `pins`, and `passing`, an empty file that marks a container which nobody wants to keep: when
//! its lock is free it was left behind by a dead process, and whoever comes next removes it. So is
//! a directory without `config.json`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rbuild_container::{State, Status};

use super::record;
use crate::BuildError;

/// The file with the name.
pub(super) const NAME: &str = "name";
/// The file that says that nobody wants to keep it.
pub(super) const PASSING: &str = "passing";

/// The directory of all containers, locked.
pub(super) struct Locked {
    path: PathBuf,
    _lock: fs_err::File,
}

impl Locked {
    /// Makes the directory if it is missing, and waits for its lock.
    pub(super) fn wait(store: &Path) -> Result<Self, BuildError> {
        let path = all(store);
        let io = |source| BuildError::Io { what: format!("lock {}", path.display()), source };
        fs_err::create_dir_all(&path).map_err(io)?;
        let lock = fs_err::File::open(&path).map_err(io)?;
        lock.file().lock().map_err(io)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where containers are.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names that are taken, with the ids.
    pub(super) fn names(&self) -> Result<Vec<(String, String)>, BuildError> {
        let named = |id: String| {
            let name = fs_err::read_to_string(self.path.join(&id).join(NAME)).ok()?;
            Some((name, id))
        };
        Ok(ids(&self.path)?.into_iter().filter_map(named).collect())
    }
}

/// Where the containers of a store are.
pub(super) fn all(store: &Path) -> PathBuf {
    store.join("containers")
}

/// The ids of all that have a directory.
pub(super) fn ids(containers: &Path) -> Result<Vec<String>, BuildError> {
    let io = |source| BuildError::Io { what: "list the containers".to_owned(), source };
    let entries = match fs_err::read_dir(containers) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        ids.extend(entry.map_err(io)?.file_name().into_string().ok());
    }
    Ok(ids)
}

/// Removes the containers of dead processes, and what held theirs, unless somebody is just making one.
pub(crate) fn sweep_unless_busy(store: &Path) {
    let path = all(store);
    if let Ok(lock) = fs_err::File::open(&path)
        && lock.file().try_lock().is_ok()
    {
        let all = Locked { path, _lock: lock };
        // Whoever was killed has left a directory too; looking for groups takes time.
        if ids(&all.path).is_ok_and(|ids| !ids.is_empty()) {
            rbuild_sandbox::sweep_groups();
        }
        sweep(&all);
    }
}

/// Removes the containers of dead processes.
pub(super) fn sweep(all: &Locked) {
    for id in ids(&all.path).unwrap_or_default() {
        let directory = all.path.join(id);
        // An empty one is what a crash of the machine leaves.
        let unfinished = fs_err::metadata(directory.join(record::FILE))
            .is_ok_and(|it| it.len() == 0)
            || !directory.join(record::FILE).exists();
        if !unfinished && !directory.join(PASSING).exists() {
            continue;
        }
        // Held until it is gone.
        let Ok(lock) = fs_err::OpenOptions::new()
            .create(unfinished)
            .read(true)
            .write(true)
            .open(directory.join("lock"))
        else {
            continue;
        };
        if lock.file().try_lock().is_err() {
            continue;
        }
        // One that goes when it ends may wait to be started, unless it is tied.
        let waits = || {
            let record = record::ContainerRecord::read(&directory).ok().flatten();
            record.is_some_and(|record| !record.tied)
                && State::last(&directory).is_ok_and(|state| state.status == Status::Created)
        };
        if unfinished || !waits() {
            // What cannot be removed now, the next one tries again.
            let _ = rbuild_container::remove(&directory);
        }
    }
}
