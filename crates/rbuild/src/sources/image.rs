//! Base images: found in the store first, asked of the registry only when they are not there.
//!
//! Looking an image up needs its manifest and config, two small documents. Layers are fetched
//! when a step, an export or a container needs their files, several at a time, and unpacked in
//! order, each checked against the digest that the config names.

use std::collections::HashMap;
use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::{BlobWriter, CacheError, DiskUsage, SnapshotId, SnapshotMeta, Store};
use rbuild_image::ImageError;
use rbuild_image::compress::reader;
use rbuild_image::config::parse_config;
use rbuild_image::index::pick;
use rbuild_image::layer::{UnpackOptions, unpack_layer};
use rbuild_image::manifest::{Descriptor, Document, Manifest, chain_ids, parse_manifest};
use rbuild_image::media_type::layer_compression;
use rbuild_plan::{ImageConfigs, ResolvedImage};
use rbuild_registry::{BlobSink, RegistryError};
use rbuild_rooted::Root;
use rbuild_solver::{Images, StepError};
use rbuild_types::{CancelToken, Cancelled, Ctx, Digest, Hasher, ImageConfig, Platform, Reference};

use crate::{BuildError, Engine, Pull};

/// Largest manifest or config that is read (R4 of the threat register).
const MAX_DOCUMENT: usize = 4 << 20;
/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 3;
/// Layers of one image fetched at once; the registry client has a limit of its own per host.
const PARALLEL_LAYERS: usize = 4;
/// How often a wait for layers looks at the caller's cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// An image that was looked up.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What was asked for, pinned to the manifest.
    pub(crate) reference: Reference,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
}

/// Looks images up for one build or one container.
pub(crate) struct ImageSource<'a> {
    engine: &'a Engine,
    pull: Pull,
    ctx: Ctx<'a>,
    /// By manifest digest.
    resolved: Mutex<HashMap<Digest, Arc<Resolved>>>,
}

impl<'a> ImageSource<'a> {
    pub(crate) fn new(engine: &'a Engine, pull: Pull, ctx: Ctx<'a>) -> Self {
        Self { engine, pull, ctx, resolved: Mutex::default() }
    }

    fn store(&self) -> &'a Store {
        &self.engine.store
    }

    /// Finds an image. `exact` says whether another platform's image is refused.
    pub(crate) fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        let digest = match self.local(reference, platform)? {
            Some(digest) => digest,
            None => self.remote(reference, platform)?,
        };
        let known = self.known(digest);
        match known {
            Some(resolved) => Ok(resolved),
            None => self.load(reference, digest),
        }
    }

    fn known(&self, digest: Digest) -> Option<Arc<Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }

    /// The manifest digest, if the store knows it and has its documents.
    fn local(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Digest>, BuildError> {
        if self.pull == Pull::Always {
            return Ok(None);
        }
        let tags = self.store().tags();
        let digest = if let Some(digest) = reference.digest() {
            match tags.recall(reference, platform)? {
                Some((manifest, _)) => Some(manifest),
                None => Some(digest),
            }
        } else if let Some(image) = tags.get(reference)? {
            Some(image.manifest_digest)
        } else {
            tags.recall(reference, platform)?.map(|(digest, _)| digest)
        };
        let Some(digest) = digest else { return Ok(None) };
        let Some(bytes) = self.document(digest)? else { return Ok(None) };
        let Document::Manifest(manifest) = parse_manifest(&bytes, None)? else { return Ok(None) };
        Ok(self.store().blobs().contains(&manifest.config.digest)?.then_some(digest))
    }

    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, BuildError> {
        let blobs = self.store().blobs();
        if !blobs.contains(&digest)? {
            return Ok(None);
        }
        Ok(Some(blobs.read_small(&digest, MAX_DOCUMENT)?))
    }

    /// Reads manifest and config from the store.
    fn load(&self, reference: &Reference, digest: Digest) -> Result<Arc<Resolved>, BuildError> {
        let missing = || ImageError::MissingBlob { digest };
        let bytes = self.document(digest)?.ok_or_else(missing)?;
        let Document::Manifest(manifest) = parse_manifest(&bytes, None)? else {
            return Err(bad_document("manifest", "is an index").into());
        };
        let config = self.document(manifest.config.digest)?.ok_or_else(missing)?;
        let config = parse_config(&config)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let problem = "names another number of layers than the config";
            return Err(bad_document("manifest", problem).into());
        }
        let platform = config.platform();
        let reference = reference.pinned(digest);
        let resolved = Arc::new(Resolved { reference, manifest, config, platform });
        let mut all = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest, resolved.clone());
        Ok(resolved)
    }

    /// Asks the registry and keeps what it says.
    fn remote(&self, reference: &Reference, platform: &Platform) -> Result<Digest, BuildError> {
        if self.pull == Pull::Never {
            return Err(BuildError::NoSuchImage {
                name: format!("{} (and pulling was forbidden)", reference.familiar()),
            });
        }
        let registry = self.engine.registry()?;
        let mut at = reference.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            let answer = registry.manifest(&at, self.ctx)?;
            match parse_manifest(&answer.bytes, Some(&answer.media_type))? {
                Document::Index(index) => {
                    let picked = pick(&index, platform)?;
                    at = reference.with_digest(picked.digest);
                }
                Document::Manifest(manifest) => {
                    let config = registry.document(
                        reference,
                        manifest.config.digest,
                        Some(manifest.config.size),
                        self.ctx,
                    )?;
                    let blobs = self.store().blobs();
                    blobs.put(&config)?;
                    blobs.put(&answer.bytes)?;
                    self.store().tags().remember(reference, platform, &answer.digest)?;
                    return Ok(answer.digest);
                }
            }
        }
        let problem = format!("more than {MAX_INDEX_DEPTH} indexes inside one another");
        Err(bad_document("index", problem).into())
    }

    /// Makes sure that the bytes of a layer are in the store, as the registry has them.
    pub(crate) fn fetch_layer(
        &self,
        image: &Resolved,
        layer: &Descriptor,
        ctx: Ctx<'_>,
    ) -> Result<(), BuildError> {
        if self.store().blobs().contains(&layer.digest)? {
            return Ok(());
        }
        // Two builds that need the same layer fetch it once.
        let _lock = self.store().step_lock(&layer.digest, ctx.cancel)?;
        if self.store().blobs().contains(&layer.digest)? {
            return Ok(());
        }
        if self.pull == Pull::Never {
            return Err(BuildError::NoSuchImage {
                name: format!("layer {} (and pulling was forbidden)", layer.digest),
            });
        }
        let mut sink = StoreSink { store: self.store(), writer: None, limit: layer.size };
        let registry = self.engine.registry()?;
        registry.blob(&image.reference, layer.digest, Some(layer.size), &mut sink, ctx)?;
        match sink.writer {
            Some(writer) => writer.commit(Some(&layer.digest), Some(layer.size))?,
            None => self.store().blobs().writer()?.commit(Some(&layer.digest), Some(0))?,
        };
        Ok(())
    }

    /// The snapshots of all layers, bottom first.
    pub(crate) fn unpack_image(
        &self,
        image: &Resolved,
        ctx: Ctx<'_>,
    ) -> Result<Vec<SnapshotId>, BuildError> {
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        let mut present = Vec::new();
        for chain_id in &chain {
            match self.store().snapshots().by_chain_id(chain_id)? {
                Some(snapshot) => present.push(snapshot),
                None => break,
            }
        }
        let missing: Vec<_> = image.manifest.layers.iter().skip(present.len()).collect();
        if missing.is_empty() {
            return Ok(present);
        }
        // The fetching threads stop with the caller's token, and when unpacking fails.
        let stop = CancelToken::default();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            missing.iter().map(|_| channel::<Result<(), BuildError>>()).unzip();
        let waiting = Mutex::new(missing.iter().copied().zip(senders));
        std::thread::scope(|scope| {
            let fetch = || {
                let inner = Ctx::new(ctx.progress, &stop);
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((layer, sender)) = next else { break };
                    let _ = sender.send(self.fetch_layer(image, layer, inner));
                }
            };
            for _ in 0..PARALLEL_LAYERS.min(missing.len()) {
                scope.spawn(fetch);
            }
            for (layer, receiver) in missing.iter().zip(receivers) {
                let unpacked = wait(&receiver, ctx.cancel, &stop)
                    .and_then(|()| self.unpack_one(image, layer, &chain, &present, ctx));
                match unpacked {
                    Ok(snapshot) => present.push(snapshot),
                    Err(error) => {
                        stop.cancel();
                        return Err(error);
                    }
                }
            }
            Ok(present)
        })
    }

    fn unpack_one(
        &self,
        image: &Resolved,
        layer: &Descriptor,
        chain: &[Digest],
        below: &[SnapshotId],
        ctx: Ctx<'_>,
    ) -> Result<SnapshotId, BuildError> {
        let index = below.len();
        let ids = image.config.rootfs.diff_ids.get(index).zip(chain.get(index));
        let (diff_id, chain_id) =
            ids.map(|(diff_id, chain_id)| (*diff_id, *chain_id)).ok_or_else(|| {
                bad_document("manifest", "names another number of layers than the config")
            })?;
        let _lock = self.store().step_lock(&chain_id, ctx.cancel)?;
        let snapshots = self.store().snapshots();
        if let Some(there) = snapshots.by_chain_id(&chain_id)? {
            return Ok(there);
        }
        let compression = layer_compression(&layer.media_type).ok_or_else(|| {
            let problem = format!("layer of unknown media type {:?}", layer.media_type);
            bad_document("manifest", problem)
        })?;
        let new = snapshots.allocate("layer")?;
        let tree = new.path().join("fs");
        // What the image does not say of its root directory is the usual; the umask is not asked.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::create_dir(&tree)
            .and_then(|()| fs_err::set_permissions(&tree, mode))
            .map_err(|source| BuildError::Io { what: "make a snapshot".to_owned(), source })?;
        let merged = match below {
            [] => None,
            below => {
                let layers: Vec<_> = below.iter().map(|id| snapshots.path(id).join("fs")).collect();
                Some(Root::from_fd(rbuild_snapshot::view(&layers)?))
            }
        };
        let subject = format!("layer {}", layer.digest.short());
        let blob = self.store().blobs().open(&layer.digest)?;
        let mut plain = Hashing {
            source: reader(compression, blob, &subject)?,
            hasher: Hasher::new(),
            size: 0,
        };
        let into = Root::open(&tree)?;
        let options = UnpackOptions::default();
        unpack_layer(&mut plain, &into, merged.as_ref(), &options, ctx.cancel)?;
        let (found, tar_size) = (plain.hasher.finish(), plain.size);
        if found != diff_id {
            let problem = format!("{subject} is {found}, the config names {diff_id}");
            return Err(bad_document("layer", problem).into());
        }
        drop(into);
        let mut usage = DiskUsage::new();
        usage.add(&tree)?;
        let meta = SnapshotMeta {
            parent: below.last().cloned(),
            chain_id: Some(chain_id),
            diff_id: Some(diff_id),
            tar_size: Some(tar_size),
            bytes: usage.bytes(),
        };
        Ok(snapshots.publish(new, meta)?)
    }
}

fn bad_document(document: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Document { document: document.to_owned(), problem: problem.into() }
}

/// Waits for one fetched layer and passes the caller's cancellation on meanwhile.
fn wait(
    receiver: &Receiver<Result<(), BuildError>>,
    caller: &CancelToken,
    stop: &CancelToken,
) -> Result<(), BuildError> {
    loop {
        match receiver.recv_timeout(CANCEL_TICK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(Cancelled.into()),
            Err(RecvTimeoutError::Timeout) if caller.is_cancelled() => stop.cancel(),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A blob on its way into the store.
struct StoreSink<'a> {
    store: &'a Store,
    writer: Option<BlobWriter>,
    limit: u64,
}

impl BlobSink for StoreSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.store.blobs().writer().map_err(std::io::Error::other)?),
        };
        if writer.size().saturating_add(bytes.len() as u64) > self.limit {
            return Err(std::io::Error::other("more bytes than the manifest names"));
        }
        std::io::Write::write_all(writer, bytes)
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.writer = None;
        Ok(())
    }
}

/// Hashes and counts what is read through it.
struct Hashing<R> {
    source: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }
}

impl ImageConfigs for ImageSource<'_> {
    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, rbuild_plan::ImageError> {
        match self.resolve(reference, platform) {
            Ok(resolved) => Ok(ResolvedImage {
                reference: resolved.reference.clone(),
                platform: resolved.platform.clone(),
                config: resolved.config.clone(),
            }),
            Err(BuildError::Image(ImageError::NoPlatform { wanted, found })) => {
                Err(rbuild_plan::ImageError::Platform { platform: wanted, available: found })
            }
            Err(BuildError::Registry(RegistryError::NotFound { .. })) => {
                Err(rbuild_plan::ImageError::NotFound { reference: reference.clone() })
            }
            Err(error) => Err(rbuild_plan::ImageError::Other { message: chain(&error) }),
        }
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl ImageSource<'_> {
    /// An image that the plan resolved before.
    pub(crate) fn pinned(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        if let Some(resolved) = reference.digest().and_then(|digest| self.known(digest)) {
            return Ok(resolved);
        }
        self.resolve(reference, platform)
    }
}

fn boxed(error: BuildError) -> StepError {
    match error {
        BuildError::Cancelled(cancelled) => StepError::Cancelled(cancelled),
        BuildError::Store(CacheError::Cancelled(cancelled)) => StepError::Cancelled(cancelled),
        other => StepError::Image(Box::new(other)),
    }
}

impl Images for ImageSource<'_> {
    fn diff_ids(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Vec<Digest>, StepError> {
        let image = self.pinned(reference, platform).map_err(boxed)?;
        Ok(image.config.rootfs.diff_ids.clone())
    }

    fn unpack(
        &self,
        reference: &Reference,
        platform: &Platform,
        ctx: Ctx<'_>,
    ) -> Result<Vec<SnapshotId>, StepError> {
        let image = self.pinned(reference, platform).map_err(boxed)?;
        self.unpack_image(&image, ctx).map_err(boxed)
    }
}
