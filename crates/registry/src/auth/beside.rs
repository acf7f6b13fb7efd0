//! The file with the new text of another one, which it lies beside and whose place it takes.
//!
//! It is locked: one at a time is written. Its name can be guessed, so in a directory that others
//! write to it is used only when it is ours alone: it gets passwords.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::OFlags;

/// The file that takes the other's place; it is removed when it does not.
pub(super) struct Beside {
    file: std::fs::File,
    /// None once it has: then the name is another login's.
    path: Option<PathBuf>,
}

impl Beside {
    /// Waits for its turn; the directory is made if it is missing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let directory = path.parent().unwrap_or(Path::new(""));
        if !directory.as_os_str().is_empty() && !directory.exists() {
            fs_err::create_dir_all(directory)?;
            fs_err::set_permissions(directory, Permissions::from_mode(0o700))?;
        }
        let beside = directory.join(format!(".{name}.rbuild"));
        loop {
            let mut options = fs_err::OpenOptions::new();
            // Another's link is not followed, and another's pipe not waited for.
            let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
            let file = options.open(&beside)?.into_parts().0;
            ours_alone(&file, &beside, path)?;
            file.lock()?;
            // Whoever had the lock before may have moved the file away.
            let inode = |found: std::fs::Metadata| (found.dev(), found.ino());
            match fs_err::symlink_metadata(&beside) {
                Ok(there) if inode(file.metadata()?) == inode(there.clone()) => {
                    // What another program made for us may be readable for all.
                    file.set_permissions(Permissions::from_mode(0o600))?;
                    return Ok(Self { file, path: Some(beside) });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the text in the place of the file at `path`.
    pub(super) fn replace(&mut self, path: &Path, text: &[u8]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(text)?;
        if let Ok(old) = fs_err::metadata(path) {
            // With sudo the file stays its owner's. Whoever may not give it away is its owner, or
            // writes where he may.
            let _ = fchown(&self.file, Some(old.uid()), Some(old.gid()));
        }
        self.file.sync_all()?;
        if let Some(beside) = &self.path {
            fs_err::rename(beside, path)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // The lock is still held, so it is still this file's name.
        if let Some(path) = &self.path {
            let _ = fs_err::remove_file(path);
        }
    }
}

/// Refuses a file whose text somebody else could read or change.
fn ours_alone(file: &std::fs::File, beside: &Path, path: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    let us = rustix::process::geteuid();
    // With sudo it becomes that of whom it is for, before it takes its place.
    let is_for_its_owner = || fs_err::metadata(path).is_ok_and(|old| old.uid() == found.uid());
    let is_ours = found.uid() == us.as_raw() || us.is_root() && is_for_its_owner();
    // A file that was replaced meanwhile has no name at all, and is not used.
    match is_ours && found.is_file() && found.nlink() <= 1 {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} is another user's, or no plain file; remove it",
            beside.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_put_in_the_way_gets_no_password() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let beside = directory.path().join(".config.json.rbuild");
        let elsewhere = directory.path().join("elsewhere");
        fs_err::write(&elsewhere, "").unwrap();
        let refused = || {
            let error = Beside::open(&path).err().unwrap().to_string();
            assert!(error.contains(".config.json.rbuild"), "{error}");
            fs_err::remove_file(&beside).unwrap();
        };
        fs_err::os::unix::fs::symlink(&elsewhere, &beside).unwrap();
        refused();
        fs_err::hard_link(&elsewhere, &beside).unwrap();
        refused();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &beside,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        refused();
        if rustix::process::geteuid().is_root() {
            fs_err::write(&beside, "").unwrap();
            std::os::unix::fs::chown(&beside, Some(1), None).unwrap();
            refused();
        }
        // Ours from a login that was killed.
        fs_err::write(&beside, "old").unwrap();
        fs_err::set_permissions(&beside, Permissions::from_mode(0o666)).unwrap();
        Beside::open(&path).unwrap().replace(&path, b"new").unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
    }
}
