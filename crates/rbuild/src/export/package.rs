//! An image as it leaves: documents that name the layers in their new form, and where all bytes
//! are.

use std::collections::HashMap;
use std::io::{self, Read};

use rbuild_image::ImageError;
use rbuild_image::blob::BlobSource;
use rbuild_image::layout::Export;
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_types::{CancelToken, Ctx, Digest, Reference};

use crate::assemble::{Documents, Product};
use crate::export::layers::{self, Leaving, Origin};
use crate::sources::image::ImageSource;
use crate::{BuildError, Engine, LayerForm};

/// Everything that has to leave.
pub(crate) struct Package<'a> {
    pub(super) engine: &'a Engine,
    pub(super) images: &'a ImageSource<'a>,
    /// Each layer once, in the order of the images, bottom first.
    pub(super) layers: Vec<Leaving>,
    by_digest: HashMap<Digest, usize>,
    /// Configs of the images.
    pub(super) configs: Vec<Descriptor>,
    /// Manifests of the images, in their order.
    pub(super) manifests: Vec<Descriptor>,
    /// What the whole is: the manifest, or an index of them.
    pub(super) top: Descriptor,
    documents: Documents,
    created: Option<String>,
    cancel: CancelToken,
}

impl<'a> Package<'a> {
    /// Makes what is missing of the form. Layers of base images are not fetched for that.
    pub(crate) fn new(
        engine: &'a Engine,
        product: &Product,
        form: &LayerForm,
        images: &'a ImageSource<'a>,
        ctx: Ctx<'_>,
    ) -> Result<Self, BuildError> {
        let (mut all, mut by_digest) = (Vec::new(), HashMap::new());
        let (mut configs, mut manifests) = (Vec::new(), Vec::new());
        for image in &product.images {
            let leaving = layers::leaving(engine, image, form, images, ctx)?;
            let descriptors = leaving.iter().map(|layer| layer.descriptor.clone()).collect();
            let config = Descriptor::of(form.family.config(), &image.config_bytes);
            configs.push(config.clone());
            manifests.push(Manifest::new(form.family, config, descriptors).to_bytes()?);
            for layer in leaving {
                by_digest.entry(layer.descriptor.digest).or_insert_with(|| {
                    all.push(layer);
                    all.len() - 1
                });
            }
        }
        let mut documents = Documents::new();
        let of = |bytes: &Vec<u8>| Descriptor::of(form.family.manifest(), bytes);
        let descriptors = manifests.iter().map(of).collect();
        let top = product.top(form.family, manifests, &mut documents)?;
        Ok(Self {
            engine,
            images,
            layers: all,
            by_digest,
            configs,
            manifests: descriptors,
            top,
            documents,
            created: product.created(),
            cancel: ctx.cancel.clone(),
        })
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

    /// A document that was made for this package.
    pub(super) fn document(&self, digest: Digest) -> Result<&[u8], BuildError> {
        let found = self.documents.get(&digest).map(Vec::as_slice);
        Ok(found.ok_or(ImageError::MissingBlob { digest })?)
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
