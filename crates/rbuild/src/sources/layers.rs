//! Layers of base images: fetched when a step, an export or a container needs their files, several
//! at a time, and unpacked in order, each checked against the digest that the config names.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_cache::{BlobWriter, CacheError, SnapshotId, SnapshotMeta, Store};
use rbuild_image::ImageError;
use rbuild_image::compress::{Compression, ahead, detect, reader};
use rbuild_image::layer::{UnpackOptions, unpack_layer};
use rbuild_image::manifest::{Descriptor, chain_id, chain_ids};
use rbuild_image::media_type::layer_compression;
use rbuild_registry::{BlobSink, Registry, RegistryError};
use rbuild_rooted::Root;
use rbuild_solver::{Images, StepError};
use rbuild_types::{CancelToken, Cancelled, Ctx, Digest, Hasher, Platform, Reference};

use super::image::{ImageSource, Resolved, bad_document};
use crate::{BuildError, Pull};

/// Fetches a blob from where a repository has it, unless it is in the store. Those who need it at the
/// same time fetch it once.
pub(crate) fn fetch_blob(
    store: &Store,
    registry: &Registry,
    repository: &Reference,
    blob: &Descriptor,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    if store.blobs().contains(&blob.digest)? {
        return Ok(());
    }
    let _lock = store.step_lock(&blob.digest, ctx.cancel)?;
    if store.blobs().contains(&blob.digest)? {
        return Ok(());
    }
    receive(store, registry, repository, blob, ctx)
}

/// The same of a blob that is not there, and whose lock the caller holds.
fn receive(
    store: &Store,
    registry: &Registry,
    repository: &Reference,
    blob: &Descriptor,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    let mut sink = StoreSink::new(store, blob.size, ctx.cancel);
    registry.blob(repository, blob.digest, Some(blob.size), &mut sink, ctx)?;
    Ok(sink.commit(blob)?)
}

/// Copies a blob into the store, which must be what is said of it.
pub(crate) fn copy_blob(
    store: &Store,
    source: &mut dyn Read,
    digest: Option<Digest>,
    size: Option<u64>,
    cancel: &CancelToken,
) -> Result<(Digest, u64), BuildError> {
    let subject =
        || digest.map_or("a layer".to_owned(), |digest| format!("blob {}", digest.short()));
    let mut writer = store.blobs().writer(cancel)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        cancel.check()?;
        let unread = |source| ImageError::Io { action: "read", subject: subject(), source };
        let count = source.read(&mut buffer).map_err(unread)?;
        if count == 0 || size.is_some_and(|size| writer.size() > size) {
            break;
        }
        let failed = |source| BuildError::Io { what: format!("copy {}", subject()), source };
        writer.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
    }
    Ok(writer.commit(digest.as_ref(), size)?)
}

/// Layers of one image fetched at once; the registry client has a limit of its own per host.
const PARALLEL_LAYERS: usize = 4;
/// How often a wait for layers looks at the caller's cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);

impl ImageSource<'_> {
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
        if let Some(layout) = self.layouts.get(&image.reference.repository()) {
            return self.layer_of_layout(layout, layer, ctx);
        }
        if self.pull == Pull::Never {
            return Err(BuildError::NoSuchImage {
                name: format!("layer {} (and pulling was forbidden)", layer.digest),
            });
        }
        let registry = self.engine.registry(|| {
            let (layer, image) = (layer.digest.short(), image.reference.familiar());
            format!("layer {layer} of {image} is not in the store")
        })?;
        // An image that was built here has layers of its base, which may lie elsewhere.
        let own = image.reference.repository();
        let mut places = self.store().sources(&layer.digest)?;
        places.retain(|place| place.repository() != own);
        places.insert(0, image.reference.clone());
        let mut first = None;
        for place in places {
            match receive(self.store(), registry, &place, layer, ctx) {
                Err(BuildError::Registry(error))
                    if !matches!(error, RegistryError::Cancelled(_)) =>
                {
                    first.get_or_insert(error);
                }
                done => return done,
            }
        }
        Err(first
            .map_or_else(|| ImageError::MissingBlob { digest: layer.digest }.into(), Into::into))
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
        let compression = layer_compression(&layer.media_type).ok_or_else(|| {
            let problem = format!("layer of unknown media type {:?}", layer.media_type);
            bad_document("manifest", problem)
        })?;
        let _lock = self.store().step_lock(&chain_id, ctx.cancel)?;
        let digest = layer.digest;
        let blob = LayerBlob { digest, compression, diff_id, tar_size: None, made: None };
        let upon = index.checked_sub(1).and_then(|below| chain.get(below)).copied();
        unpack_blob(self.store(), &blob, below, upon, ctx)
    }
}

/// A layer whose bytes are in the store.
pub(crate) struct LayerBlob {
    /// Of the bytes as they are there.
    pub(crate) digest: Digest,
    pub(crate) compression: Compression,
    /// Of the uncompressed tar; whatever else comes out is refused.
    pub(crate) diff_id: Digest,
    /// Bytes of the tar, if somebody has said so; no more are unpacked.
    pub(crate) tar_size: Option<u64>,
    /// Milliseconds since 1970 when it was made, if that was not here and now.
    pub(crate) made: Option<i64>,
}

impl LayerBlob {
    fn subject(&self) -> String {
        format!("layer {}", self.digest.short())
    }

    /// Reads the tar, decoded on another thread; gives its digest and size besides. One byte more
    /// than there may be ends it.
    fn read<T>(
        &self,
        store: &Store,
        consume: impl FnOnce(&mut dyn Read) -> Result<T, BuildError>,
    ) -> Result<(T, Digest, u64), BuildError> {
        let (blob, compression) = open_layer(store, &self.digest, self.compression)?;
        let limit = self.tar_size.map_or(u64::MAX, |size| size.saturating_add(1));
        let subject = self.subject();
        ahead(
            || reader(compression, blob, &subject),
            |decoded| {
                let source = decoded.take(limit);
                let mut plain = Hashing { source, hasher: Hasher::new(), size: 0 };
                let consumed = consume(&mut plain)?;
                Ok((consumed, plain.hasher.finish(), plain.size))
            },
        )
    }
}

/// Opens a layer's bytes, and says how they are really compressed: podman writes layers that are not
/// compressed under a media type that says so, and every reader in the field looks.
pub(crate) fn open_layer(
    store: &Store,
    digest: &Digest,
    stated: Compression,
) -> Result<(File, Compression), BuildError> {
    let blob = store.blobs().open(digest)?;
    let mut head = [0; 512];
    let count = blob.read_at(&mut head, 0).map_err(|source| BuildError::Io {
        what: format!("read layer {}", digest.short()),
        source,
    })?;
    let found = detect(head.get(..count).unwrap_or_default());
    Ok((blob, found.unwrap_or(stated)))
}

/// Diff id and size of the tar that a layer really holds.
pub(crate) fn diff_id_of(
    store: &Store,
    layer: &LayerBlob,
    cancel: &CancelToken,
) -> Result<(Digest, u64), BuildError> {
    let ((), diff_id, size) = layer.read(store, |plain| {
        let mut buffer = vec![0; 1 << 17];
        loop {
            cancel.check()?;
            match plain.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(source) => {
                    return Err(BuildError::Io {
                        what: format!("read {}", layer.subject()),
                        source,
                    });
                }
            }
        }
    })?;
    Ok((diff_id, size))
}

/// Makes a layer a snapshot upon the snapshots `below`, whose chain id is `upon`. The caller holds
/// a lock that keeps others from doing the same.
pub(crate) fn unpack_blob(
    store: &Store,
    layer: &LayerBlob,
    below: &[SnapshotId],
    upon: Option<Digest>,
    ctx: Ctx<'_>,
) -> Result<SnapshotId, BuildError> {
    let diff_id = layer.diff_id;
    let chain_id = chain_id(upon.as_ref(), &diff_id);
    let snapshots = store.snapshots();
    if let Some(there) = snapshots.by_chain_id(&chain_id)? {
        return Ok(there);
    }
    let new = snapshots.allocate("layer", ctx.cancel)?;
    let tree = new.path().join("fs");
    // What the layer does not say of its root directory is the usual; the umask is not asked.
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
    let into = Root::open(&tree)?;
    let options = UnpackOptions::default();
    let (_, found, tar_size) = layer.read(store, |plain| {
        Ok(unpack_layer(plain, &into, merged.as_ref(), &options, ctx.cancel)?)
    })?;
    if found != diff_id {
        let problem = format!("{} is {found}, it was said to be {diff_id}", layer.subject());
        return Err(bad_document("layer", problem).into());
    }
    drop(into);
    let meta = SnapshotMeta {
        parent: below.last().cloned(),
        chain_id: Some(chain_id),
        diff_id: Some(diff_id),
        tar_size: Some(tar_size),
        made: layer.made,
        ..SnapshotMeta::default()
    };
    Ok(snapshots.publish(new, meta)?)
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

fn boxed(error: BuildError) -> StepError {
    match error {
        BuildError::Cancelled(cancelled) => StepError::Cancelled(cancelled),
        BuildError::Store(CacheError::Cancelled(cancelled)) => StepError::Cancelled(cancelled),
        other => StepError::Image(Box::new(other)),
    }
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
pub(crate) struct StoreSink<'a> {
    store: &'a Store,
    writer: Option<BlobWriter>,
    limit: u64,
    cancel: &'a CancelToken,
}

impl<'a> StoreSink<'a> {
    /// For at most `limit` bytes.
    pub(crate) fn new(store: &'a Store, limit: u64, cancel: &'a CancelToken) -> Self {
        Self { store, writer: None, limit, cancel }
    }

    /// Publishes what came if it is what was named.
    pub(crate) fn commit(self, blob: &Descriptor) -> Result<(), CacheError> {
        let writer = self.writer.map_or_else(|| self.store.blobs().writer(self.cancel), Ok)?;
        writer.commit(Some(&blob.digest), Some(blob.size)).map(drop)
    }
}

impl BlobSink for StoreSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                none.insert(self.store.blobs().writer(self.cancel).map_err(std::io::Error::other)?)
            }
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
