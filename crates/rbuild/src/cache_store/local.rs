//! A cache in a directory, which is an OCI image layout.
//!
//! Whoever writes holds `rbuild-write.lock` from reading the index to replacing it, so no record of
//! another writer is lost. Layers that no manifest of the layout names are removed after a write,
//! unless somebody else is about to put layers there: each who does holds `rbuild-use.lock`
//! together with the others. Both are kernel locks, which end with their process.
//!
//! A file is on the disk before it has its name, and its name is there before another file names
//! it: a power cut leaves no file that is less than it seems.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::Store;
use rbuild_image::blob::Verified;
use rbuild_image::index::Index;
use rbuild_image::layout::REF_NAME;
use rbuild_image::manifest::{Descriptor, Document, Manifest, parse_manifest};
use rbuild_image::media_type::{Family, OCI_INDEX, document_kind};
use rbuild_registry::BlobSink;
use rbuild_rooted::{Errno, Follow, NewDirs, Root, RootedError};
use rbuild_types::{CancelToken, Ctx, Digest};

use super::{CacheStore, CacheStoreError, Found, manifest};
use crate::remote_cache::index::{INDEX_TYPE, MAX_BYTES};
use crate::sources::image::chain;

/// Bytes of `index.json` and of a manifest: what registries take too.
const MAX_DOCUMENT: u64 = 4 << 20;
const BLOBS: &str = "blobs/sha256";
const WRITE_LOCK: &str = "rbuild-write.lock";
const USE_LOCK: &str = "rbuild-use.lock";
/// Tries to read an index beside those who replace it.
const MAX_READS: usize = 5;
/// Pause between two tries to get a lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct LocalCache {
    path: PathBuf,
    tag: String,
    digest: Option<Digest>,
    /// The lock of those who put layers there, from the first look.
    used: Mutex<Option<File>>,
}

impl LocalCache {
    pub(super) fn new(path: &Path, tag: &str, digest: Option<Digest>) -> Self {
        let (path, tag) = (path.to_owned(), tag.to_owned());
        Self { path, tag, digest, used: Mutex::default() }
    }

    fn io(&self, action: &str) -> impl FnOnce(std::io::Error) -> CacheStoreError {
        let what = format!("{action} {}", self.path.display());
        move |source| CacheStoreError::Io { what, source }
    }

    /// The directory, if it is there.
    fn root(&self) -> Result<Option<Root>, CacheStoreError> {
        match Root::open(&self.path) {
            Ok(root) => Ok(Some(root)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory, made where it is missing.
    fn made(&self) -> Result<Root, CacheStoreError> {
        fs_err::create_dir_all(&self.path).map_err(self.io("make"))?;
        let root = Root::open(&self.path)?;
        let new = NewDirs { mode: 0o755, owner: None };
        match root.create_dir_all(BLOBS, new) {
            // Somebody else has just made one of them.
            Err(error) if error.errno() == Some(Errno::EXIST) => root.create_dir_all(BLOBS, new)?,
            made => made?,
        };
        Ok(root)
    }

    fn lock_file(&self, name: &str) -> Result<File, CacheStoreError> {
        let path = self.path.join(name);
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.options_mut().mode(0o644).custom_flags(flags.bits().cast_signed());
        let file = options.open(path).map_err(self.io("lock"))?;
        Ok(file.into_parts().0)
    }

    /// Says that layers will be put here, until this is dropped.
    fn begin_use(&self, cancel: &CancelToken) -> Result<(), CacheStoreError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.is_none() {
            let file = self.lock_file(USE_LOCK)?;
            self.wait(&file, File::try_lock_shared, cancel)?;
            *used = Some(file);
        }
        Ok(())
    }

    fn wait(
        &self,
        file: &File,
        lock: fn(&File) -> Result<(), TryLockError>,
        cancel: &CancelToken,
    ) -> Result<(), CacheStoreError> {
        loop {
            cancel.check()?;
            match lock(file) {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(self.io("lock")(error)),
            }
        }
    }

    fn layout(&self, root: &Root) -> Result<Index, CacheStoreError> {
        let bytes = match root.read_small("index.json", MAX_DOCUMENT) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(Index::new(Family::Oci, Vec::new())),
            Err(error) => return Err(error.into()),
        };
        match parse_manifest(&bytes, Some(OCI_INDEX))? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(damaged("its index.json is not an index")),
        }
    }

    /// Makes the names in a directory survive a power cut.
    fn sync_names(&self, directory: &str) -> Result<(), CacheStoreError> {
        let directory = fs_err::File::open(self.path.join(directory)).map_err(self.io("open"))?;
        directory.sync_all().map_err(self.io("sync"))
    }

    fn is_ours(&self, entry: &Descriptor) -> bool {
        entry.annotations.get(REF_NAME) == Some(&self.tag)
    }

    /// Which manifest the cache has.
    fn version(&self, root: &Root) -> Result<Option<Digest>, CacheStoreError> {
        if self.digest.is_some() {
            return Ok(self.digest);
        }
        let layout = self.layout(root)?;
        let entry = layout.manifests.iter().find(|entry| self.is_ours(entry));
        Ok(entry.map(|entry| entry.digest))
    }

    fn read(&self, root: &Root, version: Digest) -> Result<Found, CacheStoreError> {
        let bytes = root.read_small(blob_path(version), MAX_DOCUMENT)?;
        if Digest::of(&bytes) != version {
            return Err(damaged("its manifest is not what its name says"));
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
            return Ok(Found::Foreign { version });
        };
        let index = manifest.config;
        if index.media_type != INDEX_TYPE {
            return Ok(Found::Foreign { version });
        }
        let bytes = root.read_small(blob_path(index.digest), MAX_BYTES)?;
        index.verify(&bytes, "index of the cache")?;
        Ok(Found::Index { bytes, version })
    }

    /// Removes layers that nothing in the layout names.
    fn trim(&self, root: &Root) -> Result<(), CacheStoreError> {
        // The own lock would be in the way of the others' test as theirs is of ours.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        drop(used.take());
        let file = self.lock_file(USE_LOCK)?;
        if file.try_lock().is_err() {
            return Ok(());
        }
        let mut named = BTreeSet::new();
        for entry in &self.layout(root)?.manifests {
            named.insert(entry.digest.hex());
            if document_kind(&entry.media_type).is_none() {
                continue;
            }
            let bytes = match root.read_small(blob_path(entry.digest), MAX_DOCUMENT) {
                Ok(bytes) => bytes,
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
                // What an index of images or the like leads to is not for us to say.
                return Ok(());
            };
            named.insert(manifest.config.digest.hex());
            named.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
        }
        for entry in root.read_dir(BLOBS)? {
            let is_named = entry.name.to_str().is_some_and(|name| named.contains(name));
            if !is_named {
                root.remove(Path::new(BLOBS).join(&entry.name))?;
            }
        }
        Ok(())
    }
}

impl CacheStore for LocalCache {
    fn name(&self) -> String {
        format!("the cache in {}", self.path.display())
    }

    fn place(&self) -> String {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        format!("local {} {}", path.display(), self.tag)
    }

    fn read_index(&self, _: Ctx<'_>) -> Result<Found, CacheStoreError> {
        let Some(root) = self.root()? else { return Ok(Found::Nothing) };
        // What a writer has just replaced is removed: the next look finds what it wrote.
        let mut tries = 0..MAX_READS;
        loop {
            let Some(version) = self.version(&root)? else { return Ok(Found::Nothing) };
            match self.read(&root, version) {
                Err(CacheStoreError::Rooted(error))
                    if is_missing(&error) && tries.next().is_some() => {}
                Err(error) if error.is_damage() => {
                    return Ok(Found::Broken { problem: chain(&error), version });
                }
                found => return found,
            }
        }
    }

    fn write_index(
        &self,
        index: &[u8],
        layers: &[Descriptor],
        expected: Option<Digest>,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError> {
        let root = self.made()?;
        let lock = self.lock_file(WRITE_LOCK)?;
        self.wait(&lock, File::try_lock, ctx.cancel)?;
        let mut layout = self.layout(&root)?;
        let now = layout.manifests.iter().find(|entry| self.is_ours(entry));
        if now.map(|entry| entry.digest) != expected {
            return Ok(false);
        }
        let manifest = manifest(index, layers);
        let bytes = manifest.to_bytes()?;
        let mut entry = Descriptor::of(Family::Oci.manifest(), &bytes);
        put_bytes(&root, &blob_path(manifest.config.digest), index)?;
        put_bytes(&root, &blob_path(entry.digest), &bytes)?;
        put_bytes(&root, Path::new("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        entry.annotations.insert(REF_NAME.to_owned(), self.tag.clone());
        layout.manifests.retain(|old| !self.is_ours(old));
        layout.manifests.push(entry);
        self.sync_names(BLOBS)?;
        put_bytes(&root, Path::new("index.json"), &layout.to_bytes()?)?;
        self.sync_names("")?;
        self.trim(&root)?;
        Ok(true)
    }

    fn settles_after(&self) -> Option<Duration> {
        None
    }

    fn has_blob(&self, blob: &Descriptor, ctx: Ctx<'_>) -> Result<bool, CacheStoreError> {
        let root = self.made()?;
        self.begin_use(ctx.cancel)?;
        let found = root.stat(blob_path(blob.digest), Follow::No)?;
        Ok(found.is_some_and(|found| found.is_file() && found.size == blob.size))
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        from: &Store,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let root = self.made()?;
        self.begin_use(ctx.cancel)?;
        let path = blob_path(blob.digest);
        let source = Verified::new(from.blobs().open(&blob.digest)?, blob.digest, blob.size);
        put(&root, &path, &mut { source }, ctx.cancel)
    }

    fn fetch_blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let missing = || damaged(format!("layer {} is not there", blob.digest.short()));
        let root = self.root()?.ok_or_else(missing)?;
        let file = match root.open_file(blob_path(blob.digest), Follow::No) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let failed = |source| CacheStoreError::Io {
            what: format!("read layer {}", blob.digest.short()),
            source,
        };
        let mut source = Verified::new(file, blob.digest, blob.size);
        let mut buffer = vec![0; 1 << 17];
        loop {
            ctx.cancel.check()?;
            match source.read(&mut buffer).map_err(failed)? {
                0 => return Ok(()),
                count => sink.write(buffer.get(..count).unwrap_or_default()).map_err(failed)?,
            }
        }
    }
}

fn blob_path(digest: Digest) -> PathBuf {
    Path::new(BLOBS).join(digest.hex())
}

fn damaged(problem: impl Into<String>) -> CacheStoreError {
    CacheStoreError::Damaged { problem: problem.into() }
}

fn is_missing(error: &RootedError) -> bool {
    error.errno() == Some(Errno::NOENT)
}

fn put_bytes(root: &Root, path: &Path, bytes: &[u8]) -> Result<(), CacheStoreError> {
    put(root, path, &mut { bytes }, &CancelToken::default())
}

/// Writes a file that appears whole or not at all.
fn put(
    root: &Root,
    path: &Path,
    source: &mut dyn Read,
    cancel: &CancelToken,
) -> Result<(), CacheStoreError> {
    let random = crate::engine::random_id()
        .map_err(|error| damaged(format!("cannot name a temporary file: {error}")))?;
    let temporary = Path::new(BLOBS).join(format!(".{}.partial", random.get(..16).unwrap_or("")));
    let failed = |source| CacheStoreError::Io { what: format!("write {}", path.display()), source };
    let mut copy = || {
        let mut file = root.create_file(&temporary, 0o644)?;
        let mut buffer = vec![0; 1 << 17];
        loop {
            cancel.check()?;
            match source.read(&mut buffer).map_err(failed)? {
                0 => break,
                count => file.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?,
            }
        }
        file.sync_data().map_err(failed)?;
        Ok(root.rename(&temporary, path)?)
    };
    let copied = copy();
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = root.remove(&temporary);
    }
    copied
}
