//! What is particular to layers that leave as eStargz.
//!
//! All other encodings give a layer's own tar back; of an eStargz blob more comes out, so:
//!
//! * it has a diff id of its own, and a config names those of the blobs that leave with it
//!   ([`rbuild_image::config::with_diff_ids`]): the image id is another than that of the store;
//! * its descriptor carries annotations, without which nobody may read its files one by one. They
//!   are kept beside the blob, in a [`Descriptor`] with one annotation more, that BuildKit too keeps
//!   to itself: the diff id.

use rbuild_image::ImageError;
use rbuild_image::estargz::{Estargz, TOC_DIGEST, UNCOMPRESSED_SIZE};
use rbuild_image::manifest::Descriptor;
use rbuild_types::Digest;

use crate::export::layers::Encoded;
use crate::sources::image::{MAX_DOCUMENT, bad_document};
use crate::{BuildError, BuildRequest, CacheExport, CacheLocation, Engine, Export};

/// The annotation that does not leave.
const DIFF_ID: &str = "containerd.io/uncompressed";

/// The finished blob with all that is said of it.
pub(super) fn annotated(mut descriptor: Descriptor, made: Estargz) -> Encoded {
    let Estargz { toc_digest, diff_id, uncompressed_size } = made;
    descriptor.annotations.insert(TOC_DIGEST.to_owned(), toc_digest.to_string());
    descriptor.annotations.insert(UNCOMPRESSED_SIZE.to_owned(), uncompressed_size.to_string());
    Encoded { descriptor, diff_id }
}

/// Refuses what would find layers by the diff ids of the store where they have others.
pub(super) fn check(request: &BuildRequest) -> Result<(), BuildError> {
    let leaves = |wanted: &Export| wanted.layers.encoding.is_estargz();
    let is_inline = |cache: &CacheExport| cache.location == CacheLocation::Inline;
    let message = if request.cache_to.iter().any(|cache| cache.encoding.is_estargz()) {
        "a cache cannot hold layers as estargz: compress them as gzip or zstd there"
    } else if request.outputs.iter().any(leaves) && request.cache_to.iter().any(is_inline) {
        "an inline cache finds its layers by digests that they do not have as estargz: write the \
         cache elsewhere, or take another compression"
    } else {
        return Ok(());
    };
    Err(BuildError::Request { message: message.to_owned() })
}

/// Whether a layer that came from elsewhere is one.
pub(crate) fn is_estargz(layer: &Descriptor) -> bool {
    layer.annotations.contains_key(TOC_DIGEST)
}

/// Keeps what is said of a blob, and gives the digest that this is found by.
pub(super) fn remember(engine: &Engine, encoded: &Encoded) -> Result<Digest, BuildError> {
    let mut kept = encoded.descriptor.clone();
    kept.annotations.insert(DIFF_ID.to_owned(), encoded.diff_id.to_string());
    Ok(engine.store.blobs().put(&serde_json::to_vec(&kept).map_err(wrong)?)?)
}

/// What was said of a blob, if that and the blob are there.
pub(super) fn recall(
    engine: &Engine,
    said: &Digest,
    media_type: &str,
) -> Result<Option<Encoded>, BuildError> {
    let blobs = engine.store.blobs();
    if !blobs.contains(said)? {
        return Ok(None);
    }
    let kept = blobs.read_small(said, MAX_DOCUMENT)?;
    let mut descriptor: Descriptor = serde_json::from_slice(&kept).map_err(wrong)?;
    let diff_id = descriptor.annotations.remove(DIFF_ID).and_then(|id| id.parse().ok());
    let is_there = blobs.size(&descriptor.digest)? == Some(descriptor.size);
    descriptor.media_type = media_type.to_owned();
    Ok(diff_id.filter(|_| is_there).map(|diff_id| Encoded { descriptor, diff_id }))
}

fn wrong(error: serde_json::Error) -> ImageError {
    bad_document("what is kept of an eStargz layer", error.to_string())
}
