//! In what two images differ: documents, layers, files of the root filesystem.

use rbuild_image::layer::TreeForm;
use rbuild_rooted::Root;
use rbuild_types::{CancelToken, Ctx, Digest, Platform, Progress};
use serde_json::{Value, json};

use super::compare::{FileDifference, compare};
use super::documents::{FieldDifference, differences, with_named_variables};
use super::opened::{Identity, OpenedImage, OpenedLayer};
use crate::{BuildError, Engine};

/// Differing files that are kept to be shown; more are counted.
const LISTED_FILES: usize = 10_000;

/// In what two images differ.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDifference {
    /// The first image.
    pub before: ComparedImage,
    /// The second.
    pub after: ComparedImage,
    /// Fields of the manifests. Digests of what is compared by itself are left out.
    pub manifest: Vec<FieldDifference>,
    /// Fields of the configs but for the layers' digests; variables by their names.
    pub config: Vec<FieldDifference>,
    /// Layers that differ, or that only one has.
    pub layers: Vec<LayerDifference>,
    /// Layers that are the same in the same place.
    pub same_layers: usize,
    /// Files of the root filesystems that differ.
    pub files: Vec<FileDifference>,
    /// Further files that differ.
    pub more_files: u64,
}

/// One of two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedImage {
    /// The image id.
    pub id: Digest,
    /// Digest of the manifest that was compared.
    pub manifest_digest: Digest,
    /// Its familiar name, if it has one, or where it lies.
    pub name: Option<String>,
}

/// A layer that is not the same in both images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDifference {
    /// Index from the bottom, from 0.
    pub index: usize,
    /// That of the first image.
    pub before: Option<LayerName>,
    /// That of the second.
    pub after: Option<LayerName>,
}

/// A layer by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// What the history says of it.
    pub created_by: String,
}

impl ImageDifference {
    /// Whether there is no difference at all.
    pub fn is_none(&self) -> bool {
        let documents = self.manifest.is_empty() && self.config.is_empty();
        documents && self.layers.is_empty() && self.files.is_empty()
    }
}

impl Engine {
    /// Compares two images: by names or ids, of the store; as `oci-layout://DIR[:TAG][@DIGEST]`,
    /// `oci:DIR[:TAG]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]` or `dir:DIR`, of
    /// files, which leaves none of them in the store's listings. Of an index, the image for `platform`, or else this
    /// machine's or the first.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoSuchImage`], [`BuildError::Image`] when one is none for that platform, and when a layer cannot be had or read.
    pub fn diff(
        &self,
        before: &str,
        after: &str,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        cancel: &CancelToken,
    ) -> Result<ImageDifference, BuildError> {
        let _lease = self.store.lease()?;
        let ctx = Ctx::new(progress, cancel);
        let (identity, before) = OpenedImage::open(self, before, platform, ctx)?;
        let (other_identity, after) = OpenedImage::open(self, after, platform, ctx)?;
        let mut difference = ImageDifference {
            manifest: differences(&manifest(&before, &after)?, &manifest(&after, &before)?),
            config: config_differences(&before, &after)?,
            before: compared(identity, &before),
            after: compared(other_identity, &after),
            layers: Vec::new(),
            same_layers: 0,
            files: Vec::new(),
            more_files: 0,
        };
        for index in 0..before.layers.len().max(after.layers.len()) {
            let [one, other] =
                [&before, &after].map(|image| image.layers.get(index).map(layer_name));
            match one.as_ref().map(|one| one.diff_id) == other.as_ref().map(|other| other.diff_id) {
                true => difference.same_layers += 1,
                false => {
                    difference.layers.push(LayerDifference { index, before: one, after: other });
                }
            }
        }
        if !difference.layers.is_empty() {
            let (one, other) = (before.root(self)?, after.root(self)?);
            (difference.files, difference.more_files) = files(&one, &other, cancel)?;
        }
        Ok(difference)
    }
}

/// The files in which two trees differ, and how many more there are.
pub(crate) fn files(
    one: &Root,
    other: &Root,
    cancel: &CancelToken,
) -> Result<(Vec<FileDifference>, u64), BuildError> {
    let (mut files, mut more) = (Vec::new(), 0);
    compare(one, other, TreeForm::Plain, cancel, &mut |file| {
        match files.len() < LISTED_FILES {
            true => files.push(file),
            false => more += 1,
        }
        Ok(())
    })?;
    Ok((files, more))
}

fn compared(Identity { id, name }: Identity, image: &OpenedImage) -> ComparedImage {
    ComparedImage { id, manifest_digest: image.digest, name }
}

pub(crate) fn layer_name(layer: &OpenedLayer) -> LayerName {
    LayerName { diff_id: layer.diff_id, created_by: layer.created_by.clone() }
}

/// In what two configs differ but for the layers' digests.
pub(crate) fn config_differences(
    before: &OpenedImage,
    after: &OpenedImage,
) -> Result<Vec<FieldDifference>, BuildError> {
    Ok(differences(&config(before)?, &config(after)?))
}

/// The manifest without the digests of what differs anyway: of the config, and of layers whose
/// files differ. That of a layer whose files are the same says that it is packed differently.
fn manifest(image: &OpenedImage, other: &OpenedImage) -> Result<Value, BuildError> {
    let mut manifest = parse(&image.manifest_bytes)?;
    if let Some(config) = manifest.get_mut("config") {
        without_name(config);
    }
    if let Some(Value::Array(layers)) = manifest.get_mut("layers") {
        // That there are more is said of the layers.
        layers.truncate(image.layers.len().min(other.layers.len()));
        for (index, layer) in layers.iter_mut().enumerate() {
            let diff_id = |image: &OpenedImage| image.layers.get(index).map(|layer| layer.diff_id);
            if diff_id(image) != diff_id(other) {
                without_name(layer);
            }
        }
    }
    Ok(manifest)
}

fn without_name(descriptor: &mut Value) {
    if let Some(descriptor) = descriptor.as_object_mut() {
        descriptor.remove("digest");
        descriptor.remove("size");
    }
}

fn config(image: &OpenedImage) -> Result<Value, BuildError> {
    let mut config = parse(&image.config_bytes)?;
    if let Some(ids) = config.pointer_mut("/rootfs/diff_ids") {
        *ids = json!([]);
    }
    Ok(with_named_variables(config))
}

fn parse(bytes: &[u8]) -> Result<Value, BuildError> {
    serde_json::from_slice(bytes).map_err(|error| BuildError::Io {
        what: "read a document of an image".to_owned(),
        source: error.into(),
    })
}
