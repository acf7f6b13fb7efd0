//! From a solved plan to the images in the store: config, history, manifest, index, names.

use std::collections::BTreeMap;
use std::sync::Arc;

use rbuild_cache::SnapshotId;
use rbuild_image::config;
use rbuild_image::index::Index;
use rbuild_image::layer::FileTimes;
use rbuild_image::manifest::{Descriptor, DescriptorPlatform, Manifest};
use rbuild_image::media_type::{Family, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, layer_compression};
use rbuild_plan::op::{Op, Source};
use rbuild_plan::{Graph, Plan, Target, VertexId};
use rbuild_solver::{Layer, Solution, Solved};
use rbuild_types::{Ctx, Digest, Event, ImageConfig, Platform, Reference};

use crate::attest::Predicate;
use crate::attest::manifest::{AttestationForm, attach};
use crate::packaging::{self, Packaged};
use crate::remote_cache::{Exporting, inline};
use crate::sources::image::{ImageSource, Resolved};
use crate::{
    Annotation, AnnotationPlace, BuildError, BuildRequest, BuiltImage, Engine, Packaging,
    annotation,
};

/// What a build made, before it is written anywhere.
pub(crate) struct Product {
    /// In the order of the platforms that were asked for; one at least.
    pub(crate) images: Vec<Assembled>,
    /// Whether it was asked for images of several platforms, which makes an index of even one.
    pub(crate) is_index: bool,
    /// Those of the request.
    pub(crate) annotations: Vec<Annotation>,
}

/// What stands around the manifests of images.
pub(crate) struct Around<'a> {
    pub(crate) annotations: &'a [Annotation],
    /// How attestations are attached; `None` leaves them out.
    pub(crate) attestations: Option<AttestationForm>,
    /// What the whole is called.
    pub(crate) names: &'a [Reference],
}

/// The whole, as it is referred to.
pub(crate) struct Top {
    pub(crate) descriptor: Descriptor,
    /// Manifests of attestations.
    pub(crate) attached: Vec<Descriptor>,
    /// What those name.
    pub(crate) blobs: Vec<Descriptor>,
}

/// Documents by digest.
pub(crate) type Documents = BTreeMap<Digest, Vec<u8>>;

/// Adds a document with these bytes.
pub(crate) fn add_document(
    documents: &mut Documents,
    media_type: &str,
    bytes: Vec<u8>,
) -> Descriptor {
    let descriptor = Descriptor::of(media_type, &bytes);
    documents.insert(descriptor.digest, bytes);
    descriptor
}

impl Product {
    /// The whole, given the `manifests` of the images in their order, whose media types they have
    /// and what stands around them. All documents are added to `documents`.
    pub(crate) fn top(
        &self,
        family: Family,
        manifests: Vec<Vec<u8>>,
        around: &Around<'_>,
        documents: &mut Documents,
    ) -> Result<Top, BuildError> {
        use AnnotationPlace::{Index as OfIndex, IndexDescriptor, ManifestDescriptor};
        let Around { annotations, attestations, names } = *around;
        let (mut descriptors, mut attached, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
        for (image, manifest) in self.images.iter().zip(manifests) {
            let mut descriptor = add_document(documents, family.manifest(), manifest);
            descriptor.platform = Some(DescriptorPlatform::from(&image.platform));
            descriptor.annotations =
                annotation::of(annotations, ManifestDescriptor, Some(&image.platform));
            documents.insert(image.id(), image.config_bytes.clone());
            if let Some(form) = attestations.filter(|_| !image.attestations.is_empty()) {
                let (platform, said) = (&image.platform, &image.attestations);
                let made = attach(&descriptor, platform, names, said, form, documents)?;
                attached.push(made.entry);
                blobs.extend(made.blobs);
            }
            descriptors.push(descriptor);
        }
        let only = descriptors.pop_if(|_| !self.is_index && attached.is_empty());
        let descriptor = match only {
            Some(image) => image,
            None => {
                // Images first: BuildKit's order, and that of readers who know no attestations.
                descriptors.extend(attached.iter().cloned());
                let mut index = Index::new(family, descriptors);
                index.annotations = annotation::of(annotations, OfIndex, None);
                let mut descriptor = add_document(documents, family.index(), index.to_bytes()?);
                descriptor.annotations = annotation::of(annotations, IndexDescriptor, None);
                descriptor
            }
        };
        Ok(Top { descriptor, attached, blobs })
    }

    /// When the newest image was made.
    pub(crate) fn created(&self) -> Option<String> {
        newest(self.images.iter().filter_map(|image| image.created.as_ref()))
    }
}

/// The latest of some times, as RFC 3339 has them.
pub(crate) fn newest<'t>(times: impl Iterator<Item = &'t String>) -> Option<String> {
    times.max_by_key(|time| time.parse::<jiff::Timestamp>().ok()).cloned()
}

/// An image made of a base image's layers and our own.
pub(crate) struct Assembled {
    pub(crate) base: Option<Arc<Resolved>>,
    pub(crate) layers: Vec<Layer>,
    /// The snapshots of its root filesystem, bottom first, if an output needs them.
    pub(crate) root: Vec<SnapshotId>,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) created: Option<String>,
    /// `SOURCE_DATE_EPOCH`, if there is one.
    source_date_epoch: Option<i64>,
    pub(crate) platform: Platform,
    /// The manifest as the store keeps it: our own layers uncompressed, since they are trees.
    pub(crate) manifest_bytes: Vec<u8>,
    /// What is said of it.
    pub(crate) attestations: Vec<Predicate>,
}

impl Assembled {
    /// The times of files that are written without the image.
    pub(crate) fn times(&self) -> FileTimes {
        self.source_date_epoch.map_or(FileTimes::Kept, FileTimes::All)
    }

    /// The image id.
    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config_bytes)
    }
}

/// Puts all images together.
pub(crate) fn product(
    plan: &Plan,
    solution: Solution,
    request: &BuildRequest,
    images: &ImageSource<'_>,
    caches: Option<&Exporting<'_>>,
    ctx: Ctx<'_>,
) -> Result<Product, BuildError> {
    let mut assembled = Vec::new();
    for (target, solved) in plan.targets.iter().zip(solution.targets) {
        assembled.push(image(&plan.graph, target, solved, request, images, caches, ctx)?);
    }
    let annotations = request.annotations.clone();
    Ok(Product { images: assembled, is_index: plan.is_index, annotations })
}

/// Puts config and manifest of one image together.
fn image(
    graph: &Graph,
    target: &Target,
    solved: Solved,
    request: &BuildRequest,
    images: &ImageSource<'_>,
    caches: Option<&Exporting<'_>>,
    ctx: Ctx<'_>,
) -> Result<Assembled, BuildError> {
    let mut base = base_of(graph, target, images)?;
    let Solved { layers, root } = solved;
    let below = || base.as_ref().map(|base| base.config.rootfs.diff_ids.clone());
    let mut diff_ids = below().unwrap_or_default();
    let packaging = request.packaging;
    let Packaged { layers, merged } =
        packaging.apply(images.engine, &diff_ids, &layers, &root, ctx.cancel)?;
    let mut config = target.config.clone();
    if packaging == Packaging::One {
        (base, diff_ids) = (None, Vec::new());
        packaging::join(config.history.iter_mut(), merged);
    } else {
        packaging::join(config.history.iter_mut().skip(target.base_history), merged);
    }
    diff_ids.extend(layers.iter().map(|layer| layer.diff_id));

    let created = date(target, &layers, &mut config)?;
    inline::clear(&mut config);
    if let Some(caches) = caches {
        caches.put_inline(&mut config, &diff_ids)?;
    }
    let source_date_epoch = target.source_date_epoch;
    let config_bytes = config::assemble(&config, &diff_ids, created.as_deref())?;

    let mut descriptors = Vec::new();
    for layer in base.iter().flat_map(|base| &base.manifest.layers) {
        descriptors.push(in_family(layer, Family::Oci)?);
    }
    descriptors.extend(
        layers.iter().map(|layer| Descriptor::new(OCI_LAYER, layer.diff_id, layer.tar_size)),
    );
    let config_descriptor = Descriptor::of(OCI_CONFIG, &config_bytes);
    let mut manifest = Manifest::new(Family::Oci, config_descriptor, descriptors);
    let place = AnnotationPlace::Manifest;
    manifest.annotations = annotation::of(&request.annotations, place, Some(&target.platform));
    let manifest_bytes = manifest.to_bytes()?;
    let platform = target.platform.clone();
    Ok(Assembled {
        base,
        layers,
        root,
        config_bytes,
        created,
        source_date_epoch,
        platform,
        manifest_bytes,
        attestations: Vec::new(),
    })
}

/// A layer descriptor in the terms of OCI or Docker; the bytes are the same under both.
pub(crate) fn in_family(layer: &Descriptor, family: Family) -> Result<Descriptor, BuildError> {
    match layer_compression(&layer.media_type) {
        Some(compression) => {
            let media_type = family.layer(compression)?.to_owned();
            Ok(Descriptor { media_type, ..layer.clone() })
        }
        None => Ok(layer.clone()),
    }
}

fn base_of(
    graph: &Graph,
    target: &Target,
    images: &ImageSource<'_>,
) -> Result<Option<Arc<Resolved>>, BuildError> {
    let mut at: Option<VertexId> = target.vertex;
    while let Some(id) = at {
        let vertex = graph.vertex(id);
        if let Op::Source(Source::Image { reference, platform }) = &vertex.op {
            return Ok(Some(images.pinned(reference, platform)?));
        }
        at = vertex.inputs.first().copied().filter(|_| vertex.op.has_root());
    }
    Ok(None)
}

/// Gives the new history items their times and returns that of the image.
///
/// A layer's time is when its snapshot was made, so that a build from the cache gives the same
/// image again; instructions without a layer take the time before them. With
/// `SOURCE_DATE_EPOCH` everything has that time.
fn date(
    target: &Target,
    layers: &[Layer],
    config: &mut ImageConfig,
) -> Result<Option<String>, BuildError> {
    let fixed = match target.source_date_epoch {
        Some(seconds) => Some(rfc3339(seconds.saturating_mul(1000))?),
        None => None,
    };
    let mut times = Vec::new();
    for layer in layers {
        times.push(rfc3339(layer.created)?);
    }
    let mut times = times.into_iter();
    let base_time = config.history.iter().take(target.base_history).next_back();
    let mut now = match base_time.and_then(|item| item.created.clone()) {
        Some(time) => time,
        // Nothing to go by: a fixed time rather than one that differs with every build.
        None => times.as_slice().first().cloned().map_or_else(|| rfc3339(0), Ok)?,
    };
    for item in config.history.iter_mut().skip(target.base_history) {
        if !item.empty_layer
            && let Some(time) = times.next()
        {
            now = time;
        }
        item.created = Some(fixed.clone().unwrap_or_else(|| now.clone()));
    }
    Ok(Some(fixed.unwrap_or(now)))
}

fn rfc3339(milliseconds: i64) -> Result<String, BuildError> {
    let time = jiff::Timestamp::from_millisecond(milliseconds).map_err(|error| {
        BuildError::Request { message: format!("time {milliseconds} ms is out of range: {error}") }
    })?;
    Ok(time.to_string())
}

/// Records the image, or the index, in the store and moves the names.
pub(crate) fn publish(
    engine: &Engine,
    product: &Product,
    request: &BuildRequest,
    tags: &[Reference],
    ctx: Ctx<'_>,
) -> Result<BuiltImage, BuildError> {
    let mut documents = Documents::new();
    let manifests = product.images.iter().map(|image| image.manifest_bytes.clone()).collect();
    let around = Around {
        annotations: &product.annotations,
        attestations: Some(AttestationForm::default()),
        names: tags,
    };
    let top = product.top(Family::Oci, manifests, &around, &mut documents)?.descriptor;
    let blobs = engine.store.blobs();
    for (digest, bytes) in &documents {
        if !blobs.contains(digest)? {
            blobs.put(bytes)?;
        }
    }
    let (digest, size, media_type) = (top.digest, top.size, top.media_type.as_str());
    let mut names = tags.to_vec();
    if request.canonical_names {
        names.extend(tags.iter().map(|tag| tag.with_digest(digest)));
    }
    if let (true, Some(name)) = (names.is_empty(), &request.dangling_name) {
        let repository = engine.reference(name).map_err(|error| BuildError::Request {
            message: format!("invalid name {name:?} of an image without tags: {error}"),
        })?;
        names.push(repository.with_digest(digest));
    }
    if names.is_empty() {
        engine.store.tags().add_image(&digest, size, media_type)?;
    }
    for name in &names {
        engine.store.tags().set(name, &digest, size, media_type)?;
    }
    // The digest is one of this store: elsewhere, where layers are compressed, it names nothing.
    names.retain(|name| name.digest().is_none() || tags.is_empty());
    let is_index = media_type != OCI_MANIFEST;
    let config = product.images.first().filter(|_| !is_index).map(Assembled::id);
    let id = config.unwrap_or(digest);
    ctx.report(Event::Image { id, names: names.iter().map(Reference::familiar).collect() });
    Ok(BuiltImage {
        id,
        config_digest: config,
        manifest_digest: digest,
        media_type: top.media_type,
        manifest_size: size,
        platforms: product.images.iter().map(|image| image.platform.clone()).collect(),
        names: names.iter().map(ToString::to_string).collect(),
        exported: None,
    })
}
