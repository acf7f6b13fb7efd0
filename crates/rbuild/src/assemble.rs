//! From a solved plan to the image in the store: config, history, manifest, names.

use std::sync::Arc;

use rbuild_image::config;
use rbuild_image::layer::FileTimes;
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_image::media_type::{Family, OCI_CONFIG, OCI_LAYER, layer_compression};
use rbuild_plan::op::{Op, Source};
use rbuild_plan::{Plan, VertexId};
use rbuild_solver::{Layer, Solution};
use rbuild_types::{Ctx, Digest, Event, ImageConfig, Platform, Reference};

use crate::sources::image::{ImageSource, Resolved};
use crate::{BuildError, BuiltImage, Engine};

/// An image made of a base image's layers and our own.
pub(crate) struct Assembled {
    pub(crate) base: Option<Arc<Resolved>>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) created: Option<String>,
    /// `SOURCE_DATE_EPOCH`, if there is one.
    source_date_epoch: Option<i64>,
    pub(crate) platform: Platform,
    /// The manifest as the store keeps it: our own layers uncompressed, since they are trees.
    pub(crate) manifest_bytes: Vec<u8>,
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

/// Puts config and manifest together.
pub(crate) fn image(
    engine: &Engine,
    plan: &Plan,
    solution: &Solution,
    images: &ImageSource<'_>,
) -> Result<Assembled, BuildError> {
    let base = base_of(plan, images)?;
    let layers = solution.layers.clone();
    let mut diff_ids =
        base.as_ref().map(|base| base.config.rootfs.diff_ids.clone()).unwrap_or_default();
    diff_ids.extend(layers.iter().map(|layer| layer.diff_id));

    let mut config = plan.config.clone();
    let created = date(engine, plan, &layers, &mut config)?;
    let source_date_epoch = plan.source_date_epoch;
    let config_bytes = config::assemble(&config, &diff_ids, created.as_deref())?;

    let mut descriptors = Vec::new();
    for layer in base.iter().flat_map(|base| &base.manifest.layers) {
        descriptors.push(as_oci(layer)?);
    }
    descriptors.extend(
        layers.iter().map(|layer| Descriptor::new(OCI_LAYER, layer.diff_id, layer.tar_size)),
    );
    let config_descriptor = Descriptor::of(OCI_CONFIG, &config_bytes);
    let manifest = Manifest::new(Family::Oci, config_descriptor, descriptors);
    let manifest_bytes = manifest.to_bytes()?;
    let platform = plan.platform.clone();
    Ok(Assembled {
        base,
        layers,
        config_bytes,
        created,
        source_date_epoch,
        platform,
        manifest_bytes,
    })
}

/// A layer descriptor in OCI's terms; the bytes are the same under Docker's.
pub(crate) fn as_oci(layer: &Descriptor) -> Result<Descriptor, BuildError> {
    match layer_compression(&layer.media_type) {
        Some(compression) => {
            Ok(Descriptor::new(Family::Oci.layer(compression)?, layer.digest, layer.size))
        }
        None => Ok(layer.clone()),
    }
}

fn base_of(plan: &Plan, images: &ImageSource<'_>) -> Result<Option<Arc<Resolved>>, BuildError> {
    let mut at: Option<VertexId> = plan.target;
    while let Some(id) = at {
        let vertex = plan.graph.vertex(id);
        let has_root = match &vertex.op {
            Op::Source(Source::Image { reference, platform }) => {
                return Ok(Some(images.pinned(reference, platform)?));
            }
            Op::Source(Source::Http(_) | Source::Git(_)) => false,
            Op::Run(run) => run.has_root,
            Op::Copy(copy) => copy.has_root,
            Op::Mkdir(mkdir) => mkdir.has_root,
        };
        at = vertex.inputs.first().copied().filter(|_| has_root);
    }
    Ok(None)
}

/// Gives the new history items their times and returns that of the image.
///
/// A layer's time is when its snapshot was made, so that a build from the cache gives the same
/// image again; instructions without a layer take the time before them. With
/// `SOURCE_DATE_EPOCH` everything has that time.
fn date(
    engine: &Engine,
    plan: &Plan,
    layers: &[Layer],
    config: &mut ImageConfig,
) -> Result<Option<String>, BuildError> {
    let fixed = match plan.source_date_epoch {
        Some(seconds) => Some(rfc3339(seconds.saturating_mul(1000))?),
        None => None,
    };
    let mut times = Vec::new();
    for layer in layers {
        let snapshot = engine.store.snapshots().meta(&layer.snapshot)?;
        times.push(rfc3339(snapshot.map_or(0, |snapshot| snapshot.created))?);
    }
    let mut times = times.into_iter();
    let base_time = config.history.iter().take(plan.base_history).next_back();
    let mut now = match base_time.and_then(|item| item.created.clone()) {
        Some(time) => time,
        // Nothing to go by: a fixed time rather than one that differs with every build.
        None => times.as_slice().first().cloned().map_or_else(|| rfc3339(0), Ok)?,
    };
    for item in config.history.iter_mut().skip(plan.base_history) {
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

/// Records the image in the store and moves the names.
pub(crate) fn publish(
    engine: &Engine,
    image: &Assembled,
    tags: &[Reference],
    ctx: Ctx<'_>,
) -> Result<BuiltImage, BuildError> {
    let blobs = engine.store.blobs();
    for bytes in [&image.config_bytes, &image.manifest_bytes] {
        if !blobs.contains(&Digest::of(bytes))? {
            blobs.put(bytes)?;
        }
    }
    let manifest = Digest::of(&image.manifest_bytes);
    let size = image.manifest_bytes.len() as u64;
    let media_type = Family::Oci.manifest();
    if tags.is_empty() {
        engine.store.tags().add_image(&manifest, size, media_type)?;
    }
    for tag in tags {
        engine.store.tags().set(tag, &manifest, size, media_type)?;
    }
    let names = tags.iter().map(Reference::familiar).collect();
    ctx.report(Event::Image { id: image.id(), names });
    Ok(BuiltImage {
        id: image.id(),
        manifest_digest: manifest,
        media_type: media_type.to_owned(),
        manifest_size: size,
        platform: image.platform.clone(),
        names: tags.iter().map(ToString::to_string).collect(),
    })
}
