//! The steps of an image in its own config: `type=inline`.
//!
//! Whoever has the image has its cache, and it goes where the image goes. The index names layers by
//! their diff ids alone, since where their bytes are is the manifest's to say, which is made after the
//! config. So the config, and with it the image id, is the same wherever the image goes.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::manifest::chain_ids;
use rbuild_types::{Digest, ImageConfig};

use super::index::{Identity, Index, Record};
use crate::cache_store::InlineIndex;
use crate::remote_cache::index::IndexError;

/// The field of the config.
const FIELD: &str = "rbuild.cache.v1";

/// Takes out what a base image has there: it is of no use for the image built upon it.
pub(crate) fn clear(config: &mut ImageConfig) {
    config.other.remove(FIELD);
}

/// Puts an index of those `records` that made layers of this image into its config.
pub(crate) fn put(
    config: &mut ImageConfig,
    diff_ids: &[Digest],
    records: &BTreeMap<Identity, Record>,
    pool: &rayon::ThreadPool,
) -> std::io::Result<()> {
    let chain: BTreeSet<Digest> = chain_ids(diff_ids).into_iter().collect();
    let ours = records.iter().filter(|(_, record)| chain.contains(&record.chain_id()));
    let ours: BTreeMap<Identity, Record> = ours
        .map(|(identity, record)| {
            (*identity, Record { blob: None, used: 0, inputs: String::new(), ..record.clone() })
        })
        .collect();
    if !ours.is_empty() {
        let bytes = Index::default().with(&ours).to_bytes(pool)?;
        config.other.insert(FIELD.to_owned(), STANDARD.encode(bytes).into());
    }
    Ok(())
}

/// The bytes of the index in a config.
pub(crate) fn decode(config: &ImageConfig) -> Option<Vec<u8>> {
    STANDARD.decode(config.other.get(FIELD)?.as_str()?).ok()
}

/// Reads the index of an image, each record with where its layer is.
pub(super) fn parse(image: &InlineIndex) -> Result<Index, IndexError> {
    let mut index = Index::default();
    for record in Index::parse(&image.bytes)?.into_records() {
        let blob = image.layers.get(&record.diff_id).cloned();
        let record = Record { blob, ..record };
        match record.problem() {
            None => index.insert(record),
            Some(problem) => return Err(IndexError(problem.to_owned())),
        }
    }
    Ok(index)
}
