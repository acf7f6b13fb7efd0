//! Volumes: `volumes/<name>/`, directories that outlive the containers and steps that use them.
//! Cache mounts are volumes named `cache-<hex>`, where the hex digits are the digest of what tells
//! one cache from another: an id is a stranger's text and never becomes a path.
//!
//! Beside each lies `volumes/.<name>`, a small file that no container sees. It says what the volume
//! is ([`VolumeInfo`], or [`NamedInfo`]), its time of change is the last use, and whoever
//! uses the volume holds a kernel lock on it: [`Hold::Shared`] beside others, [`Hold::Alone`]
//! without. So a volume is removed under the lock for one alone, and never under anybody's feet.
//! The directory itself is not locked, because a program inside could do that too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rbuild_types::{CancelToken, Digest, Hasher};
use rustix::fs::{Timespec, Timestamps};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{At as _, CacheError};
use crate::lock::{self, Try};
use crate::measure::Measure;
use crate::origins::Origin;
use crate::remove::remove_tree;
use crate::store::Store;
use crate::{file, origins, sizes};

/// How the names of cache mounts begin.
const CACHE: &str = "cache-";

/// Longest description that is read.
const MAX_INFO: u64 = 64 << 10;

/// How a volume is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Beside others.
    Shared,
    /// By nobody else.
    Alone,
}

/// What a cache mount is. Mode and owner belong to it: a step that asks for others must not get
/// this one's directory. So does what it starts with, as in BuildKit: with another seed it is
/// another directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Namespace, `/`, and the id as it is written in the Dockerfile, or the target where none is.
    pub id: String,
    /// Mode of the new directory.
    pub mode: u32,
    /// Owner of the new directory.
    pub uid: u32,
    /// Group of the new directory.
    pub gid: u32,
    /// What it started with, as text that is the same for the same files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Milliseconds since 1970.
    pub created: i64,
}

impl VolumeInfo {
    /// An empty cache mount with the mode and owner that a Dockerfile need not write; `shown` is
    /// as [`VolumeInfo::shown_id`] has it.
    pub fn plain(shown: &str) -> Self {
        let id = format!("/{shown}");
        Self { id, mode: 0o755, uid: 0, gid: 0, seed: None, created: file::now_ms() }
    }

    /// The id as people write it: without the slash behind a namespace that is not there.
    pub fn shown_id(&self) -> &str {
        self.id.strip_prefix('/').unwrap_or(&self.id)
    }

    /// The name of the volume.
    pub fn volume_name(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.field(format!("cache mount {:o} {} {}", self.mode, self.uid, self.gid));
        hasher.field(self.seed.as_deref().unwrap_or_default()).field(&self.id);
        format!("{CACHE}{}", hasher.finish().hex())
    }
}

/// What a named volume is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedInfo {
    /// Milliseconds since 1970.
    pub created: i64,
    /// Given to it when it was made.
    pub labels: BTreeMap<String, String>,
}

impl NamedInfo {
    /// One that is made now.
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self { created: file::now_ms(), labels }
    }
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name below `volumes/`.
    pub name: String,
    /// What it is, for a cache mount.
    pub info: Option<VolumeInfo>,
    /// What it is, for a named one; earlier versions noted nothing.
    pub named: Option<NamedInfo>,
    /// Milliseconds since 1970.
    pub last_used: i64,
    /// Whether a step or a container of any process uses it.
    pub in_use: bool,
}

impl Volume {
    /// Whether it is a cache mount.
    pub fn is_cache(&self) -> bool {
        is_cache(&self.name)
    }
}

/// Whether a volume of this name, or what describes it, is that of a cache mount: people may name
/// theirs `cache-anything` too.
pub(crate) fn is_cache(name: &str) -> bool {
    let digits = name.trim_start_matches('.').strip_prefix(CACHE);
    digits.is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// The volumes of a store.
#[derive(Debug, Clone, Copy)]
pub struct Volumes<'a> {
    store: &'a Store,
}

impl<'a> Volumes<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Where the volume is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.store.root().join("volumes").join(name)
    }

    fn sidecar(&self, name: &str) -> PathBuf {
        self.path(&format!(".{name}"))
    }

    /// Waits for the volume, whose directory may not be there yet, and keeps it from prune until
    /// the answer is dropped.
    ///
    /// # Errors
    ///
    /// [`CacheError::Cancelled`] as soon as `cancel` is cancelled.
    pub fn take(
        &self,
        name: &str,
        hold: Hold,
        cancel: &CancelToken,
    ) -> Result<HeldVolume, CacheError> {
        let file = lock::wait(cancel, || self.attempt(name, hold))?;
        self.held(name, file)
    }

    /// [`Volumes::take`] without waiting: `None` when somebody uses it in a way that excludes this.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be made.
    pub fn try_take(&self, name: &str, hold: Hold) -> Result<Option<HeldVolume>, CacheError> {
        loop {
            match self.attempt(name, hold)? {
                Try::Held(file) => return self.held(name, file).map(Some),
                Try::Replaced => continue,
                Try::Busy => return Ok(None),
            }
        }
    }

    fn attempt(&self, name: &str, hold: Hold) -> Result<Try, CacheError> {
        if self.store.is_read_only() {
            return Err(self.store.refusal());
        }
        let path = self.sidecar(name);
        let file = lock::open_or_create(&path)?;
        let locked = match hold {
            Hold::Shared => lock::try_lock_shared(&file, &path)?,
            Hold::Alone => lock::try_lock(&file, &path)?,
        };
        Ok(match locked {
            false => Try::Busy,
            true if lock::is_at(&file, &path) => Try::Held(file),
            true => Try::Replaced,
        })
    }

    fn held(&self, name: &str, file: File) -> Result<HeldVolume, CacheError> {
        // What is in it may change from now on.
        sizes::forget_volume(self.store, name)?;
        let origins = origins::take(self.store, name)?;
        let (path, sidecar) = (self.path(name), self.sidecar(name));
        let (store, name) = (self.store.clone(), name.to_owned());
        Ok(HeldVolume { store, name, path, sidecar, file, origins })
    }

    /// The lists that say what a volume holds which nobody has used since.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn origins(&self, name: &str) -> Result<Vec<Origin>, CacheError> {
        origins::of(self.store, name)
    }

    /// Notes that the cache `place` names the list that a volume was made into, unless somebody
    /// has used the volume since.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note_published(&self, name: &str, place: &str, list: &Digest) -> Result<(), CacheError> {
        origins::publish(self.store, name, place, list)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, CacheError> {
        let mut names = file::names(&self.store.root().join("volumes"))?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names.into_iter().map(|name| self.look(name)).collect()
    }

    /// The cache mount with this id as people write it, or with a name that starts so; of several
    /// the one that is as a Dockerfile has it that says nothing of mode, owner and seed.
    ///
    /// # Errors
    ///
    /// [`CacheError::AmbiguousCache`] when none of several is that one.
    pub fn find_cache(&self, id: &str) -> Result<Option<Volume>, CacheError> {
        let caches: Vec<_> = self.list()?.into_iter().filter(Volume::is_cache).collect();
        let has_id =
            |volume: &&Volume| volume.info.as_ref().is_some_and(|info| info.shown_id() == id);
        let mut found: Vec<_> = caches.iter().filter(has_id).collect();
        if found.is_empty() && id.len() > CACHE.len() {
            found = caches.iter().filter(|volume| volume.name.starts_with(id)).collect();
        }
        let plain = VolumeInfo::plain(id).volume_name();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            [first, ..] => match found.iter().find(|volume| volume.name == plain) {
                Some(plain) => Ok(Some((*plain).clone())),
                None => Err(CacheError::AmbiguousCache {
                    id: id.to_owned(),
                    count: found.len(),
                    name: first.name.chars().take(CACHE.len() + 12).collect(),
                }),
            },
        }
    }

    /// Bytes on disk of a volume: walks it.
    pub fn measure(&self, name: &str) -> u64 {
        Measure::default().add([self.path(name)])
    }

    /// The volume of this name, if it is there.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Volume>, CacheError> {
        match file::exists(&self.path(name)) {
            true => self.look(name.to_owned()).map(Some),
            false => Ok(None),
        }
    }

    fn look(&self, name: String) -> Result<Volume, CacheError> {
        let path = self.sidecar(&name);
        let changed =
            |path: &Path| rustix::fs::lstat(path).map_or(0, |stat| file::changed_ms(&stat));
        let Some(file) = file::open_if_there(&path)? else {
            let last_used = changed(&self.path(&name));
            return Ok(Volume { name, info: None, named: None, last_used, in_use: false });
        };
        let info = read_info(&file);
        let named = (!is_cache(&name)).then(|| read_info(&file)).flatten();
        let in_use = !lock::try_lock(&file, &path)?;
        Ok(Volume { name, info, named, last_used: changed(&path), in_use })
    }

    /// Removes the volume with all that is in it; says whether it was there.
    ///
    /// # Errors
    ///
    /// [`CacheError::InUse`] while a step or a container uses it.
    pub fn remove(&self, name: &str) -> Result<bool, CacheError> {
        if !file::exists(&self.path(name)) && !file::exists(&self.sidecar(name)) {
            return Ok(false);
        }
        let Some(held) = self.try_take(name, Hold::Alone)? else {
            return Err(CacheError::VolumeInUse { name: name.to_owned() });
        };
        held.remove()?;
        Ok(true)
    }

    /// Removes what is told of volumes that are not there, as a killed process may leave it.
    pub(crate) fn sweep(&self) -> Result<(), CacheError> {
        for name in file::names(&self.store.root().join("volumes"))? {
            if let Some(name) = name.strip_prefix('.')
                && !file::exists(&self.path(name))
                && let Some(held) = self.try_take(name, Hold::Alone)?
            {
                held.discard()?;
            }
        }
        Ok(())
    }
}

/// A volume in use. Dropped, it may go.
#[derive(Debug)]
pub struct HeldVolume {
    store: Store,
    name: String,
    path: PathBuf,
    sidecar: PathBuf,
    file: File,
    origins: Vec<Origin>,
}

impl HeldVolume {
    /// Its name below `volumes/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its lock, for another process that is to hold it on: both do until both have let go.
    ///
    /// # Errors
    ///
    /// When there are too many open files.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Its directory, which is there only once somebody has made it: whole, by a rename.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lists that say what it held when it was taken.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Notes which lists say what it holds now; the holder must be alone.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn set_origins(&self, origins: &[Origin]) -> Result<(), CacheError> {
        origins::put(&self.store, &self.name, origins)
    }

    /// Notes that it is used now, and what it is if that is not known yet.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note(&self, info: Option<&VolumeInfo>) -> Result<(), CacheError> {
        if let Some(info) = info
            && read_info::<VolumeInfo>(&self.file).is_none()
        {
            // In one piece, and the same text by everybody who shares it.
            self.describe(info)?;
        }
        // The kernel's own idea of now is some milliseconds old.
        let now = file::now_ms();
        let now = Timespec { tv_sec: now / 1000, tv_nsec: now % 1000 * 1_000_000 };
        let now = Timestamps { last_access: now, last_modification: now };
        rustix::fs::futimens(self.file.as_fd(), &now).at("touch", &self.sidecar)
    }

    /// Notes what a named volume is, for whoever has just made its directory, or holds it alone and
    /// is about to.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn note_named(&self, info: &NamedInfo) -> Result<(), CacheError> {
        self.file.set_len(0).at("write", &self.sidecar)?;
        self.describe(info)
    }

    fn describe(&self, info: &impl Serialize) -> Result<(), CacheError> {
        let json = serde_json::to_vec(info)
            .map_err(|error| CacheError::io("encode", &self.sidecar, error.into()))?;
        (&self.file).rewind().at("write", &self.sidecar)?;
        (&self.file).write_all(&json).at("write", &self.sidecar)
    }

    /// Puts the directory `new`, which lies on the store's file system, in the place of the volume's
    /// own, whole. What was there goes; who still has it mounted keeps it until then.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed or the old one not removed.
    pub fn replace(&self, new: &Path) -> Result<(), CacheError> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let (from, to) = (new, &self.path);
        match renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE) {
            Ok(()) => remove_tree(new, None).map(drop),
            Err(Errno::NOENT) => file::rename(new, &self.path),
            Err(error) => Err(error).at("rename", new),
        }
    }

    /// Removes the volume with all that is in it. The lock is one for this holder alone.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(self) -> Result<(), CacheError> {
        match self.discard()? {
            Some(path) => remove_tree(&path, None).map(drop),
            None => Ok(()),
        }
    }

    /// Takes the volume out of the store; what is returned is left to remove. The lock is one for
    /// this holder alone.
    pub(crate) fn discard(self) -> Result<Option<PathBuf>, CacheError> {
        let aside = match file::exists(&self.path) {
            false => None,
            true => {
                let aside = self.store.temporary("trash")?;
                file::rename(&self.path, &aside)?;
                Some(aside)
            }
        };
        file::unlink(&self.sidecar)?;
        Ok(aside)
    }
}

impl Drop for HeldVolume {
    fn drop(&mut self) {
        // Measured by somebody meanwhile: the size is known anew only by the next who asks.
        let _ = sizes::forget_volume(&self.store, &self.name);
    }
}

fn read_info<T: DeserializeOwned>(file: &File) -> Option<T> {
    let mut file = file;
    file.rewind().ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_INFO).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
