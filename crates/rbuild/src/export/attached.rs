//! What is attached to an image's manifest, when that leaves as another than the store has.
//!
//! An attestation names its image by digest in three places (BuildKit's `attestation-storage.md`):
//! in the index, as the subject of each statement, and, as an OCI artifact, as the subject of its
//! manifest. All of them follow; statements themselves say the same as before.

use std::collections::BTreeMap;

use rbuild_image::ImageError;
use rbuild_image::index::REFERENCE_DIGEST;
use rbuild_image::manifest::{Descriptor, Document, parse_manifest};
use rbuild_types::{Ctx, Digest};
use serde_json::Value;

use crate::BuildError;
use crate::attest::statement::MEDIA_TYPE as STATEMENT;
use crate::export::layers::{Leaving, Origin};
use crate::export::package::Package;
use crate::sources::image::{MAX_DOCUMENT, bad_document};

/// Largest statement that is rewritten, which takes some twenty times its size of memory.
const MAX_STATEMENT: usize = 16 << 20;

/// Documents that are new, by the digests of the old.
pub(super) type Renewed = BTreeMap<Digest, Descriptor>;

/// Adds what an index's entry attaches to one of the `renewed` manifests.
pub(super) fn add(
    package: &mut Package<'_>,
    entry: &Descriptor,
    renewed: &Renewed,
    ctx: Ctx<'_>,
) -> Result<Descriptor, BuildError> {
    let blobs = package.engine.store.blobs();
    let bytes = blobs.read_small(&entry.digest, MAX_DOCUMENT)?;
    let Document::Manifest(manifest) = parse_manifest(&bytes, Some(&entry.media_type))? else {
        return Err(bad_document("attestation", "is an index").into());
    };
    let mut parts = Renewed::new();
    for layer in &manifest.layers {
        ctx.cancel.check()?;
        let mut left = layer.clone();
        if layer.media_type == STATEMENT {
            let statement = blobs.read_small(&layer.digest, MAX_STATEMENT)?;
            let statement = changed(&statement, "attestation", |statement| {
                subjects(statement, renewed);
            })?;
            let new = package.add_document(STATEMENT, statement);
            (left.digest, left.size) = (new.digest, new.size);
            parts.insert(layer.digest, left.clone());
        }
        let (diff_id, origin) = (left.digest, Origin::Blob);
        package.add_layers(vec![Leaving { descriptor: left, diff_id, origin }]);
    }
    let config = blobs.read_small(&manifest.config.digest, MAX_DOCUMENT)?;
    let config = changed(&config, "attestation's config", |config| {
        if let Some(Value::Array(ids)) = config.pointer_mut("/rootfs/diff_ids") {
            ids.iter_mut().for_each(|id| rename(id, &parts));
        }
    })?;
    let config = package.add_document(&manifest.config.media_type, config);
    package.add_config(&config);
    parts.insert(manifest.config.digest, config);
    let bytes = changed(&bytes, "attestation's manifest", |manifest| {
        for name in ["config", "subject"] {
            redirect(&mut manifest[name], &parts);
            redirect(&mut manifest[name], renewed);
        }
        if let Some(Value::Array(layers)) = manifest.get_mut("layers") {
            layers.iter_mut().for_each(|layer| redirect(layer, &parts));
        }
        if let Value::Object(manifest) = manifest {
            manifest.retain(|_, value| !value.is_null());
        }
    })?;
    let mut left = package.add_document(&entry.media_type, bytes);
    package.manifests.push(left.clone());
    left = Descriptor { digest: left.digest, size: left.size, ..entry.clone() };
    if let Some(of) = left.annotations.get_mut(REFERENCE_DIGEST)
        && let Some(new) = of.parse().ok().and_then(|old: Digest| renewed.get(&old))
    {
        *of = new.digest.to_string();
    }
    Ok(left)
}

fn changed(
    bytes: &[u8],
    subject: &str,
    change: impl FnOnce(&mut Value),
) -> Result<Vec<u8>, BuildError> {
    let wrong =
        |error: serde_json::Error| -> ImageError { bad_document(subject, error.to_string()) };
    let mut value: Value = serde_json::from_slice(bytes).map_err(wrong)?;
    change(&mut value);
    Ok(serde_json::to_vec(&value).map_err(wrong)?)
}

/// The images that a statement is about.
fn subjects(statement: &mut Value, renewed: &Renewed) {
    let Some(Value::Array(subjects)) = statement.get_mut("subject") else { return };
    for subject in subjects {
        let Some(Value::String(hex)) = subject.pointer_mut("/digest/sha256") else { continue };
        let old: Option<Digest> = format!("sha256:{hex}").parse().ok();
        if let Some(new) = old.and_then(|old| renewed.get(&old)) {
            *hex = new.digest.hex();
        }
    }
}

/// A digest as text.
fn rename(id: &mut Value, renewed: &Renewed) {
    let old: Option<Digest> = id.as_str().and_then(|id| id.parse().ok());
    if let Some(new) = old.and_then(|old| renewed.get(&old)) {
        *id = Value::from(new.digest.to_string());
    }
}

/// A descriptor.
fn redirect(descriptor: &mut Value, renewed: &Renewed) {
    let Some(digest) = descriptor.get("digest") else { return };
    let old: Option<Digest> = digest.as_str().and_then(|digest| digest.parse().ok());
    if let Some(new) = old.and_then(|old| renewed.get(&old)) {
        descriptor["digest"] = Value::from(new.digest.to_string());
        descriptor["size"] = Value::from(new.size);
    }
}
