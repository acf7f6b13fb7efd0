//! A cache in that of GitHub Actions, by the second version of its protocol.
//!
//! That cache has entries which never change, by key, and gives the newest whose key begins with
//! some text. So each index is an entry of its own, and the newest counts. What cannot be replaced
//! cannot be compared either: a writer looks right before it writes, and again a little later. Entries
//! that nobody reads for a week are GitHub's to remove.

use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_cache::Store;
use rbuild_image::manifest::Descriptor;
use rbuild_registry::{BlobSink, Fetch, Registry, RegistryError};
use rbuild_types::{Ctx, Digest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CacheStore, CacheStoreError, Found};
use crate::remote_cache::GhaLocation;
use crate::remote_cache::index::MAX_BYTES;

/// The service below the URL that a job is given.
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// Bytes sent at once; larger entries are put together of blocks.
const BLOCK: u64 = 16 << 20;
/// Bytes of an answer of the service.
const MAX_ANSWER: usize = 1 << 20;
/// After which time a writer looks whether somebody else has written.
const SETTLES_AFTER: Duration = Duration::from_secs(1);
/// How long another writer's layer is waited for.
const OTHERS_WRITE: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct GhaCache {
    registry: Registry,
    location: GhaLocation,
    /// Entries of another form have another.
    form: String,
}

/// Where an entry is.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    signed_download_url: String,
    #[serde(default)]
    matched_key: String,
}

/// Where a new entry goes.
#[derive(Deserialize)]
struct NewEntry {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    signed_upload_url: String,
}

impl GhaCache {
    pub(super) fn new(registry: Registry, location: GhaLocation) -> Self {
        Self { registry, location, form: Digest::of("rbuild cache 1").hex() }
    }

    /// What keys of indexes begin with.
    fn prefix(&self) -> String {
        // One scope's name may begin with another's.
        format!("rbuild-index-1-{}-", Digest::of(&self.location.scope).short())
    }

    /// Asks the service; nothing where it has none or will not have any.
    fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        body: &Value,
        ctx: Ctx<'_>,
    ) -> Result<Option<T>, CacheStoreError> {
        let url = self.location.url.trim_end_matches('/');
        let fetch = Fetch {
            url: format!("{url}/{SERVICE}/{method}"),
            subject: format!("{method} of GitHub's cache"),
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            authorization: Some(format!("Bearer {}", self.location.token)),
            body: Some(body.to_string().into_bytes()),
            ..Fetch::default()
        };
        let mut answer = Limited { bytes: Vec::new(), limit: MAX_ANSWER };
        match self.registry.fetch(&fetch, &mut answer, ctx) {
            Ok(_) => {}
            // It is not there, or somebody else has just made it.
            Err(RegistryError::Status { answer, .. }) if matches!(answer.status, 404 | 409) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        let wrong = |error: serde_json::Error| damaged(format!("{method} answers: {error}"));
        serde_json::from_slice(&answer.bytes).map(Some).map_err(wrong)
    }

    /// The newest entry whose key is this, or begins with it.
    fn entry(&self, key: &str, ctx: Ctx<'_>) -> Result<Option<Entry>, CacheStoreError> {
        let body = json!({ "key": key, "restore_keys": [key], "version": self.form });
        let found: Option<Entry> = self.call("GetCacheEntryDownloadURL", &body, ctx)?;
        Ok(found.filter(|entry| entry.ok && entry.matched_key.starts_with(key)))
    }

    fn layer(blob: &Descriptor) -> String {
        format!("rbuild-layer-1-{}", blob.digest.hex())
    }

    /// Makes an entry, unless there is one, or somebody has begun one. Says whether it did.
    fn put(
        &self,
        key: &str,
        size: u64,
        source: &mut dyn std::io::Read,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError> {
        let body = json!({ "key": key, "version": self.form });
        let new: Option<NewEntry> = self.call("CreateCacheEntry", &body, ctx)?;
        let Some(new) = new.filter(|new| new.ok) else { return Ok(false) };
        self.upload(&new.signed_upload_url, key, size, source, ctx)?;
        let body = json!({ "key": key, "version": self.form, "size_bytes": size.to_string() });
        let done: Option<NewEntry> = self.call("FinalizeCacheEntryUpload", &body, ctx)?;
        match done.is_some_and(|done| done.ok) {
            true => Ok(true),
            false => Err(damaged(format!("GitHub's cache did not take {key}"))),
        }
    }

    /// Sends bytes to Azure's storage, as one blob or as blocks of one.
    fn upload(
        &self,
        url: &str,
        key: &str,
        size: u64,
        source: &mut dyn std::io::Read,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let put = |url: String, header: Option<(&str, &str)>, body: Vec<u8>| {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            let fetch = Fetch {
                url,
                subject: format!("{key} in GitHub's cache"),
                headers: header.map(owned).into_iter().collect(),
                body: Some(body),
                put: true,
                ..Fetch::default()
            };
            let mut answer = Limited { bytes: Vec::new(), limit: MAX_ANSWER };
            self.registry.fetch(&fetch, &mut answer, ctx)
        };
        let failed = |source| CacheStoreError::Io { what: format!("read {key}"), source };
        let mut next = || {
            let mut bytes = Vec::new();
            source.take(BLOCK).read_to_end(&mut bytes).map_err(failed).map(|_| bytes)
        };
        let first = next()?;
        if size <= BLOCK {
            put(url.to_owned(), Some(("x-ms-blob-type", "BlockBlob")), first)?;
            return Ok(());
        }
        let (mut block, mut list) = (first, String::new());
        let mut number = 0;
        while !block.is_empty() {
            // Of equal length, as the storage wants them.
            let id = STANDARD.encode(format!("{number:08}"));
            number += 1;
            list.push_str(&format!("<Latest>{id}</Latest>"));
            put(format!("{url}&comp=block&blockid={}", id.replace('=', "%3D")), None, block)?;
            block = next()?;
        }
        let list =
            format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        put(format!("{url}&comp=blocklist"), None, list.into_bytes())?;
        Ok(())
    }

    fn download(
        &self,
        entry: &Entry,
        subject: String,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let url = entry.signed_download_url.clone();
        let fetch = Fetch { url, subject, report: true, ..Fetch::default() };
        self.registry.fetch(&fetch, sink, ctx)?;
        Ok(())
    }
}

impl CacheStore for GhaCache {
    fn name(&self) -> String {
        format!("the cache of scope {} in GitHub's", self.location.scope)
    }

    fn place(&self) -> String {
        format!("gha {} {}", self.location.url, self.location.scope)
    }

    fn read_index(&self, ctx: Ctx<'_>) -> Result<Found, CacheStoreError> {
        let Some(entry) = self.entry(&self.prefix(), ctx)? else { return Ok(Found::Nothing) };
        let mut sink = Limited { bytes: Vec::new(), limit: MAX_BYTES as usize };
        self.download(&entry, "the index in GitHub's cache".to_owned(), &mut sink, ctx)?;
        Ok(Found::Index { bytes: sink.bytes, version: Digest::of(&entry.matched_key) })
    }

    fn write_index(
        &self,
        index: &[u8],
        _: &[Descriptor],
        expected: Option<Digest>,
        ctx: Ctx<'_>,
    ) -> Result<bool, CacheStoreError> {
        let now = self.entry(&self.prefix(), ctx)?;
        if now.map(|entry| Digest::of(&entry.matched_key)) != expected {
            return Ok(false);
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        // Two that write at the same time write other things.
        let key = format!("{}{time}-{}", self.prefix(), Digest::of(index).short());
        self.put(&key, index.len() as u64, &mut { index }, ctx)?;
        Ok(true)
    }

    fn settles_after(&self) -> Option<Duration> {
        Some(SETTLES_AFTER)
    }

    fn has_blob(&self, blob: &Descriptor, ctx: Ctx<'_>) -> Result<bool, CacheStoreError> {
        Ok(self.entry(&Self::layer(blob), ctx)?.is_some())
    }

    fn put_blob(
        &self,
        blob: &Descriptor,
        from: &Store,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let mut file = from.blobs().open(&blob.digest)?;
        let key = Self::layer(blob);
        if self.put(&key, blob.size, &mut file, ctx)? {
            return Ok(());
        }
        // Somebody else has it, or is about to: an index may name it only when it is there.
        let until = Instant::now() + OTHERS_WRITE;
        while self.entry(&key, ctx)?.is_none() {
            ctx.cancel.check()?;
            if Instant::now() >= until {
                let short = blob.digest.short();
                return Err(damaged(format!("layer {short} was begun by somebody and not ended")));
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    fn fetch_blob(
        &self,
        blob: &Descriptor,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), CacheStoreError> {
        let short = blob.digest.short();
        let missing = || damaged(format!("layer {short} is not there"));
        let entry = self.entry(&Self::layer(blob), ctx)?.ok_or_else(missing)?;
        self.download(&entry, format!("layer {short} in GitHub's cache"), sink, ctx)
    }
}

fn damaged(problem: String) -> CacheStoreError {
    CacheStoreError::Damaged { problem }
}

/// Bytes in memory, and no more than there may be.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl BlobSink for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(std::io::Error::other("the answer is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.bytes.clear();
        Ok(())
    }
}
