//! What is mounted in containers: paths of the host, and volumes.
//!
//! Named volumes are directories below `volumes/` of the store that outlive the containers, and so
//! are cache mounts of builds, which containers may use too;
//! anonymous ones lie beside their container's layer and go with it. Both start with what the
//! image has at their place, also a named one that was made empty. A named volume is made in a
//! temporary directory and renamed into place, so it is never seen half filled, and of several
//! users who make one at the same time all get the first one's.

use std::collections::BTreeMap;
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rbuild_cache::{HeldVolume, Hold, NamedInfo};
use rbuild_container::events::Event;
use rbuild_image::layer::{PackOptions, TreeForm, pack};
use rbuild_rooted::{FileKind, Follow, Root};
use rbuild_types::{CancelToken, ImageConfig};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::containers::{MOMENT, MountRecord, MountedFrom, Process};
use crate::{BuildError, Engine};

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What.
    pub source: VolumeSource,
    /// Absolute path inside.
    pub target: String,
    /// Whether it may not be written.
    pub read_only: bool,
}

/// What a [`Volume`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A path of the host; a missing directory is made, as `docker run -v` does.
    Path(PathBuf),
    /// A volume of the store; made with its first use.
    Named(String),
    /// A cache mount of builds by its id, or by the start of its name; made with its first use.
    Cache {
        /// As it is written in the Dockerfile, or the target where none is.
        id: String,
        /// Beside others, or alone as with `sharing=locked`.
        hold: Hold,
    },
    /// A volume that goes with the container.
    Anonymous,
}

/// What the caller mounts, and the volumes that the image declares where the caller has nothing.
pub(crate) fn all(process: &Process, image: &ImageConfig) -> Vec<Volume> {
    let mut volumes = process.volumes.clone();
    for target in image.config.volumes.keys() {
        let place = |target: &str| target.trim_end_matches('/').to_owned();
        let is_taken = volumes.iter().any(|volume| place(&volume.target) == place(target))
            || process.tmpfs.iter().any(|tmpfs| place(&tmpfs.target) == place(target));
        if target.starts_with('/') && !place(target).is_empty() && !is_taken {
            let (source, target) = (VolumeSource::Anonymous, target.clone());
            volumes.push(Volume { source, target, read_only: false });
        }
    }
    volumes
}

impl Engine {
    /// Makes the volumes of a container in `directory` that are not there yet: they start with what
    /// the image, whose files are in `root`, has at their place. Until the container is written down
    /// they are kept by being held.
    pub(crate) fn make_volumes(
        &self,
        volumes: &[Volume],
        root: &Root,
        directory: &Path,
        cancel: &CancelToken,
    ) -> Result<(Vec<MountRecord>, Vec<HeldVolume>), BuildError> {
        let (mut records, mut all_held) = (Vec::new(), Vec::new());
        for (number, volume) in volumes.iter().enumerate() {
            let source = match &volume.source {
                VolumeSource::Path(path) => MountedFrom::Path(path.clone()),
                VolumeSource::Named(name) => {
                    let from = place_of(root, &volume.target)?;
                    all_held.push(self.named_volume(name, from.as_ref(), cancel)?);
                    MountedFrom::Volume { name: name.clone(), alone: false }
                }
                VolumeSource::Cache { id, hold } => {
                    // Alone means without oneself too.
                    let again = |other: &Volume| {
                        matches!(&other.source,
                        VolumeSource::Cache { id: other, .. } if other == id)
                    };
                    if *hold == Hold::Alone && volumes.iter().filter(|it| again(it)).count() > 1 {
                        let message = format!(
                            "cache mount {id} is mounted twice: only one that is not locked can be"
                        );
                        return Err(BuildError::Request { message });
                    }
                    let held = self.cache_or_new(id, Hold::Shared, cancel)?;
                    let (name, alone) = (held.name().to_owned(), *hold == Hold::Alone);
                    all_held.push(held);
                    MountedFrom::Volume { name, alone }
                }
                VolumeSource::Anonymous => {
                    let name = PathBuf::from(format!("volume-{number}"));
                    let from = place_of(root, &volume.target)?;
                    let by_way_of = directory.join("volume.tar");
                    self.fill(&directory.join(&name), from.as_ref(), &by_way_of)?;
                    MountedFrom::Anonymous(name)
                }
            };
            let (target, read_only) = (volume.target.clone(), volume.read_only);
            records.push(MountRecord { source, target, read_only });
        }
        Ok((records, all_held))
    }

    /// A volume, held beside others. A new one, and one that is empty and that nobody uses, starts
    /// with what the image has at its place, `from`.
    fn named_volume(
        &self,
        name: &str,
        from: Option<&Root>,
        cancel: &CancelToken,
    ) -> Result<HeldVolume, BuildError> {
        check_name(name)?;
        if let Some(from) = from
            && is_empty(&self.store.volumes().path(name))
            && let Some(held) = self.alone(name)?
            && is_empty(held.path())
        {
            let scratch = self.store.scratch("volume")?;
            let made = scratch.path().join("fs");
            self.fill(&made, Some(from), &scratch.path().join("tar"))?;
            held.replace(&made)?;
        }
        let volume = self.store.volumes().take(name, Hold::Shared, cancel)?;
        volume.note(None)?;
        if self.put_in_place(&volume, from)? {
            volume.note_named(&NamedInfo::new(BTreeMap::new()))?;
            self.happened(Event::now("volume", "create", name).with("driver", "local"));
        }
        Ok(volume)
    }

    /// Makes the directory of a volume that is not there, with what is in `from`; whether it did.
    pub(crate) fn put_in_place(
        &self,
        volume: &HeldVolume,
        from: Option<&Root>,
    ) -> Result<bool, BuildError> {
        if volume.path().exists() {
            return Ok(false);
        }
        let scratch = self.store.scratch("volume")?;
        let made = scratch.path().join("fs");
        self.fill(&made, from, &scratch.path().join("tar"))?;
        match renameat_with(CWD, &made, CWD, volume.path(), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(BuildError::Io {
                what: format!("make volume {}", volume.name()),
                source: errno.into(),
            }),
        }
    }

    /// A volume that nobody else uses: who only looks at it does so for a moment.
    pub(crate) fn alone(&self, name: &str) -> Result<Option<HeldVolume>, BuildError> {
        let deadline = Instant::now() + MOMENT;
        loop {
            match self.store.volumes().try_take(name, Hold::Alone)? {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                taken => return Ok(taken),
            }
        }
    }

    /// Makes the directory `to` with what is in `from`, by way of a file, because it may be larger
    /// than the memory.
    fn fill(&self, to: &Path, from: Option<&Root>, by_way_of: &Path) -> Result<(), BuildError> {
        let io = |source| BuildError::Io { what: format!("fill {}", to.display()), source };
        fs_err::create_dir(to).map_err(io)?;
        let Some(from) = from else {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            return fs_err::set_permissions(to, mode).map_err(io);
        };
        let into = Root::open(to)?;
        let metadata = from.metadata()?;
        let mut packed = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(by_way_of)
            .map_err(io)?;
        let cancel = CancelToken::default();
        let options = PackOptions { form: TreeForm::Plain, ..PackOptions::default() };
        pack(from, &options, &mut packed, &cancel)?;
        packed.rewind().map_err(io)?;
        let options = rbuild_image::layer::UnpackOptions::default();
        let mut packed = std::io::BufReader::new(packed);
        rbuild_image::layer::unpack_archive(&mut packed, &into, &options, &cancel)?;
        into.set_owner("", metadata.uid, metadata.gid)?;
        into.set_mode("", metadata.mode)?;
        fs_err::remove_file(by_way_of).map_err(io)
    }
}

/// Refuses what is no name of a volume.
pub(crate) fn check_name(name: &str) -> Result<(), BuildError> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && name.bytes().all(letter) {
        true => Ok(()),
        false => Err(BuildError::Request {
            message: format!(
                "{name:?} is no volume name: use letters, digits, `_`, `.` and `-`, or a path \
                 with a slash"
            ),
        }),
    }
}

/// Whether a directory is there with nothing in it.
fn is_empty(path: &Path) -> bool {
    fs_err::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// The directory that the image has at `path`, if it has one.
fn place_of(root: &Root, path: &str) -> Result<Option<Root>, BuildError> {
    match root.resolve(path, Follow::Yes)?.found {
        Some(found) if found.kind == FileKind::Directory => Ok(Some(root.open_dir(path)?)),
        Some(_) => Err(BuildError::Request {
            message: format!("{path} is no directory in the image: a volume cannot be put there"),
        }),
        None => Ok(None),
    }
}
