//! Images as OCI layouts, OCI archives and `docker load` archives.

use std::io::Read;

use rbuild_cache::Store;
use rbuild_image::blob::BlobSource;
use rbuild_image::layout::{Export, Layout};
use rbuild_image::manifest::{Descriptor, Manifest};
use rbuild_image::media_type::{Family, OCI_CONFIG};
use rbuild_image::{ImageError, write_docker_archive, write_oci_archive};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Digest, Reference};

use crate::assemble::{Documents, Product};
use crate::export::{layers, to};
use crate::sources::image::ImageSource;
use crate::{BuildError, Engine, Output};

pub(crate) fn write(
    engine: &Engine,
    output: &Output,
    product: &Product,
    tags: &[Reference],
    images: &ImageSource<'_>,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    let mut manifests = Vec::new();
    for image in &product.images {
        let descriptors = layers::descriptors(engine, image, images, ctx)?;
        let config = Descriptor::of(OCI_CONFIG, &image.config_bytes);
        manifests.push(Manifest::new(Family::Oci, config, descriptors).to_bytes()?);
    }
    let mut documents = Documents::new();
    let descriptor = product.top(manifests, &mut documents)?;
    let export = Export { descriptor, names: tags.to_vec(), created: product.created() };
    let blobs = Blobs { documents, store: &engine.store };
    let exports = [export];
    match output {
        Output::OciArchive(destination) => {
            to(destination, &mut |sink| Ok(write_oci_archive(&exports, &blobs, sink, ctx.cancel)?))
        }
        Output::DockerArchive(destination) => to(destination, &mut |sink| {
            Ok(write_docker_archive(&exports, &blobs, sink, ctx.cancel)?)
        }),
        Output::OciLayout(path) => {
            fs_err::create_dir_all(path).map_err(|source| BuildError::Io {
                what: format!("make {}", path.display()),
                source,
            })?;
            Ok(Layout::write(&Root::open(path)?, &exports, &blobs, ctx.cancel)?)
        }
        Output::Tar(_) | Output::Directory(_) => Ok(()),
    }
}

/// Documents that were just made, and blobs of the store.
struct Blobs<'a> {
    documents: Documents,
    store: &'a Store,
}

impl BlobSource for Blobs<'_> {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + '_>, ImageError> {
        match self.documents.get(&digest) {
            Some(bytes) => Ok(Box::new(bytes.as_slice())),
            None => match self.store.blobs().open(&digest) {
                Ok(file) => Ok(Box::new(file)),
                Err(_) => Err(ImageError::MissingBlob { digest }),
            },
        }
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        match self.documents.get(&digest) {
            Some(bytes) => Ok(bytes.len() as u64),
            None => {
                let size = self.store.blobs().size(&digest).ok().flatten();
                size.ok_or(ImageError::MissingBlob { digest })
            }
        }
    }
}
