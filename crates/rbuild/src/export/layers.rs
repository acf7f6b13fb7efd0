//! The compressed bytes of layers, made when an image leaves the machine.
//!
//! A layer is compressed once for each encoding: the result is kept as a blob, and an alias in
//! the index leads from (diff id, encoding) to it.

use rbuild_image::compress::{COMPRESSION_FORMAT, CompressedWriter, Encoding};
use rbuild_image::layer::{PackOptions, pack};
use rbuild_image::manifest::Descriptor;
use rbuild_image::media_type::Family;
use rbuild_rooted::Root;
use rbuild_solver::Layer;
use rbuild_types::{Ctx, Digest, Hasher};

use crate::assemble::{Assembled, as_oci};
use crate::sources::image::ImageSource;
use crate::{BuildError, Engine};

/// Descriptors of all layers, bottom first; their bytes are in the store.
pub(crate) fn descriptors(
    engine: &Engine,
    image: &Assembled,
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<Vec<Descriptor>, BuildError> {
    let mut descriptors = Vec::new();
    if let Some(base) = &image.base {
        let diff_ids = &base.config.rootfs.diff_ids;
        let chain = rbuild_image::manifest::chain_ids(diff_ids);
        for ((layer, diff_id), chain_id) in base.manifest.layers.iter().zip(diff_ids).zip(chain) {
            // A base image that was built here has trees and no blobs.
            let snapshot = engine.store.snapshots().by_chain_id(&chain_id)?;
            let blob = engine.store.blobs().contains(&layer.digest)?;
            match snapshot {
                Some(snapshot) if !blob && layer.digest == *diff_id => {
                    let layer = Layer { snapshot, diff_id: *diff_id, tar_size: layer.size };
                    descriptors.push(compressed(engine, &layer, ctx)?);
                }
                _ => {
                    images.fetch_layer(base, layer, ctx)?;
                    descriptors.push(as_oci(layer)?);
                }
            }
        }
    }
    for layer in &image.layers {
        descriptors.push(compressed(engine, layer, ctx)?);
    }
    Ok(descriptors)
}

/// The gzip form of a layer of ours.
fn compressed(engine: &Engine, layer: &Layer, ctx: Ctx<'_>) -> Result<Descriptor, BuildError> {
    let encoding = Encoding::GZIP;
    let media_type = Family::Oci.layer(encoding.compression())?;
    let mut name = Hasher::new();
    name.field("compressed layer")
        .field(layer.diff_id.as_bytes())
        .field(format!("{encoding:?} {COMPRESSION_FORMAT}"));
    let name = name.finish();
    let blobs = engine.store.blobs();
    if let Some(digest) = engine.store.records().get_alias(&name)?
        && let Some(size) = blobs.size(&digest)?
        && blobs.contains(&digest)?
    {
        return Ok(Descriptor::new(media_type, digest, size));
    }
    let tree = Root::open(engine.store.snapshots().path(&layer.snapshot).join("fs"))?;
    let mut writer = CompressedWriter::new(blobs.writer()?, encoding, engine.pool()?);
    let packed = pack(&tree, &PackOptions::default(), &mut writer, ctx.cancel)?;
    let failed = |source| BuildError::Io { what: "compress a layer".to_owned(), source };
    let (blob, written) = writer.finish().map_err(failed)?;
    same(layer, packed.diff_id)?;
    let (digest, size) = blob.commit(Some(&written.digest), Some(written.size))?;
    engine.store.records().alias(&name, &digest)?;
    Ok(Descriptor::new(media_type, digest, size))
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
            layer.snapshot, layer.diff_id
        ),
    })
}
