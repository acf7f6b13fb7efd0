//! An image as it leaves: documents that name the layers in their new form, and where all bytes
//! are.

use std::collections::HashMap;
use std::io::{self, Read};

use rbuild_image::ImageError;
use rbuild_image::blob::BlobSource;
use rbuild_image::config::with_diff_ids;
use rbuild_image::layout::Export;
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_types::{CancelToken, Ctx, Digest, Reference};

use crate::assemble::{Around, Documents, Product, add_document};
use crate::export::layers::{self, Leaving, Origin};
use crate::sources::image::ImageSource;
use crate::{
    AnnotationPlace, BuildError, Engine, Export as Wanted, ExportedImage, Output, annotation,
};

/// Everything that has to leave.
pub(crate) struct Package<'a> {
    pub(super) engine: &'a Engine,
    pub(super) images: &'a ImageSource<'a>,
    /// Each layer once, in the order of the images, bottom first.
    pub(super) layers: Vec<Leaving>,
    by_digest: HashMap<Digest, usize>,
    /// Configs of the images, and what attestations name: blobs among the documents.
    pub(super) configs: Vec<Descriptor>,
    /// Manifests, and indexes below the top, each after what it names.
    pub(super) manifests: Vec<Descriptor>,
    /// What the whole is: the manifest, or an index of them.
    pub(crate) top: Descriptor,
    pub(super) documents: Documents,
    pub(super) created: Option<String>,
    cancel: CancelToken,
}

impl<'a> Package<'a> {
    /// What a build made, under these names. Makes what is missing of the form.
    /// Layers of base images are not fetched for that.
    pub(crate) fn new(
        engine: &'a Engine,
        product: &Product,
        wanted: &Wanted,
        names: &[Reference],
        images: &'a ImageSource<'a>,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let mut package = Self::empty(engine, images, ctx);
        let (form, mut manifests) = (&wanted.layers, Vec::new());
        let annotations = [product.annotations.as_slice(), &wanted.annotations].concat();
        for image in &product.images {
            let leaving = layers::leaving(engine, image, form, images, ctx)?;
            let descriptors = leaving.iter().map(|layer| layer.descriptor.clone()).collect();
            let diff_ids = leaving.iter().map(|layer| layer.diff_id);
            let config = with_diff_ids(image.config_bytes.clone(), diff_ids)?;
            let config = package.add_document(form.family.config(), config);
            package.configs.push(config.clone());
            let mut manifest = Manifest::new(form.family, config, descriptors);
            let place = AnnotationPlace::Manifest;
            manifest.annotations = annotation::of(&annotations, place, Some(&image.platform));
            manifests.push(manifest.to_bytes()?);
            package.add_layers(leaving);
        }
        let of = |bytes: &Vec<u8>| Descriptor::of(form.family.manifest(), bytes);
        package.manifests = manifests.iter().map(of).collect();
        // An archive for `docker load` has no place for attestations.
        let is_docker = matches!(wanted.output, Output::DockerArchive(_));
        let attestations = Some(form.attestations).filter(|_| !is_docker);
        let around = Around { annotations: &annotations, attestations, names };
        let top = product.top(form.family, manifests, &around, &mut package.documents)?;
        package.top = top.descriptor;
        package.manifests.extend(top.attached);
        package.configs.extend(top.blobs);
        package.created = product.created();
        Ok(package)
    }

    /// To be filled.
    pub(super) fn empty(engine: &'a Engine, images: &'a ImageSource<'a>, ctx: Ctx<'_>) -> Self {
        Self {
            engine,
            images,
            layers: Vec::new(),
            by_digest: HashMap::new(),
            configs: Vec::new(),
            manifests: Vec::new(),
            top: Descriptor::of("", b""),
            documents: Documents::new(),
            created: None,
            cancel: ctx.cancel.clone(),
        }
    }

    /// Adds those layers that are sent and not there yet.
    pub(super) fn add_layers(&mut self, layers: Vec<Leaving>) {
        for layer in layers {
            if matches!(layer.origin, Origin::Elsewhere) {
                continue;
            }
            self.by_digest.entry(layer.descriptor.digest).or_insert_with(|| {
                self.layers.push(layer);
                self.layers.len() - 1
            });
        }
    }

    /// Adds a config that is not there yet. Several images may have one.
    pub(super) fn add_config(&mut self, config: &Descriptor) {
        if self.configs.iter().all(|known| known.digest != config.digest) {
            self.configs.push(config.clone());
        }
    }

    /// Adds a document with these bytes.
    pub(super) fn add_document(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        add_document(&mut self.documents, media_type, bytes)
    }

    /// Fetches what still lies at the registries of base images: an archive holds all.
    pub(super) fn fetch(&self, ctx: Ctx<'_>) -> Result<(), BuildError> {
        for layer in &self.layers {
            if let Origin::Base(image, descriptor) = &layer.origin {
                self.images.fetch_layer(image, descriptor, ctx)?;
            }
        }
        Ok(())
    }

    /// The whole under its names.
    pub(super) fn export(&self, tags: &[Reference]) -> Export {
        let (descriptor, created) = (self.top.clone(), self.created.clone());
        Export { descriptor, names: tags.to_vec(), created }
    }

    /// The whole as it left.
    pub(super) fn exported(self) -> ExportedImage {
        let is_image = self.manifests.iter().all(|manifest| manifest.digest == self.top.digest);
        let config = self.configs.first().filter(|_| is_image);
        let config_digest = config.map(|config| config.digest);
        let Descriptor { digest, media_type, size, annotations, .. } = self.top;
        ExportedImage { digest, media_type, size, annotations, config_digest }
    }

    /// A document that was made for this package.
    pub(super) fn document(&self, digest: Digest) -> Result<&[u8], BuildError> {
        let found = self.documents.get(&digest).map(Vec::as_slice);
        Ok(found.ok_or(ImageError::MissingBlob { digest })?)
    }

    /// Whether it has the bytes of this digest.
    pub(super) fn holds(&self, digest: Digest) -> bool {
        self.documents.contains_key(&digest) || self.by_digest.contains_key(&digest)
    }

    fn layer(&self, digest: Digest) -> Option<&Leaving> {
        self.layers.get(*self.by_digest.get(&digest)?)
    }
}

impl BlobSource for Package<'_> {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        match (self.documents.get(&digest), self.layer(digest)) {
            (Some(bytes), _) => Ok(Box::new(bytes.as_slice())),
            (None, Some(layer)) => {
                let subject = format!("layer {}", digest.short());
                let failed = |source| ImageError::Io { action: "read", subject, source };
                layer.open(self.engine, &self.cancel).map_err(failed)
            }
            (None, None) => Err(ImageError::MissingBlob { digest }),
        }
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        match (self.documents.get(&digest), self.layer(digest)) {
            (Some(bytes), _) => Ok(bytes.len() as u64),
            (None, Some(layer)) => Ok(layer.descriptor.size),
            (None, None) => Err(ImageError::MissingBlob { digest }),
        }
    }
}

/// Passes over the first `count` bytes.
pub(super) fn skip<'r>(
    mut reader: Box<dyn Read + 'r>,
    count: u64,
) -> io::Result<Box<dyn Read + 'r>> {
    io::copy(&mut reader.by_ref().take(count), &mut io::sink())?;
    Ok(reader)
}
