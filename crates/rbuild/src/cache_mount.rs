//! Cache mounts as objects that outlive the builds that use them: they are looked at, filled,
//! emptied and carried elsewhere.
//!
//! One is meant by its id as it is written in the Dockerfile, or by the start of its name. Whoever
//! reads or replaces all of one holds it alone, so no step writes meanwhile; a file-level walk is
//! in `files.rs`.

mod files;

use std::io::Read;
use std::path::Path;

use rbuild_cache::{HeldVolume, Hold, Volume, VolumeInfo};
use rbuild_image::compress::{CompressedWriter, Encoding};
use rbuild_image::layer::{Devices, PackOptions, TreeForm, UnpackOptions};
use rbuild_image::layer::{pack, unpack_archive};
use rbuild_rooted::Root;
use rbuild_types::CancelToken;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

pub use self::files::{CacheFile, CacheFileKind, ReadCacheFile};
pub(crate) use self::files::{restore_files, walk};
use crate::{BuildError, Destination, Engine, export};

/// A cache mount that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// The name of its volume.
    pub name: String,
    /// The id as it is written in the Dockerfile, or the target where none is; a namespace
    /// (`BUILDKIT_CACHE_MOUNT_NS`) and a slash stand before it. Empty when it is not known.
    pub id: String,
    /// Mode, owner and group of the directory when it was new: with others it is another mount.
    pub mode: u32,
    /// See `mode`.
    pub uid: u32,
    /// See `mode`.
    pub gid: u32,
    /// Whether it started with files of a stage.
    pub seeded: bool,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970.
    pub last_used: i64,
    /// Whether a step or a container uses it.
    pub in_use: bool,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A cache mount that is held: as long as this lives it is not pruned.
#[derive(Debug)]
pub struct OpenCache {
    held: HeldVolume,
    root: Root,
}

impl OpenCache {
    /// Its directory.
    pub(crate) fn root(&self) -> Result<Root, BuildError> {
        Ok(self.root.try_clone()?)
    }
}

impl Engine {
    /// All cache mounts, by id; measures each.
    pub fn caches(&self) -> Result<Vec<CacheMount>, BuildError> {
        let volumes = self.store.volumes().list()?.into_iter().filter(Volume::is_cache);
        let mut caches: Vec<_> = volumes.map(|volume| self.described(volume)).collect();
        caches.sort_by(|a, b| (&a.id, &a.name).cmp(&(&b.id, &b.name)));
        Ok(caches)
    }

    /// The cache mount with this id, or with a name that starts so.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchCache`], and an error when several are meant.
    pub fn cache(&self, id: &str) -> Result<CacheMount, BuildError> {
        Ok(self.described(self.found(id)?))
    }

    /// Removes a cache mount with all that is in it.
    ///
    /// # Errors
    ///
    /// When there is none, and while a step or a container uses it.
    pub fn remove_cache(&self, id: &str) -> Result<CacheMount, BuildError> {
        let volume = self.found(id)?;
        let removed = self.described(volume);
        self.store.volumes().remove(&removed.name)?;
        Ok(removed)
    }

    /// Waits for a cache mount that is there.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchCache`] when there is none.
    pub fn open_cache(
        &self,
        id: &str,
        hold: Hold,
        cancel: &CancelToken,
    ) -> Result<OpenCache, BuildError> {
        let volume = self.found(id)?;
        let held = self.store.volumes().take(&volume.name, hold, cancel)?;
        if !held.path().exists() {
            // It was removed while it was waited for.
            return Err(BuildError::NoSuchCache { id: id.to_owned() });
        }
        let root = Root::open(held.path())?;
        Ok(OpenCache { held, root })
    }

    /// Waits for a cache mount, and makes an empty one, as a Dockerfile has it that says nothing
    /// of mode, owner and seed, when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or several are meant.
    pub fn open_or_make_cache(
        &self,
        id: &str,
        hold: Hold,
        cancel: &CancelToken,
    ) -> Result<OpenCache, BuildError> {
        let held = self.cache_or_new(id, hold, cancel)?;
        let root = Root::open(held.path())?;
        Ok(OpenCache { held, root })
    }

    /// [`Engine::open_or_make_cache`] for whoever mounts it.
    pub(crate) fn cache_or_new(
        &self,
        id: &str,
        hold: Hold,
        cancel: &CancelToken,
    ) -> Result<HeldVolume, BuildError> {
        if id.is_empty() {
            let message = "a cache mount has an id: see `rbuild cache ls`".to_owned();
            return Err(BuildError::Request { message });
        }
        let plain = VolumeInfo::plain(id);
        let (name, info) = match self.store.volumes().find_cache(id)? {
            Some(volume) => (volume.name, volume.info),
            None => (plain.volume_name(), Some(plain)),
        };
        let held = self.store.volumes().take(&name, hold, cancel)?;
        held.note(info.as_ref())?;
        if held.path().exists() {
            return Ok(held);
        }
        let io = |source| BuildError::Io { what: format!("make cache mount {id}"), source };
        let scratch = self.store.scratch("cache")?;
        let new = scratch.path().join("fs");
        fs_err::create_dir(&new).map_err(io)?;
        dress(&Root::open(&new)?, info.as_ref())?;
        match renameat_with(CWD, &new, CWD, held.path(), RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => Ok(held),
            Err(errno) => Err(io(errno.into())),
        }
    }

    /// Writes all of a cache mount as a tar: the same files give the same bytes. The name of the
    /// file says how it is compressed (`.zst`, `.gz`).
    ///
    /// # Errors
    ///
    /// When there is no such cache mount, or the file cannot be written.
    pub fn export_cache(
        &self,
        id: &str,
        destination: &Destination,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let cache = self.open_cache(id, Hold::Alone, cancel)?;
        let encoding = match destination {
            Destination::File(path) => encoding_of(path),
            Destination::Stdout => Encoding::Uncompressed,
        };
        let pool = self.pool()?;
        let options = PackOptions { form: TreeForm::Plain, ..PackOptions::default() };
        export::to(destination, &mut |sink| {
            let mut writer = CompressedWriter::new(sink, encoding, pool);
            pack(&cache.root, &options, &mut writer, cancel)?;
            let failed = |source| BuildError::Io { what: format!("write cache {id}"), source };
            writer.finish().map(drop).map_err(failed)
        })
    }

    /// Puts what a tar holds, compressed or not, in the place of all that is in a cache mount,
    /// which is made when it is not there. Device nodes are left out.
    ///
    /// # Errors
    ///
    /// When the tar is damaged: then nothing changes.
    pub fn import_cache(
        &self,
        id: &str,
        tar: &mut dyn Read,
        cancel: &CancelToken,
    ) -> Result<(), BuildError> {
        let cache = self.open_or_make_cache(id, Hold::Alone, cancel)?;
        self.replace_cache(&cache, &mut |root| {
            let options = UnpackOptions { devices: Devices::Skip, ..UnpackOptions::default() };
            unpack_archive(tar, root, &options, cancel)?;
            Ok(())
        })
    }

    /// Fills a new directory and puts it, whole, in the place of that of a cache mount. The cache
    /// must be held alone. After an error nothing has changed.
    ///
    /// # Errors
    ///
    /// Those of `fill`, and when the directory cannot be made.
    pub fn replace_cache(
        &self,
        cache: &OpenCache,
        fill: &mut dyn FnMut(&Root) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let old = cache.root.metadata()?;
        self.fill_volume(&cache.held, (old.mode, old.uid, old.gid), fill)
    }

    /// [`Engine::replace_cache`] for one whose directory need not be there yet; the new one has this
    /// mode, owner and group.
    pub(crate) fn fill_volume(
        &self,
        held: &HeldVolume,
        (mode, uid, gid): (u32, u32, u32),
        fill: &mut dyn FnMut(&Root) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let io = |source| BuildError::Io { what: "fill a cache mount".to_owned(), source };
        let scratch = self.store.scratch("cache")?;
        let new = scratch.path().join("fs");
        fs_err::create_dir(&new).map_err(io)?;
        let root = Root::open(&new)?;
        root.set_owner("", uid, gid)?;
        root.set_mode("", mode)?;
        fill(&root)?;
        drop(root);
        Ok(held.replace(&new)?)
    }

    fn found(&self, id: &str) -> Result<Volume, BuildError> {
        let found = self.store.volumes().find_cache(id)?;
        found.ok_or_else(|| BuildError::NoSuchCache { id: id.to_owned() })
    }

    fn described(&self, volume: Volume) -> CacheMount {
        let info = volume.info.as_ref();
        CacheMount {
            id: info.map(VolumeInfo::shown_id).unwrap_or_default().to_owned(),
            mode: info.map_or(0, |info| info.mode),
            uid: info.map_or(0, |info| info.uid),
            gid: info.map_or(0, |info| info.gid),
            seeded: info.is_some_and(|info| info.seed.is_some()),
            created: info.map_or(volume.last_used, |info| info.created),
            last_used: volume.last_used,
            in_use: volume.in_use,
            bytes: self.store.volumes().measure(&volume.name),
            name: volume.name,
        }
    }
}

/// Mode and owner of a new directory.
fn dress(root: &Root, info: Option<&VolumeInfo>) -> Result<(), BuildError> {
    if let Some(info) = info {
        root.set_owner("", info.uid, info.gid)?;
        root.set_mode("", info.mode)?;
    }
    Ok(())
}

fn encoding_of(path: &Path) -> Encoding {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst" | "tzst") => Encoding::ZSTD,
        Some("gz" | "tgz") => Encoding::GZIP,
        _ => Encoding::Uncompressed,
    }
}
