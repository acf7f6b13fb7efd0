//! Named volumes: directories below `volumes/` of the store that outlive the containers.
//!
//! A volume is made in a temporary directory and renamed into place, so it is never seen half
//! filled, and of several users who make one at the same time all get the first one's.

use std::io::Seek as _;
use std::path::{Path, PathBuf};

use rbuild_rooted::Root;
use rbuild_types::CancelToken;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{BuildError, Engine};

impl Engine {
    /// The directory of a volume. A new one starts with what the image has at its place, `from`.
    pub(crate) fn named_volume(&self, name: &str, from: &Root) -> Result<PathBuf, BuildError> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || !name.bytes().all(letter) {
            return Err(BuildError::Request {
                message: format!(
                    "{name:?} is no volume name: use letters, digits, `_`, `.` and `-`, or a path \
                     with a slash"
                ),
            });
        }
        let path = self.store.root().join("volumes").join(name);
        if path.exists() {
            return Ok(path);
        }
        let io = |source| BuildError::Io { what: format!("make volume {name}"), source };
        let scratch = self.store.scratch("volume")?;
        let made = scratch.path().join("fs");
        fs_err::create_dir(&made).map_err(io)?;
        self.fill(&made, from, &scratch.path().join("tar"))?;
        match renameat_with(CWD, &made, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => Ok(path),
            Err(errno) => Err(io(errno.into())),
        }
    }

    /// Copies a directory by way of a file, because it may be larger than the memory.
    fn fill(&self, to: &Path, from: &Root, by_way_of: &Path) -> Result<(), BuildError> {
        let io = |source| BuildError::Io { what: format!("fill {}", to.display()), source };
        let into = Root::open(to)?;
        let metadata = from.metadata()?;
        let mut packed = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(by_way_of)
            .map_err(io)?;
        let cancel = CancelToken::default();
        rbuild_image::rootfs::export_tar(from, None, &mut packed, &cancel)?;
        packed.rewind().map_err(io)?;
        let options = rbuild_image::layer::ArchiveOptions::default();
        let mut packed = std::io::BufReader::new(packed);
        rbuild_image::layer::unpack_archive(&mut packed, &into, &options, &cancel)?;
        into.set_owner("", metadata.uid, metadata.gid)?;
        into.set_mode("", metadata.mode)?;
        Ok(())
    }
}
