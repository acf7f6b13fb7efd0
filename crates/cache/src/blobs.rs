//! Bytes by digest: `blobs/sha256/<hex>`.
//!
//! A blob is written below `tmp/`, hashed on the way, synced, and renamed; so a file that has a
//! digest for its name holds those bytes, even after a power cut. The *name* is made durable by
//! [`Store::sync`](crate::Store::sync) (or setting a tag), once for all blobs of a build. Disks
//! still rot: [`Blobs::read_small`] checks what it reads, whoever streams a blob through
//! [`Blobs::open`] checks for himself.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rbuild_rooted::begin_write_back;
use rbuild_types::{CancelToken, Digest, Hasher};

use crate::error::{At as _, CacheError};
use crate::file;
use crate::index::Durability;
use crate::lease::Object;
use crate::measure::blocks_at;
use crate::sizes::{self, Part};
use crate::store::Store;

/// Bytes after which a blob in the making begins to go to the disk, so that its sync is short.
const WRITE_BACK: u64 = 8 << 20;

/// The blobs of a store.
#[derive(Debug, Clone, Copy)]
pub struct Blobs<'a> {
    store: &'a Store,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.store.root().join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there; a lease of this handle then keeps it.
    ///
    /// # Errors
    ///
    /// When the lease cannot be written.
    pub fn contains(&self, digest: &Digest) -> Result<bool, CacheError> {
        Ok(self.size(digest)?.is_some())
    }

    /// Size of the blob in bytes, if it is there; a lease of this handle then keeps it.
    ///
    /// # Errors
    ///
    /// When the lease cannot be written.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, CacheError> {
        let path = self.path(digest);
        let look = || rustix::fs::lstat(&path).ok().map(|stat| stat.st_size as u64);
        if look().is_none() {
            return Ok(None);
        }
        let _guard = self.store.protect(&Object::Blob(*digest))?;
        Ok(look())
    }

    /// Opens the blob for reading. The bytes are not verified; see the module's header.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoBlob`] when it is not there.
    pub fn open(&self, digest: &Digest) -> Result<File, CacheError> {
        let guard = self.store.protect(&Object::Blob(*digest))?;
        let opened = file::open_if_there(&self.path(digest))?;
        drop(guard);
        opened.ok_or(CacheError::NoBlob { digest: *digest })
    }

    /// Reads a whole blob of at most `cap` bytes and verifies its digest.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoBlob`], [`CacheError::TooLarge`], and [`CacheError::Mismatch`] when the
    /// bytes are not the ones that the digest names.
    pub fn read_small(&self, digest: &Digest, cap: usize) -> Result<Vec<u8>, CacheError> {
        let path = self.path(digest);
        let bytes = file::read_capped(self.open(digest)?, &path, cap)?;
        if bytes.len() > cap {
            let size = rustix::fs::stat(&path).map_or(0, |stat| stat.st_size as u64);
            return Err(CacheError::TooLarge { digest: *digest, size, cap });
        }
        check(&path, Some(digest), &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Begins a new blob. Once it is published, room for others is waited for until `cancel` is
    /// cancelled.
    ///
    /// # Errors
    ///
    /// When no temporary file can be made.
    pub fn writer(&self, cancel: &CancelToken) -> Result<BlobWriter, CacheError> {
        let path = self.store.temporary("blob")?;
        let file = file::create_new(&path)?;
        let (store, cancel) = (self.store.clone(), cancel.clone());
        let hasher = Hasher::new();
        Ok(BlobWriter { store, cancel, file, path, hasher, size: 0, published: false })
    }

    /// Stores `bytes`; does nothing when they are there already.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::of(bytes);
        // A file of another size is the trace of a damaged disk, and is replaced.
        if self.size(&digest)? == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        let mut writer = self.writer(&CancelToken::default())?;
        writer.write_all(bytes).at("write", &writer.path)?;
        // The next layer makes room for documents.
        writer.publish(Some(&digest), Some(bytes.len() as u64))?;
        Ok(digest)
    }

    /// Removes the blob whoever may use it; says whether it was there. Meant for damaged blobs:
    /// [`Store::prune`](crate::Store::prune) removes what nobody uses.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<bool, CacheError> {
        file::unlink(&self.path(digest))
    }

    /// All blobs, in no order.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, CacheError> {
        let names = file::names(&self.store.root().join("blobs/sha256"))?;
        Ok(names.iter().filter_map(|name| format!("sha256:{name}").parse().ok()).collect())
    }
}

/// A blob in the making; implements [`Write`]. Dropped without [`BlobWriter::commit`], it leaves
/// nothing.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    /// Of whoever writes it.
    cancel: CancelToken,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    published: bool,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Publishes the blob and returns its digest and size in bytes. Whatever does not fit
    /// `expected` or `expected_size` is discarded.
    ///
    /// The bytes are synced before the blob gets its name; the name is synced with
    /// [`Store::sync`](crate::Store::sync).
    ///
    /// # Errors
    ///
    /// [`CacheError::Mismatch`] when the bytes are not the expected ones.
    pub fn commit(
        mut self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<(Digest, u64), CacheError> {
        let published = self.publish(expected, expected_size)?;
        // It is there, and whoever is cancelled finds it the next time.
        let _ = self.store.keep_limits(&self.cancel);
        Ok(published)
    }

    fn publish(
        &mut self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<(Digest, u64), CacheError> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected_size.filter(|expected| *expected != self.size) {
            let (expected, found) = (format!("{expected} bytes"), format!("{} bytes", self.size));
            return Err(CacheError::Mismatch { path: self.path.clone(), expected, found });
        }
        check(&self.path, expected, &digest)?;
        self.file.sync_data().at("sync", &self.path)?;
        let target = self.store.blobs().path(&digest);
        let guard = self.store.protect(&Object::Blob(digest))?;
        let new = if file::exists(&target) { 0 } else { blocks_at(&self.path) };
        file::rename(&self.path, &target)?;
        self.published = true;
        self.store.note_blob();
        drop(guard);
        if self.store.limits().is_some() {
            self.store.index().write(Durability::Lazy, |index| {
                sizes::grow(index, Part::Blobs, sizes::signed(new))
            })?;
        }
        Ok((digest, self.size))
    }
}

fn check(path: &Path, expected: Option<&Digest>, found: &Digest) -> Result<(), CacheError> {
    match expected.filter(|expected| *expected != found) {
        None => Ok(()),
        Some(expected) => Err(CacheError::Mismatch {
            path: path.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        let before = self.size;
        self.size += written as u64;
        if before / WRITE_BACK < self.size / WRITE_BACK {
            begin_write_back(&self.file);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.published {
            // The sweep takes what cannot be removed here.
            let _ = file::unlink(&self.path);
        }
    }
}
