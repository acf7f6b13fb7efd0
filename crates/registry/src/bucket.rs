//! Objects in an S3 bucket, for whoever wants to keep bytes there.
//!
//! The client is `object_store`'s; it signs requests and tries them again. It runs on the network
//! thread like everything here (`runtime.rs`), so callers block and can be cancelled. Credentials
//! that are not given are asked of the machine's metadata service, as AWS' own tools do. An object
//! can be replaced only if it still is what it was (`If-Match`), which is how writers that do not
//! know of each other do not lose each other's work.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, PutMode, PutOptions, RetryConfig, UpdateVersion,
};
use rbuild_types::{CancelToken, Ctx, Event};
use tokio::sync::Mutex;

use crate::text::printable;
use crate::{BlobSink, Inner, Registry, RegistryError};

/// Bytes that are in memory at once: one part of a larger object, of which S3 takes 10,000.
const PART: u64 = 16 << 20;
/// How long one request may take, all bytes of a part included.
const PART_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long whoever has failed already waits for an upload to be given up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which bucket, and how it is reached.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BucketOptions {
    /// Its name.
    pub bucket: String,
    /// Region of the bucket.
    pub region: String,
    /// URL of a server that is not Amazon's.
    pub endpoint_url: Option<String>,
    /// Whether the bucket is in the path of URLs, not in the host's name.
    pub use_path_style: bool,
    /// Key id and secret; else the machine's own are asked for.
    pub key: Option<(String, String)>,
    /// Belongs to the key, where that is for a session only.
    pub session_token: Option<String>,
    /// Tries of one request beyond the first; a few unless said otherwise.
    pub retries: Option<usize>,
}

impl std::fmt::Debug for BucketOptions {
    /// Without what is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bucket, region, endpoint_url, .. } = self;
        f.debug_struct("BucketOptions")
            .field("bucket", bucket)
            .field("region", region)
            .field("endpoint_url", endpoint_url)
            .finish_non_exhaustive()
    }
}

/// A bucket.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    name: String,
    inner: Arc<Inner>,
}

/// A small object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Names this very content.
    pub tag: Option<String>,
}

impl Registry {
    /// A handle on a bucket. Opens no connection.
    ///
    /// # Errors
    /// [`RegistryError::Bucket`] for options that cannot work.
    pub fn bucket(&self, options: &BucketOptions) -> Result<Bucket, RegistryError> {
        let name = options.bucket.clone();
        let mut builder = AmazonS3Builder::new()
            // Of a whole part, on a slow line; the library's own limit is half a minute.
            .with_client_options(ClientOptions::new().with_timeout(PART_TIMEOUT))
            .with_bucket_name(&name)
            .with_region(&options.region)
            .with_virtual_hosted_style_request(!options.use_path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(url) = &options.endpoint_url {
            let url = url.trim_end_matches('/');
            let (scheme, host) = url.split_once("://").unwrap_or(("https", url));
            let url = match options.use_path_style {
                true => format!("{scheme}://{host}"),
                false => format!("{scheme}://{name}.{host}"),
            };
            // Who writes http has said so.
            builder = builder.with_allow_http(scheme == "http").with_endpoint(url);
        }
        if let Some((id, secret)) = &options.key {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        if let Some(max_retries) = options.retries {
            builder = builder.with_retry(RetryConfig { max_retries, ..RetryConfig::default() });
        }
        let built = builder.build().map_err(|error| failure(&name, "its options", &error))?;
        Ok(Bucket { store: Arc::new(built), name, inner: self.inner.clone() })
    }
}

impl Bucket {
    /// A small object of at most `limit` bytes, if it is there.
    ///
    /// # Errors
    /// [`RegistryError::Bucket`], and when the call is cancelled.
    pub fn get(
        &self,
        key: &str,
        limit: u64,
        cancel: &CancelToken,
    ) -> Result<Option<Object>, RegistryError> {
        let (path, store) = (self.path(key)?, self.store.clone());
        let (name, key) = (self.name.clone(), key.to_owned());
        self.inner.runtime.run(cancel, async move {
            let failed = |error| failure(&name, &key, &error);
            let found = match store.get(&path).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(failed)?,
            };
            if found.meta.size > limit {
                let reason = format!("it has {} bytes", found.meta.size);
                return Err(RegistryError::Bucket { bucket: name, object: key, reason });
            }
            let tag = found.meta.e_tag.clone();
            let bytes = found.bytes().await.map_err(failed)?.to_vec();
            Ok(Some(Object { bytes, tag }))
        })
    }

    /// Size of an object, if it is there.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub fn size(&self, key: &str, cancel: &CancelToken) -> Result<Option<u64>, RegistryError> {
        let (path, store) = (self.path(key)?, self.store.clone());
        let (name, key) = (self.name.clone(), key.to_owned());
        self.inner.runtime.run(cancel, async move {
            match store.head(&path).await {
                Ok(found) => Ok(Some(found.size)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failure(&name, &key, &error)),
            }
        })
    }

    /// Writes an object only if it still is what [`Bucket::get`] found, or still is not there.
    /// Says whether it did.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub fn replace(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<String>,
        cancel: &CancelToken,
    ) -> Result<bool, RegistryError> {
        let (path, store) = (self.path(key)?, self.store.clone());
        let (name, key) = (self.name.clone(), key.to_owned());
        let mode = match expected {
            None => PutMode::Create,
            e_tag => PutMode::Update(UpdateVersion { e_tag, version: None }),
        };
        self.inner.runtime.run(cancel, async move {
            match store.put_opts(&path, bytes.into(), PutOptions::from(mode)).await {
                Ok(_) => Ok(true),
                Err(
                    Error::AlreadyExists { .. }
                    | Error::Precondition { .. }
                    | Error::NotFound { .. },
                ) => Ok(false),
                Err(error) => Err(failure(&name, &key, &error)),
            }
        })
    }

    /// Writes an object of `size` bytes, in parts if it is large.
    ///
    /// # Errors
    /// As [`Bucket::get`], and [`RegistryError::Source`] when `source` fails.
    pub fn upload(
        &self,
        key: &str,
        size: u64,
        source: &mut dyn Read,
        ctx: Ctx<'_>,
    ) -> Result<(), RegistryError> {
        let (path, store) = (self.path(key)?, self.store.clone());
        let (name, object) = (self.name.clone(), key.to_owned());
        let failed = move |error| failure(&name, &object, &error);
        let first = self.part(key, source)?;
        if size <= PART {
            return self.inner.runtime.run(ctx.cancel, async move {
                store.put(&path, first.into()).await.map(drop).map_err(failed)
            });
        }
        let fail = failed.clone();
        let upload = self
            .inner
            .runtime
            .run(ctx.cancel, async move { store.put_multipart(&path).await.map_err(fail) })?;
        let upload = Arc::new(Mutex::new(upload));
        let send = || {
            let (mut part, mut sent) = (first, 0);
            while !part.is_empty() {
                sent += part.len() as u64;
                let (fail, upload) = (failed.clone(), upload.clone());
                self.inner.runtime.run(ctx.cancel, async move {
                    let put = upload.lock().await.put_part(part.into());
                    put.await.map_err(fail)
                })?;
                self.report("push ", key, sent, size, ctx);
                part = self.part(key, source)?;
            }
            let upload = upload.clone();
            self.inner.runtime.run(ctx.cancel, async move {
                upload.lock().await.complete().await.map(drop).map_err(failed)
            })
        };
        let sent = send();
        if sent.is_err() {
            // Parts that nobody completes cost money; the first error is the one to tell.
            let _ = self.inner.runtime.run(&CancelToken::default(), async move {
                let abort = async { upload.lock().await.abort().await };
                let _ = tokio::time::timeout(ABORT_TIMEOUT, abort).await;
                Ok(())
            });
        }
        sent
    }

    /// Reads an object of `size` bytes. Whoever keeps it checks it.
    ///
    /// # Errors
    /// As [`Bucket::get`], and [`RegistryError::Sink`] when `sink` refuses.
    pub fn download(
        &self,
        key: &str,
        size: u64,
        sink: &mut dyn BlobSink,
        ctx: Ctx<'_>,
    ) -> Result<(), RegistryError> {
        let path = self.path(key)?;
        let mut at = 0;
        while at < size {
            let end = size.min(at + PART);
            let (path, store) = (path.clone(), self.store.clone());
            let (name, object) = (self.name.clone(), key.to_owned());
            let bytes: Bytes = self.inner.runtime.run(ctx.cancel, async move {
                let failed = |error| failure(&name, &object, &error);
                store.get_range(&path, at..end).await.map_err(failed)
            })?;
            if bytes.is_empty() {
                break;
            }
            sink.write(&bytes).map_err(|source| {
                let subject = format!("object {} of bucket {}", key, self.name);
                RegistryError::Sink { subject, source }
            })?;
            at += bytes.len() as u64;
            self.report("", key, at, size, ctx);
        }
        Ok(())
    }

    fn path(&self, key: &str) -> Result<Path, RegistryError> {
        let wrong = |error: object_store::path::Error| RegistryError::Bucket {
            bucket: self.name.clone(),
            object: printable(key),
            reason: printable(&error.to_string()),
        };
        Path::parse(key).map_err(wrong)
    }

    fn part(&self, key: &str, source: &mut dyn Read) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        source.take(PART).read_to_end(&mut bytes).map_err(|source| RegistryError::Source {
            subject: format!("object {} of bucket {}", key, self.name),
            source,
        })?;
        Ok(bytes)
    }

    fn report(&self, action: &str, key: &str, bytes: u64, total: u64, ctx: Ctx<'_>) {
        let object = key.rsplit('/').next().unwrap_or(key);
        // As much of a digest as people are shown.
        let object: String = object.chars().take(19).collect();
        let name = format!("{action}{} {object}", self.name);
        let done = bytes >= total;
        ctx.report(Event::Transferred { name, bytes, total: Some(total), done });
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.name).finish()
    }
}

fn failure(bucket: &str, object: &str, error: &dyn std::error::Error) -> RegistryError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = next.source();
    }
    // Servers answer with whole documents.
    let reason = printable(&reason.chars().take(600).collect::<String>());
    RegistryError::Bucket { bucket: printable(bucket), object: printable(object), reason }
}
