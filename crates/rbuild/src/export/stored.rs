//! Images of the store as they leave.
//!
//! What need not change leaves as it came, byte for byte: the documents of an image that was pulled
//! or loaded name layers that are sent as they are. Layers that are trees, or came uncompressed out
//! of an archive, are compressed; then the manifest is another, and so is every index above it. What
//! is attached to a manifest by its digest, such as an attestation, follows it.

use std::sync::Arc;

use rbuild_image::ImageError;
use rbuild_image::config::{parse_config, with_diff_ids};
use rbuild_image::index::{Index, is_attached, pick};
use rbuild_image::manifest::{Descriptor, DescriptorPlatform, Document, Manifest, parse_manifest};
use rbuild_image::media_type::{DocumentKind, Family, document_kind};
use rbuild_types::{Ctx, Digest, Platform, Reference};

use crate::assemble::newest;
use crate::export::attached::{self, Renewed};
use crate::export::layers::{self, Leaving, Origin};
use crate::export::package::Package;
use crate::sources::image::{ImageSource, MAX_DOCUMENT, MAX_INDEX_DEPTH, Resolved, too_deep};
use crate::{BuildError, Encoding, Engine, LayerForm};

/// How an image of the store is written when it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageForm {
    /// How layers are compressed that are not: those that were made here, and those that came
    /// uncompressed. Gzip unless said otherwise.
    pub encoding: Encoding,
    /// Whether all other layers get this form too; else they leave as they came.
    pub force: bool,
    /// Whose media types the documents have; `None` leaves them as they are, but for
    /// [`Encoding::Estargz`], which takes OCI's.
    pub family: Option<Family>,
}

impl Default for ImageForm {
    fn default() -> Self {
        Self { encoding: Encoding::GZIP, force: false, family: None }
    }
}

/// Which of the images in an index leave.
#[derive(Debug, Clone, Default)]
pub(crate) enum Chosen {
    /// All of them, and the index.
    #[default]
    All,
    /// The one for a platform, without an index.
    One(Platform),
    /// That for this machine where there are several; where there is one, that.
    Runs,
}

/// An image of the store.
pub(crate) struct StoredImage<'s> {
    /// Its manifest or index.
    pub(crate) top: Descriptor,
    /// Where layers that are not here may be had.
    pub(crate) from: &'s Reference,
    pub(crate) chosen: Chosen,
}

impl<'a> Package<'a> {
    /// An image of the store. Makes what is missing of the form; fetches no layer for that.
    pub(crate) fn stored(
        engine: &'a Engine,
        image: &StoredImage<'_>,
        form: &ImageForm,
        images: &'a ImageSource<'a>,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let mut package = Self::empty(engine, images, ctx);
        let top = match &image.chosen {
            Chosen::All => image.top.clone(),
            Chosen::One(platform) => one(engine, &image.top, platform, true)?,
            Chosen::Runs => one(engine, &image.top, &Platform::host(), false)?,
        };
        let mut walk =
            Walk { package: &mut package, form, from: image.from, images: Vec::new(), ctx };
        let mut top = walk.document(&top, 0)?;
        let seen = walk.images;
        package.created = newest(seen.iter().filter_map(|image| image.config.created.as_ref()));
        if let ([only], Some((DocumentKind::Manifest, _))) =
            (seen.as_slice(), document_kind(&top.media_type))
        {
            top.platform = Some(DescriptorPlatform::from(&only.platform));
        }
        package.top = top;
        Ok(package)
    }
}

/// The manifest for a platform below a descriptor.
fn one(
    engine: &Engine,
    top: &Descriptor,
    platform: &Platform,
    must_fit: bool,
) -> Result<Descriptor, BuildError> {
    let mut at = top.clone();
    for _ in 0..=MAX_INDEX_DEPTH {
        match parse_manifest(&document(engine, at.digest)?, Some(&at.media_type))? {
            Document::Manifest(manifest) => {
                if must_fit && manifest.is_image() {
                    let config = parse_config(&document(engine, manifest.config.digest)?)?;
                    let found = config.platform();
                    if !found.satisfies(platform) {
                        let (wanted, found) = (platform.clone(), vec![found]);
                        return Err(ImageError::NoPlatform { wanted, found }.into());
                    }
                }
                return Ok(Descriptor::new(at.media_type, at.digest, at.size));
            }
            Document::Index(index) => at = pick(&index, platform)?.clone(),
        }
    }
    Err(too_deep().into())
}

/// Goes through the documents below a descriptor.
struct Walk<'w, 'a> {
    package: &'w mut Package<'a>,
    form: &'w ImageForm,
    from: &'w Reference,
    /// Those that it came across.
    images: Vec<Arc<Resolved>>,
    ctx: Ctx<'w>,
}

impl Walk<'_, '_> {
    /// Adds a manifest or an index with all below it, and says what it is as it leaves.
    fn document(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<Descriptor, BuildError> {
        if depth > MAX_INDEX_DEPTH {
            return Err(too_deep().into());
        }
        self.ctx.cancel.check()?;
        let bytes = document(self.package.engine, descriptor.digest)?;
        let media_type = Some(descriptor.media_type.as_str());
        let left = match parse_manifest(&bytes, media_type)? {
            Document::Index(index) => self.index(&index, bytes, depth)?,
            Document::Manifest(manifest) if manifest.is_image() => {
                self.image(descriptor.digest, &manifest, bytes)?
            }
            Document::Manifest(manifest) => self.artifact(&manifest, bytes)?,
        };
        if !self.package.manifests.contains(&left) {
            self.package.manifests.push(left.clone());
        }
        Ok(Descriptor {
            media_type: left.media_type,
            digest: left.digest,
            size: left.size,
            ..descriptor.clone()
        })
    }

    fn index(
        &mut self,
        index: &Index,
        bytes: Vec<u8>,
        depth: usize,
    ) -> Result<Descriptor, BuildError> {
        let mut renewed = Renewed::new();
        let mut children = index.manifests.clone();
        for child in children.iter_mut().filter(|child| !is_attached(child)) {
            let left = self.document(child, depth + 1)?;
            if left.digest != child.digest {
                renewed.insert(child.digest, left.clone());
            }
            *child = left;
        }
        // They name those above, wherever they stand.
        for child in children.iter_mut().filter(|child| is_attached(child)) {
            *child = match renewed.is_empty() {
                true => self.document(child, depth + 1)?,
                false => attached::add(self.package, child, &renewed, self.ctx)?,
            };
        }
        let family = self.family(index.media_type());
        let media_type = family.index();
        if children == index.manifests && media_type == index.media_type() {
            return Ok(self.package.add_document(media_type, bytes));
        }
        let changed =
            Index { media_type: Some(media_type.to_owned()), manifests: children, ..index.clone() };
        Ok(self.package.add_document(media_type, changed.to_bytes()?))
    }

    fn image(
        &mut self,
        digest: Digest,
        manifest: &Manifest,
        bytes: Vec<u8>,
    ) -> Result<Descriptor, BuildError> {
        let engine = self.package.engine;
        let images = self.package.images;
        // Those in a list may have come from several repositories.
        let known = engine.store.tags().remembered_as(&digest)?;
        let image = images.load(known.first().unwrap_or(self.from), digest)?;
        let family = self.family(manifest.media_type());
        let ImageForm { encoding, force, .. } = *self.form;
        let form = LayerForm { encoding, force, family, ..LayerForm::default() };
        let leaving = layers::of_image(engine, &image, &form, images, self.ctx)?;
        self.images.push(image);
        let descriptors: Vec<_> = leaving.iter().map(|layer| layer.descriptor.clone()).collect();
        let config = document(engine, manifest.config.digest)?;
        let config = with_diff_ids(config, leaving.iter().map(|layer| layer.diff_id))?;
        let Descriptor { digest, size, .. } = self.package.add_document(family.config(), config);
        let media_type = family.config().to_owned();
        let config = Descriptor { media_type, digest, size, ..manifest.config.clone() };
        self.package.add_layers(leaving);
        self.package.add_config(&config);
        let media_type = family.manifest();
        let is_same = media_type == manifest.media_type()
            && config == manifest.config
            && descriptors == manifest.layers;
        let bytes = match is_same {
            true => bytes,
            false => Manifest {
                media_type: Some(media_type.to_owned()),
                config,
                layers: descriptors,
                ..manifest.clone()
            }
            .to_bytes()?,
        };
        Ok(self.package.add_document(media_type, bytes))
    }

    /// What is no image leaves as it is.
    fn artifact(&mut self, manifest: &Manifest, bytes: Vec<u8>) -> Result<Descriptor, BuildError> {
        let blobs = self.package.engine.store.blobs();
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let mut leaving = Vec::new();
        for part in parts {
            if !blobs.contains(&part.digest)? {
                return Err(ImageError::MissingBlob { digest: part.digest }.into());
            }
            let (descriptor, diff_id) = (part.clone(), part.digest);
            leaving.push(Leaving { descriptor, diff_id, origin: Origin::Blob });
        }
        self.package.add_layers(leaving);
        Ok(self.package.add_document(manifest.media_type(), bytes))
    }

    fn family(&self, media_type: &str) -> Family {
        // Documents of Docker have no place for what is said of eStargz layers.
        let is_free = !self.form.encoding.is_estargz();
        let own = || document_kind(media_type).map(|(_, family)| family).filter(|_| is_free);
        self.form.family.or_else(own).unwrap_or_default()
    }
}

fn document(engine: &Engine, digest: Digest) -> Result<Vec<u8>, BuildError> {
    Ok(engine.store.blobs().read_small(&digest, MAX_DOCUMENT)?)
}
