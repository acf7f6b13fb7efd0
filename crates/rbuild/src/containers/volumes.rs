//! What a container's volumes are made of when it is made, and what is mounted when it starts.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rbuild_cache::{Hold, Store};
use rbuild_container::Bind;
use rbuild_types::CancelToken;
use serde::{Deserialize, Serialize};

use crate::BuildError;

/// Something mounted in a container, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// What.
    pub source: MountedFrom,
    /// Absolute path inside.
    pub target: String,
    /// Whether it may not be written.
    pub read_only: bool,
}

/// What a [`MountRecord`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountedFrom {
    /// A path of the host.
    Path(PathBuf),
    /// A volume of the store, by its name there.
    Volume {
        /// The name.
        name: String,
        /// Whether nobody else may use it meanwhile.
        alone: bool,
    },
    /// A directory beside the container's layer.
    Anonymous(PathBuf),
}

/// What the supervisor mounts, and the locks that it holds meanwhile.
pub(super) fn binds(
    mounts: &[MountRecord],
    directory: &Path,
    store: &Store,
    cancel: &CancelToken,
) -> Result<(Vec<Bind>, Vec<OwnedFd>), BuildError> {
    let (mut binds, mut held) = (Vec::new(), Vec::new());
    for mount in mounts {
        let io = |path: &Path| {
            let what = format!("mount {}", path.display());
            move |source| BuildError::Io { what, source }
        };
        let path = match &mount.source {
            MountedFrom::Path(path) => path.clone(),
            MountedFrom::Anonymous(name) => directory.join(name),
            MountedFrom::Volume { name, alone } => {
                let hold = if *alone { Hold::Alone } else { Hold::Shared };
                let volume = store.volumes().take(name, hold, cancel)?;
                volume.note(None)?;
                held.push(volume.lock().map_err(io(volume.path()))?);
                volume.path().to_owned()
            }
        };
        // As `docker run -v` does; a volume may have been removed since.
        if !path.exists() {
            fs_err::create_dir_all(&path).map_err(io(&path))?;
        }
        let (target, read_only) = (mount.target.clone(), mount.read_only);
        binds.push(Bind { path, target, read_only, no_suid: false, no_exec: false });
    }
    Ok((binds, held))
}
