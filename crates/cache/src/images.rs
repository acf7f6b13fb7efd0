//! Images, the names that people gave them, and what remote names stood for.
//!
//! An image is a manifest's (or index's) digest in the table `images`; a tag points at it. An
//! image whose last tag went is *dangling* and stays until [`Tags::prune_images`] or
//! [`Tags::remove_image`]. `index.json` repeats both tables for other tools, and for the day when
//! the index is lost; it is written before the index, under `locks/images.lock`.

use std::path::Path;

use rbuild_types::{Digest, Platform, Reference};
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::error::CacheError;
use crate::file;
use crate::image_json::{self, Descriptor, MAX_JSON, Manifest, index_json};
use crate::index::Durability;
use crate::lock::GcLock;
use crate::recovery;
use crate::store::Store;

/// An image, once per name that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its name; `None` for a dangling image.
    pub reference: Option<Reference>,
    /// Digest of its manifest or index.
    pub manifest_digest: Digest,
    /// Media type of the manifest.
    pub media_type: String,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// The image id: digest of the config; for an index, of the index.
    pub image_id: Digest,
    /// Milliseconds since 1970 when it was made, as its config says, or the newest of an index;
    /// where that says nothing, when it came into this store.
    pub created: i64,
    /// Bytes of config and layers as the manifest states them, which may be compressed; of an
    /// index, those of all its images.
    pub size: u64,
}

/// The images of a store with their names.
#[derive(Debug, Clone, Copy)]
pub struct Tags<'a> {
    store: &'a Store,
}

const COLUMNS: &str = "images.manifest, media_type, manifest_size, image_id, created, size";

impl<'a> Tags<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Names an image. Everything written before is synced first, so that when this returns the
    /// image is complete and survives a power cut. Does nothing when the name stands for this
    /// manifest already.
    ///
    /// # Errors
    ///
    /// [`CacheError::NoBlob`] and [`CacheError::NotAnImage`] when there is no such manifest;
    /// [`CacheError::OtherDigest`] for a name with the digest of another.
    pub fn set(
        &self,
        reference: &Reference,
        manifest: &Digest,
        size: u64,
        media_type: &str,
    ) -> Result<(), CacheError> {
        if reference.digest().is_some_and(|digest| digest != *manifest) {
            let reference = reference.to_string();
            return Err(CacheError::OtherDigest { reference, manifest: *manifest });
        }
        if self.get(reference)?.is_some_and(|image| image.manifest_digest == *manifest) {
            return Ok(());
        }
        self.record(Some(reference), manifest, size, media_type)
    }

    /// Records an image without a name (`build` without `-t`). Synced like [`Tags::set`].
    ///
    /// # Errors
    ///
    /// As [`Tags::set`].
    pub fn add_image(
        &self,
        manifest: &Digest,
        size: u64,
        media_type: &str,
    ) -> Result<(), CacheError> {
        if self.list()?.iter().any(|image| image.manifest_digest == *manifest) {
            return Ok(());
        }
        self.record(None, manifest, size, media_type)
    }

    fn record(
        &self,
        reference: Option<&Reference>,
        manifest: &Digest,
        size: u64,
        media_type: &str,
    ) -> Result<(), CacheError> {
        let json = self.store.blobs().read_small(manifest, MAX_JSON)?;
        let parsed: Manifest = serde_json::from_slice(&json)
            .map_err(|source| CacheError::NotAnImage { digest: *manifest, source })?;
        let read = |digest: &Digest| self.store.blobs().read_small(digest, MAX_JSON).ok();
        let image = described(manifest, media_type, size, &parsed, &read, &file::now_ms);
        self.store.sync()?;
        recovery::sync_blob_names(self.store)?;
        self.change(|index| {
            insert_image(index, &image)?;
            match reference {
                Some(reference) => insert_tag(index, reference, manifest),
                None => Ok(()),
            }
        })
    }

    /// The image of this name.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn get(&self, reference: &Reference) -> Result<Option<ImageRecord>, CacheError> {
        let sql = format!(
            "SELECT {COLUMNS}, reference FROM tags JOIN images USING (manifest)
             WHERE reference = ?1"
        );
        self.store.index().read(|index| {
            index.prepare_cached(&sql)?.query_row([reference.to_string()], decode).optional()
        })
    }

    /// Takes the name away; the image stays, dangling when it was the last one. Says whether the
    /// name was there.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn remove(&self, reference: &Reference) -> Result<bool, CacheError> {
        if self.get(reference)?.is_none() {
            return Ok(false);
        }
        let name = reference.to_string();
        self.change(|index| {
            index.execute("DELETE FROM tags WHERE reference = ?1", [&name]).map(drop)
        })?;
        Ok(true)
    }

    /// Forgets an image with all its names; its bytes go with the next prune. Says whether it was
    /// there.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn remove_image(&self, manifest: &Digest) -> Result<bool, CacheError> {
        if !self.list()?.iter().any(|image| image.manifest_digest == *manifest) {
            return Ok(false);
        }
        self.change(|index| delete_image(index, manifest))?;
        Ok(true)
    }

    /// All images: one record per name in the order of the names, then the dangling ones.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn list(&self) -> Result<Vec<ImageRecord>, CacheError> {
        self.store.index().read(list)
    }

    /// Forgets all dangling images that are older than `until` (milliseconds since 1970; `None`
    /// for all) and returns them. Their bytes go with the next [`Store::prune`].
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn prune_images(&self, until: Option<i64>) -> Result<Vec<ImageRecord>, CacheError> {
        let goes = |image: &ImageRecord| {
            image.reference.is_none() && until.is_none_or(|until| image.created < until)
        };
        let gone: Vec<_> = self.list()?.into_iter().filter(goes).collect();
        let manifests: Vec<_> = gone.iter().map(|image| image.manifest_digest).collect();
        self.forget_nameless(&manifests)?;
        Ok(gone)
    }

    /// Forgets those of the images that have no name (any more), and says whether that were all.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn forget_nameless(&self, manifests: &[Digest]) -> Result<bool, CacheError> {
        if manifests.is_empty() {
            return Ok(true);
        }
        self.change(|index| {
            manifests.iter().try_for_each(|manifest| {
                // It may have got a name meanwhile.
                let sql = "DELETE FROM images WHERE manifest = ?1
                           AND manifest NOT IN (SELECT manifest FROM tags)";
                index.execute(sql, [manifest.as_bytes()]).map(drop)
            })
        })?;
        Ok(!self.list()?.iter().any(|image| manifests.contains(&image.manifest_digest)))
    }

    /// Remembers what a remote name stood for, so that an unchanged rebuild touches no network.
    ///
    /// # Errors
    ///
    /// When the index cannot be written.
    pub fn remember(
        &self,
        reference: &Reference,
        platform: &Platform,
        manifest: &Digest,
    ) -> Result<(), CacheError> {
        let (name, platform) = (reference.to_string(), platform.to_string());
        self.store.index().write(Durability::Lazy, |index| {
            let sql = "INSERT OR REPLACE INTO remembered(reference, platform, manifest, at)
                       VALUES (?1, ?2, ?3, ?4)";
            let row = (&name, &platform, manifest.as_bytes(), file::now_ms());
            index.prepare_cached(sql)?.execute(row).map(drop)
        })
    }

    /// What the name stood for when it was last resolved, and when that was (milliseconds since
    /// 1970).
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn recall(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<(Digest, i64)>, CacheError> {
        let key = (reference.to_string(), platform.to_string());
        self.store.index().read(|index| {
            let sql = "SELECT manifest, at FROM remembered WHERE reference = ?1 AND platform = ?2";
            let both = |row: &Row<'_>| Ok((Digest::from_bytes(row.get(0)?), row.get(1)?));
            index.prepare_cached(sql)?.query_row((&key.0, &key.1), both).optional()
        })
    }

    /// The remote names that stood for this manifest when they were last resolved.
    ///
    /// # Errors
    ///
    /// When the index cannot be read.
    pub fn remembered_as(&self, manifest: &Digest) -> Result<Vec<Reference>, CacheError> {
        self.store.index().read(|index| {
            let sql = "SELECT DISTINCT reference FROM remembered WHERE manifest = ?1
                       ORDER BY reference";
            let name = |row: &Row<'_>| row.get::<_, String>(0);
            let names: Vec<String> = index
                .prepare_cached(sql)?
                .query_map([manifest.as_bytes()], name)?
                .collect::<Result<_, _>>()?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        })
    }

    /// Applies `change` to `index.json` and the index, in this order: a crash between the two
    /// leaves an entry more for the day of a rebuild, or one less, but never a lost image.
    fn change(
        &self,
        change: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), CacheError> {
        if self.store.is_read_only() {
            return Err(self.store.refusal());
        }
        let _lock = GcLock::exclusive(&self.store.locks().join("images.lock"))?;
        // The change is tried, listed, and rolled back, so that there is one description of it.
        let images = self.store.index().write(Durability::Lazy, |index| {
            index.execute_batch("SAVEPOINT attempt")?;
            change(index)?;
            let images = list(index)?;
            index.execute_batch("ROLLBACK TO attempt; RELEASE attempt")?;
            Ok(images)
        })?;
        write_index_json(self.store, &images)?;
        self.store.index().write(Durability::Synced, |index| change(index))
    }
}

fn write_index_json(store: &Store, images: &[ImageRecord]) -> Result<(), CacheError> {
    let descriptors: Vec<_> = images
        .iter()
        .map(|image| {
            let name = image.reference.as_ref().map(ToString::to_string);
            let digest = image.manifest_digest;
            Descriptor::named(&image.media_type, digest, image.manifest_size, name.as_deref())
        })
        .collect();
    let path = store.root().join("index.json");
    let json =
        index_json(&descriptors).map_err(|error| CacheError::io("encode", &path, error.into()))?;
    file::replace(&store.temporary("json")?, &path, &json)
}

/// What a manifest, or an index, says about its image.
fn described(
    digest: &Digest,
    media_type: &str,
    manifest_size: u64,
    manifest: &Manifest,
    read: &dyn Fn(&Digest) -> Option<Vec<u8>>,
    arrived: &dyn Fn() -> i64,
) -> ImageRecord {
    let (size, created) = contents(manifest, read);
    ImageRecord {
        reference: None,
        manifest_digest: *digest,
        media_type: media_type.to_owned(),
        manifest_size,
        image_id: manifest.config.as_ref().map_or(*digest, |config| config.digest),
        created: created.unwrap_or_else(arrived),
        size,
    }
}

/// Bytes of an image's parts and when it was made; of an index, of all its images and of the
/// newest. What `read` does not know counts nothing.
fn contents(manifest: &Manifest, read: &dyn Fn(&Digest) -> Option<Vec<u8>>) -> (u64, Option<i64>) {
    let of_one = |manifest: &Manifest| {
        let parts = manifest.config.iter().chain(&manifest.layers);
        // Stated by strangers, so the sum is bounded.
        let size = parts.fold(0u64, |sum, part| sum.saturating_add(part.size));
        let config = manifest.config.as_ref().and_then(|config| read(&config.digest));
        (size, config.as_deref().and_then(image_json::created))
    };
    let (mut size, mut created) = of_one(manifest);
    for child in &manifest.manifests {
        let child = read(&child.digest).and_then(|json| serde_json::from_slice(&json).ok());
        if let Some((bytes, time)) = child.as_ref().map(of_one) {
            size = size.saturating_add(bytes);
            created = created.max(time);
        }
    }
    (size.min(i64::MAX as u64), created)
}

/// Reads a row of [`COLUMNS`] with the reference behind them.
fn decode(row: &Row<'_>) -> rusqlite::Result<ImageRecord> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(ImageRecord {
        manifest_digest: Digest::from_bytes(row.get(0)?),
        media_type: row.get(1)?,
        manifest_size: number(row.get(2)?),
        image_id: Digest::from_bytes(row.get(3)?),
        created: row.get(4)?,
        size: number(row.get(5)?),
        reference: row.get::<_, Option<String>>(6)?.and_then(|text| text.parse().ok()),
    })
}

fn list(index: &Connection) -> rusqlite::Result<Vec<ImageRecord>> {
    let sql = format!(
        "SELECT {COLUMNS}, reference FROM images LEFT JOIN tags USING (manifest)
         ORDER BY reference IS NULL, reference"
    );
    index.prepare_cached(&sql)?.query_map([], decode)?.collect()
}

fn insert_image(index: &Connection, image: &ImageRecord) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO
               images(manifest, media_type, manifest_size, image_id, created, size)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let size = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    index
        .prepare_cached(sql)?
        .execute((
            image.manifest_digest.as_bytes(),
            &image.media_type,
            size(image.manifest_size),
            image.image_id.as_bytes(),
            image.created,
            size(image.size),
        ))
        .map(drop)
}

fn insert_tag(
    index: &Connection,
    reference: &Reference,
    manifest: &Digest,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO tags(reference, manifest) VALUES (?1, ?2)";
    index.prepare_cached(sql)?.execute((reference.to_string(), manifest.as_bytes())).map(drop)
}

fn delete_image(index: &Connection, manifest: &Digest) -> rusqlite::Result<()> {
    index.execute("DELETE FROM tags WHERE manifest = ?1", [manifest.as_bytes()])?;
    index.execute("DELETE FROM images WHERE manifest = ?1", [manifest.as_bytes()]).map(drop)
}

/// Fills the tables of a new index from `index.json`. Whatever has no manifest is left out.
pub(crate) fn refill(root: &Path, index: &Connection) -> rusqlite::Result<()> {
    for descriptor in recovery::read_index_json(root) {
        let path = root.join("blobs/sha256").join(descriptor.digest.hex());
        let Some(manifest) = recovery::read_json(&path, Some(&descriptor.digest)) else { continue };
        let Ok(parsed) = serde_json::from_slice::<Manifest>(&manifest) else { continue };
        let read = |digest: &Digest| {
            recovery::read_json(&root.join("blobs/sha256").join(digest.hex()), Some(digest))
        };
        let arrived = || rustix::fs::stat(&path).map_or(0, |stat| stat.st_mtime * 1000);
        let (digest, media_type) = (&descriptor.digest, descriptor.media_type.as_str());
        let size = manifest.len() as u64;
        let image = described(digest, media_type, size, &parsed, &read, &arrived);
        insert_image(index, &image)?;
        if let Some(reference) = descriptor.reference() {
            insert_tag(index, &reference, &descriptor.digest)?;
        }
    }
    Ok(())
}
