//! Images to registries: layers and configs first, several at a time, then manifests, then names.
//!
//! What a registry has is not sent. A layer of a base image that was never fetched is not fetched
//! for a registry that has it, or that takes it from the base's own repository.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rbuild_image::blob::BlobSource as _;
use rbuild_image::manifest::Descriptor;
use rbuild_registry::{Registry, Upload};
use rbuild_types::{CancelToken, Ctx, Reference};

use crate::export::layers::Origin;
use crate::export::package::{Package, skip};
use crate::{BuildError, Engine};

/// Blobs of one image under way at once; the registry client has a limit of its own per host.
pub(super) const PARALLEL_BLOBS: usize = 4;
/// How often a wait for uploads looks at the caller's cancel token.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// Where an image goes.
pub(crate) struct To<'t> {
    /// Its names there.
    pub(crate) names: &'t [Reference],
    /// Whether only its digest names it there.
    pub(crate) by_digest: bool,
    /// Whether these registries may be spoken to in plain HTTP.
    pub(crate) insecure: bool,
}

/// Pushes under each of the names. `there` is a repository that may have the image already.
pub(crate) fn push(
    package: &Package<'_>,
    to: &To<'_>,
    there: Option<&Reference>,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    let tags = to.names;
    let registry = registry(package.engine, tags, to.insecure)?;
    let mut repositories: Vec<&Reference> = Vec::new();
    for tag in tags {
        if repositories.iter().any(|known| known.repository() == tag.repository()) {
            continue;
        }
        let known = repositories.iter().copied().chain(there);
        let sibling = known.into_iter().find(|known| known.host() == tag.host());
        let target = Target { package, registry: &registry, repository: tag, sibling };
        target.push_blobs(ctx)?;
        repositories.push(tag);
    }
    for tag in tags {
        // What an index names is there before the index is.
        for manifest in package.manifests.iter().filter(|one| one.digest != package.top.digest) {
            put(package, &registry, &tag.with_digest(manifest.digest), manifest, ctx)?;
        }
        let pinned = tag.with_digest(package.top.digest);
        let name = if to.by_digest { &pinned } else { tag };
        put(package, &registry, name, &package.top, ctx)?;
    }
    Ok(())
}

fn put(
    package: &Package<'_>,
    registry: &Registry,
    name: &Reference,
    document: &Descriptor,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    let bytes = package.document(document.digest)?;
    let put = registry.push_manifest(name, &document.media_type, bytes, ctx);
    put.map(|_| ()).map_err(|error| BuildError::of_push(name.familiar(), error))
}

/// The engine's client, or one that may speak plain HTTP to these registries too.
pub(crate) fn registry(
    engine: &Engine,
    tags: &[Reference],
    insecure: bool,
) -> Result<Registry, BuildError> {
    let host = || tags.first().map_or("the registry", Reference::host);
    let client = engine.registry(|| format!("{} cannot be asked", host()))?;
    if !insecure {
        return Ok(client.clone());
    }
    let mut options = engine.options.registry.clone();
    options.insecure.extend(tags.iter().map(|tag| tag.host().to_owned()));
    Ok(Registry::new(options)?)
}

/// One repository that gets all blobs.
struct Target<'a> {
    package: &'a Package<'a>,
    registry: &'a Registry,
    repository: &'a Reference,
    /// A repository of the same registry that got them before.
    sibling: Option<&'a Reference>,
}

impl Target<'_> {
    fn push_blobs(&self, ctx: Ctx<'_>) -> Result<(), BuildError> {
        // Other uploads stop with the caller's token, and when one fails.
        let stop = CancelToken::default();
        let layers = self.package.layers.iter().map(|layer| (&layer.descriptor, &layer.origin));
        let configs = self.package.configs.iter().map(|config| (config, &Origin::Blob));
        let waiting = Mutex::new(layers.chain(configs));
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL_BLOBS {
                let (sender, waiting) = (sender.clone(), &waiting);
                let inner = Ctx::new(ctx.progress, &stop);
                scope.spawn(move || {
                    loop {
                        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((descriptor, origin)) = next else { break };
                        let pushed = self.push_blob(descriptor, origin, inner);
                        if sender.send(pushed).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            loop {
                match receiver.recv_timeout(CANCEL_TICK) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        stop.cancel();
                        return Err(error);
                    }
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    Err(RecvTimeoutError::Timeout) if ctx.cancel.is_cancelled() => stop.cancel(),
                    Err(RecvTimeoutError::Timeout) => {}
                }
            }
        })
    }

    fn push_blob(
        &self,
        blob: &Descriptor,
        origin: &Origin,
        ctx: Ctx<'_>,
    ) -> Result<(), BuildError> {
        let failed = |error| BuildError::of_push(self.repository.familiar_name(), error);
        let mut mount_from = self.sibling;
        if let Origin::Base(image, layer) = origin
            && !self.package.engine.store.blobs().contains(&layer.digest)?
        {
            let there = self.registry.blob_exists(self.repository, blob.digest, ctx);
            let from = self.sibling.unwrap_or(&image.reference);
            if there.map_err(failed)?
                || self
                    .registry
                    .mount_blob(self.repository, blob.digest, from, ctx)
                    .map_err(failed)?
            {
                return Ok(());
            }
            self.package.images.fetch_layer(image, layer, ctx)?;
        } else if let Origin::Base(image, _) = origin {
            mount_from = mount_from.or(Some(&image.reference));
        }
        let known = self.package.engine.store.sources(&blob.digest)?;
        let same_host = |place: &&Reference| place.host() == self.repository.host();
        if mount_from.filter(same_host).is_none() {
            mount_from = known.iter().find(same_host).or(mount_from);
        }
        let open = |offset| skip(self.package.open(blob.digest).map_err(io::Error::other)?, offset);
        let upload = Upload { digest: blob.digest, size: blob.size, mount_from, open: &open };
        self.registry.push_blob(self.repository, &upload, ctx).map(|_| ()).map_err(failed)
    }
}
