//! Images as OCI layouts, OCI archives and `docker load` archives.

use std::io::Read;
use std::path::Path;

use rbuild_image::blob::BlobSource;
use rbuild_image::layout::{Export, Layout};
use rbuild_image::{ImageError, write_docker_archive, write_oci_archive};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Digest, Reference};

use crate::export::package::Package;
use crate::export::to;
use crate::{BuildError, Destination};

/// Images that go into one archive or layout, with their names there.
pub(crate) struct Parcel<'p, 'a>(pub(crate) Vec<(&'p Package<'a>, Vec<Reference>)>);

impl Parcel<'_, '_> {
    pub(crate) fn to_oci(&self, destination: &Destination, ctx: Ctx<'_>) -> Result<(), BuildError> {
        let exports = self.fetched(ctx)?;
        to(destination, &mut |sink| Ok(write_oci_archive(&exports, self, sink, ctx.cancel)?))
    }

    pub(crate) fn to_docker(
        &self,
        destination: &Destination,
        ctx: Ctx<'_>,
    ) -> Result<(), BuildError> {
        let exports = self.fetched(ctx)?;
        to(destination, &mut |sink| Ok(write_docker_archive(&exports, self, sink, ctx.cancel)?))
    }

    pub(crate) fn to_layout(&self, path: &Path, ctx: Ctx<'_>) -> Result<(), BuildError> {
        let exports = self.fetched(ctx)?;
        fs_err::create_dir_all(path).map_err(|source| BuildError::Io {
            what: format!("make {}", path.display()),
            source,
        })?;
        Ok(Layout::write(&Root::open(path)?, &exports, self, ctx.cancel)?)
    }

    /// An archive holds everything: what lies elsewhere is fetched.
    fn fetched(&self, ctx: Ctx<'_>) -> Result<Vec<Export>, BuildError> {
        let mut exports = Vec::new();
        for (package, names) in &self.0 {
            package.fetch(ctx)?;
            exports.push(package.export(names));
        }
        Ok(exports)
    }

    fn holder(&self, digest: Digest) -> Result<&Package<'_>, ImageError> {
        let mut packages = self.0.iter().map(|(package, _)| *package);
        let found = packages.find(|package| package.holds(digest));
        found.ok_or(ImageError::MissingBlob { digest })
    }
}

impl BlobSource for Parcel<'_, '_> {
    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send + '_>, ImageError> {
        self.holder(digest)?.open(digest)
    }

    fn size(&self, digest: Digest) -> Result<u64, ImageError> {
        self.holder(digest)?.size(digest)
    }
}
