//! An image of the store with its documents as they are written and its layers as trees.

use std::path::PathBuf;

use rbuild_rooted::Root;
use rbuild_types::{Ctx, Digest, Platform, Reference};

use super::files;
use crate::images::{descriptor, nameless};
use crate::sources::image::{ImageSource, MAX_DOCUMENT};
use crate::{BuildError, Engine, Pull};

/// One image: of an index that was named, that for a platform, else that of this machine, else the
/// first.
pub(crate) struct OpenedImage {
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// The manifest as the store has it.
    pub(crate) manifest_bytes: Vec<u8>,
    /// The config as the store has it.
    pub(crate) config_bytes: Vec<u8>,
    /// The files of each layer, bottom first.
    pub(crate) layers: Vec<OpenedLayer>,
}

/// What an image is called.
pub(crate) struct Identity {
    /// The image id.
    pub(crate) id: Digest,
    /// Its familiar name, or where it lies.
    pub(crate) name: Option<String>,
}

/// A layer of an image.
pub(crate) struct OpenedLayer {
    pub(crate) diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_size: u64,
    /// What the history says of it.
    pub(crate) created_by: String,
    /// Its tree.
    path: PathBuf,
}

impl OpenedLayer {
    pub(crate) fn open(&self) -> Result<Root, BuildError> {
        Ok(Root::open(&self.path)?)
    }
}

impl OpenedImage {
    /// Opens the image of a name or id, or else of an archive or layout, with layers unpacked. The
    /// caller has a lease.
    pub(crate) fn open(
        engine: &Engine,
        name: &str,
        platform: Option<&Platform>,
        ctx: Ctx<'_>,
    ) -> Result<(Identity, Self), BuildError> {
        let (top, from, shown) = match engine.find_image(name) {
            Ok(record) => {
                let shown = record.reference.as_ref().map(Reference::familiar);
                (descriptor(&record), record.reference, shown)
            }
            Err(error @ BuildError::NoSuchImage { .. }) => {
                let top = files::read(engine, name, ctx)?.ok_or(error)?;
                (top, None, Some(name.to_owned()))
            }
            Err(error) => return Err(error),
        };
        let documents = engine.documents(&top, platform)?;
        let identity = Identity { id: documents.id(&top), name: shown };
        let from = from.map_or_else(nameless, Ok)?;
        Ok((identity, Self::of_manifest(engine, &from, documents.digest, ctx)?))
    }

    /// Opens the image of a manifest; what of it is not in the store is asked of the registry of
    /// `from`.
    pub(crate) fn of_manifest(
        engine: &Engine,
        from: &Reference,
        digest: Digest,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let images = ImageSource::new(engine, Pull::Missing, ctx);
        let documents = images.resolve(&from.with_digest(digest), &Platform::host())?;
        let snapshots = images.unpack_image(&documents, ctx)?;
        let read = |digest: &Digest| engine.store.blobs().read_small(digest, MAX_DOCUMENT);
        let manifest_bytes = read(&digest)?;
        let config_bytes = read(&documents.manifest.config.digest)?;
        let history = documents.config.history.iter().filter(|item| !item.empty_layer);
        let mut history = history.map(|item| item.created_by.clone());
        let mut layers = Vec::new();
        for ((snapshot, diff_id), descriptor) in
            snapshots.iter().zip(&documents.config.rootfs.diff_ids).zip(&documents.manifest.layers)
        {
            let known = engine.store.snapshots().meta(snapshot)?;
            layers.push(OpenedLayer {
                diff_id: *diff_id,
                tar_size: known.and_then(|one| one.meta.tar_size).unwrap_or(descriptor.size),
                created_by: history.next().unwrap_or_default(),
                path: engine.store.snapshots().path(snapshot).join("fs"),
            });
        }
        Ok(Self { digest, manifest_bytes, config_bytes, layers })
    }

    /// The root filesystem, to be read only. An image without layers has an empty one.
    pub(crate) fn root(&self, engine: &Engine) -> Result<Root, BuildError> {
        let mut layers = vec![engine.empty_directory()?];
        layers.extend(self.layers.iter().map(|layer| layer.path.clone()));
        Ok(Root::from_fd(rbuild_snapshot::view(&layers)?))
    }
}
