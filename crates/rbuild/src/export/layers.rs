//! The bytes of layers, made when an image leaves the machine.
//!
//! A layer is compressed once for each encoding: the result is kept as a blob, and an alias in
//! the index leads from (diff id, encoding) to it. Its bytes are a function of the two, so it does
//! not matter whether they were made of a tree of ours or of a base image's blob. An uncompressed
//! layer that is a tree is not kept: it is packed as it leaves. eStargz is an encoding like others but
//! for what `estargz.rs` says.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rbuild_cache::{Snapshot, SnapshotId};
use rbuild_image::ImageError;
use rbuild_image::compress::{
    COMPRESSION_FORMAT, CompressedWriter, Compression, Encoding, ahead, reader,
};
use rbuild_image::estargz::EstargzWriter;
use rbuild_image::layer::{LayerReader, PackOptions, Packed, pack};
use rbuild_image::manifest::Descriptor;
use rbuild_image::media_type::{Family, is_foreign, layer_compression};
use rbuild_rooted::Root;
use rbuild_solver::Layer;
use rbuild_types::{CancelToken, Cancelled, Ctx, Digest, Hasher};

use crate::assemble::{Assembled, in_family};
use crate::export::estargz;
use crate::sources::image::{ImageSource, Resolved, bad_document};
use crate::sources::layers::open_layer;
use crate::{BuildError, Engine, LayerForm};

/// A layer in the form in which it leaves.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) descriptor: Descriptor,
    /// Of what comes out of it; of what is no layer, its own digest.
    pub(crate) diff_id: Digest,
    pub(crate) origin: Origin,
}

/// Where a layer's bytes are.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A blob of the store.
    Blob,
    /// A tree that is packed as it is read.
    Tree(Layer),
    /// What the base image names so; perhaps not fetched yet.
    Base(Arc<Resolved>, Descriptor),
    /// Not for distribution, and not here: only named.
    Elsewhere,
}

impl Leaving {
    /// Opens the bytes, which are in the store or made as they are read.
    pub(crate) fn open(
        &self,
        engine: &Engine,
        cancel: &CancelToken,
    ) -> io::Result<Box<dyn Read + Send>> {
        match &self.origin {
            Origin::Blob | Origin::Base(..) | Origin::Elsewhere => {
                let blob = engine.store.blobs().open(&self.descriptor.digest);
                Ok(Box::new(blob.map_err(io::Error::other)?))
            }
            Origin::Tree(layer) => {
                let tree = tree(engine, layer).map_err(io::Error::other)?;
                let layer = layer.clone();
                let check =
                    move |packed: Packed| same(&layer, packed.diff_id).map_err(io::Error::other);
                let options = PackOptions::default();
                Ok(Box::new(LayerReader::start(tree, options, check, cancel)?))
            }
        }
    }
}

/// All layers of an image, bottom first.
pub(crate) fn leaving(
    engine: &Engine,
    image: &Assembled,
    form: &LayerForm,
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<Vec<Leaving>, BuildError> {
    let mut all = match &image.base {
        Some(base) => of_image(engine, base, form, images, ctx)?,
        None => Vec::new(),
    };
    for layer in &image.layers {
        all.push(own(engine, engine.pool()?, layer, form, ctx.cancel)?);
    }
    Ok(all)
}

/// All layers of an image that was not just made, bottom first.
pub(crate) fn of_image(
    engine: &Engine,
    image: &Arc<Resolved>,
    form: &LayerForm,
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<Vec<Leaving>, BuildError> {
    let mut all = Vec::new();
    let diff_ids = &image.config.rootfs.diff_ids;
    let chain = rbuild_image::manifest::chain_ids(diff_ids);
    for ((layer, diff_id), chain_id) in image.manifest.layers.iter().zip(diff_ids).zip(chain) {
        let descriptor = in_family(layer, form.family)?;
        // An image that was built here has trees and no blobs.
        let snapshot = engine.store.snapshots().by_chain_id(&chain_id)?;
        let blob = engine.store.blobs().contains(&layer.digest)?;
        all.push(match snapshot {
            Some(snapshot) if !blob && layer.digest == *diff_id => {
                let (snapshot, diff_id, tar_size) = (Some(snapshot), *diff_id, layer.size);
                let layer = Layer { snapshot, diff_id, tar_size, created: 0 };
                own(engine, engine.pool()?, &layer, form, ctx.cancel)?
            }
            _ if is_foreign(&layer.media_type) && !blob => {
                Leaving { descriptor, diff_id: *diff_id, origin: Origin::Elsewhere }
            }
            _ if is_other(layer, form) => {
                images.fetch_layer(image, layer, ctx)?;
                let tar = Tar::Blob { layer, diff_id: *diff_id };
                encoded(engine, &tar, form.encoding, form.family, ctx.cancel)?.leaving()
            }
            _ => {
                let origin = Origin::Base(image.clone(), layer.clone());
                Leaving { descriptor, diff_id: *diff_id, origin }
            }
        });
    }
    Ok(all)
}

/// Whether an image's layer gets another form. One that is not compressed nobody chose so: it comes
/// out of an archive. What is no tar has no form to change.
fn is_other(layer: &Descriptor, form: &LayerForm) -> bool {
    let Some(compression) = layer_compression(&layer.media_type) else { return false };
    let is_free = form.force || compression == Compression::None;
    let is_plain = form.encoding.is_estargz() && !estargz::is_estargz(layer);
    is_free && (is_plain || compression != form.encoding.compression())
}

/// A layer that was made here, compressed on this pool.
pub(super) fn own(
    engine: &Engine,
    pool: &rayon::ThreadPool,
    layer: &Layer,
    form: &LayerForm,
    cancel: &CancelToken,
) -> Result<Leaving, BuildError> {
    if layer.snapshot.is_none() {
        return Ok(recoded(engine, layer, form.encoding, form.family, cancel)?.leaving());
    }
    if form.encoding == Encoding::Uncompressed {
        let media_type = form.family.layer(form.encoding.compression())?;
        let descriptor = Descriptor::new(media_type, layer.diff_id, layer.tar_size);
        let (diff_id, origin) = (layer.diff_id, Origin::Tree(layer.clone()));
        return Ok(Leaving { descriptor, diff_id, origin });
    }
    let tar = Tar::Tree(layer);
    Ok(encoded_by(pool, engine, &tar, form.encoding, form.family, cancel)?.leaving())
}

/// A layer in one encoding, as a blob of the store.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) descriptor: Descriptor,
    /// Of what comes out of the blob.
    pub(crate) diff_id: Digest,
}

impl Encoded {
    fn leaving(self) -> Leaving {
        let Self { descriptor, diff_id } = self;
        Leaving { descriptor, diff_id, origin: Origin::Blob }
    }
}

/// What a layer's tar is made of.
pub(crate) enum Tar<'a> {
    /// A tree of ours.
    Tree(&'a Layer),
    /// A blob of the store, as a base image names it.
    Blob {
        /// What it is.
        layer: &'a Descriptor,
        /// The digest of what is in it.
        diff_id: Digest,
    },
}

impl Tar<'_> {
    fn diff_id(&self) -> Digest {
        match self {
            Self::Tree(layer) => layer.diff_id,
            Self::Blob { diff_id, .. } => *diff_id,
        }
    }
}

/// The layer in one encoding, as a blob of the store. Made once, also when several builds want it
/// at the same time.
pub(crate) fn encoded(
    engine: &Engine,
    tar: &Tar<'_>,
    encoding: Encoding,
    family: Family,
    cancel: &CancelToken,
) -> Result<Encoded, BuildError> {
    encoded_by(engine.pool()?, engine, tar, encoding, family, cancel)
}

/// [`encoded`] on a pool of choice.
fn encoded_by(
    pool: &rayon::ThreadPool,
    engine: &Engine,
    tar: &Tar<'_>,
    encoding: Encoding,
    family: Family,
    cancel: &CancelToken,
) -> Result<Encoded, BuildError> {
    let diff_id = tar.diff_id();
    if let Some(known) = known(engine, &diff_id, encoding, family)? {
        return Ok(known);
    }
    let name = name(&diff_id, encoding);
    let _lock = engine.store.step_lock(&name, cancel)?;
    if let Some(known) = known(engine, &diff_id, encoding, family)? {
        return Ok(known);
    }
    let blob = engine.store.blobs().writer(cancel)?;
    let failed = |source| BuildError::Io { what: "compress a layer".to_owned(), source };
    let (blob, estargz) = if let Encoding::Estargz { level } = encoding {
        let mut writer = EstargzWriter::new(blob, level, pool);
        write_tar(engine, tar, &mut writer, cancel)?;
        let (blob, made) = writer.finish().map_err(failed)?;
        (blob, Some(made))
    } else {
        let mut writer = CompressedWriter::new(blob, encoding, pool);
        write_tar(engine, tar, &mut writer, cancel)?;
        (writer.finish().map_err(failed)?, None)
    };
    let (digest, size) = blob.commit(None, None)?;
    let descriptor = Descriptor::new(family.layer(encoding.compression())?, digest, size);
    let Some(made) = estargz else {
        engine.store.records().alias(&name, &digest)?;
        return Ok(Encoded { descriptor, diff_id });
    };
    let encoded = estargz::annotated(descriptor, made);
    engine.store.records().alias(&name, &estargz::remember(engine, &encoded)?)?;
    Ok(encoded)
}

/// What an alias from (layer, encoding) to the blob goes by.
fn name(diff_id: &Digest, encoding: Encoding) -> Digest {
    let mut name = Hasher::new();
    name.field("compressed layer")
        .field(diff_id.as_bytes())
        .field(format!("{encoding:?} {COMPRESSION_FORMAT}"));
    name.finish()
}

/// The blob of a layer, if it was made before.
fn known(
    engine: &Engine,
    diff_id: &Digest,
    encoding: Encoding,
    family: Family,
) -> Result<Option<Encoded>, BuildError> {
    let Some(digest) = engine.store.records().get_alias(&name(diff_id, encoding))? else {
        return Ok(None);
    };
    let media_type = family.layer(encoding.compression())?;
    if encoding.is_estargz() {
        return estargz::recall(engine, &digest, media_type);
    }
    let Some(size) = engine.store.blobs().size(&digest)? else { return Ok(None) };
    let descriptor = Descriptor::new(media_type, digest, size);
    Ok(Some(Encoded { descriptor, diff_id: *diff_id }))
}

/// How a layer that came from elsewhere is taken to be compressed: at which level nobody knows.
fn usual(compression: Compression) -> Option<Encoding> {
    match compression {
        Compression::None => Some(Encoding::Uncompressed),
        Compression::Gzip => Some(Encoding::GZIP),
        Compression::Zstd => Some(Encoding::ZSTD),
        Compression::Bzip2 | Compression::Xz => None,
    }
}

/// Lets exports take a blob that came from elsewhere, and holds this layer, unless they have one.
pub(crate) fn keep(
    engine: &Engine,
    diff_id: &Digest,
    compression: Compression,
    blob: &Digest,
) -> Result<(), BuildError> {
    match usual(compression) {
        Some(encoding) if known(engine, diff_id, encoding, Family::Oci)?.is_none() => {
            Ok(engine.store.records().alias(&name(diff_id, encoding), blob)?)
        }
        _ => Ok(()),
    }
}

/// Whether exports take this blob for the layer.
pub(crate) fn is_kept(
    engine: &Engine,
    diff_id: &Digest,
    compression: Compression,
    blob: &Digest,
) -> Result<bool, BuildError> {
    let Some(encoding) = usual(compression) else { return Ok(false) };
    let known = known(engine, diff_id, encoding, Family::Oci)?;
    Ok(known.is_some_and(|known| known.descriptor.digest == *blob))
}

/// A layer without files, which came from elsewhere: as it came where that is what is wanted.
pub(crate) fn recoded(
    engine: &Engine,
    layer: &Layer,
    encoding: Encoding,
    family: Family,
    cancel: &CancelToken,
) -> Result<Encoded, BuildError> {
    for came in [encoding, Encoding::GZIP, Encoding::ZSTD, Encoding::Uncompressed] {
        let Some(blob) = known(engine, &layer.diff_id, came, family)? else { continue };
        let is_plain = encoding.is_estargz() && !came.is_estargz();
        if came.compression() == encoding.compression() && !is_plain {
            return Ok(blob);
        }
        let tar = Tar::Blob { layer: &blob.descriptor, diff_id: layer.diff_id };
        return encoded(engine, &tar, encoding, family, cancel);
    }
    let problem = format!("the bytes of layer {} are not in the store", layer.diff_id);
    Err(BuildError::Request { message: format!("{problem}: build again") })
}

/// The layer that a snapshot is, with its blob, which is made behind the steps that run.
pub(crate) fn of_snapshot(
    engine: &Engine,
    snapshot: &SnapshotId,
    encoding: Encoding,
    cancel: &CancelToken,
) -> Result<(Layer, Encoded), BuildError> {
    // On the caller's thread: who holds a layer's lock on the pool could be made to wait for
    // itself.
    of_snapshot_by(engine.quiet_pool()?.pool(), engine, snapshot, encoding, cancel)
}

fn of_snapshot_by(
    pool: &rayon::ThreadPool,
    engine: &Engine,
    snapshot: &SnapshotId,
    encoding: Encoding,
    cancel: &CancelToken,
) -> Result<(Layer, Encoded), BuildError> {
    let meta = engine.store.snapshots().meta(snapshot)?;
    let created = meta.as_ref().map_or(0, Snapshot::made);
    let known = meta.and_then(|known| known.meta.diff_id.zip(known.meta.tar_size));
    let snapshot = Some(snapshot.clone());
    let mut layer = Layer { snapshot, diff_id: Digest::of(""), tar_size: 0, created };
    (layer.diff_id, layer.tar_size) = match known {
        Some(known) => known,
        None => {
            let tree = tree(engine, &layer)?;
            let packed = pack(&tree, &PackOptions::default(), &mut io::sink(), cancel)?;
            (packed.diff_id, packed.size)
        }
    };
    let blob = encoded_by(pool, engine, &Tar::Tree(&layer), encoding, Family::Oci, cancel)?;
    Ok((layer, blob))
}

/// Writes a layer's tar, which must be what its diff id says.
fn write_tar(
    engine: &Engine,
    tar: &Tar<'_>,
    sink: &mut dyn Write,
    cancel: &CancelToken,
) -> Result<(), BuildError> {
    match tar {
        Tar::Tree(layer) => {
            let options = PackOptions::default();
            let packed = pack(&tree(engine, layer)?, &options, sink, cancel)?;
            same(layer, packed.diff_id)
        }
        Tar::Blob { layer, diff_id } => {
            let compression = layer_compression(&layer.media_type).ok_or_else(|| {
                bad_document("layer", format!("unknown media type {:?}", layer.media_type))
            })?;
            let subject = format!("layer {}", layer.digest.short());
            let (blob, compression) = open_layer(&engine.store, &layer.digest, compression)?;
            let found = ahead(
                || reader(compression, blob, &subject),
                |plain| copy_hashing(plain, sink, cancel),
            );
            let found = found
                .map_err(|source| BuildError::Io { what: format!("read {subject}"), source })?;
            match found {
                None => Err(Cancelled.into()),
                Some(found) if found == *diff_id => Ok(()),
                Some(found) => {
                    let expected = *diff_id;
                    Err(ImageError::DigestMismatch { subject, expected, found }.into())
                }
            }
        }
    }
}

/// Copies everything and gives its digest; nothing when it was cancelled.
fn copy_hashing(
    from: &mut dyn Read,
    to: &mut dyn Write,
    cancel: &CancelToken,
) -> io::Result<Option<Digest>> {
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 256 << 10]);
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        to.write_all(bytes)?;
    }
}

fn tree(engine: &Engine, layer: &Layer) -> Result<Root, BuildError> {
    let missing = || rbuild_cache::CacheError::NoSnapshot { id: layer.diff_id.to_string() };
    let snapshot = layer.snapshot.as_ref().ok_or_else(missing)?;
    Ok(Root::open(engine.store.snapshots().path(snapshot).join("fs"))?)
}

/// A tree that gives other bytes than before was changed behind our back.
fn same(layer: &Layer, found: Digest) -> Result<(), BuildError> {
    if layer.diff_id == found {
        return Ok(());
    }
    Err(BuildError::Request {
        message: format!(
            "snapshot {} is damaged: its content is {found}, recorded was {}; \
             remove it with `rbuild prune -a` and build again",
            layer.snapshot.as_ref().map_or("", SnapshotId::as_str),
            layer.diff_id
        ),
    })
}
