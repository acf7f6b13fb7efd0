//! Images as OCI layouts, OCI archives and `docker load` archives.

use std::path::Path;

use rbuild_image::layout::Layout;
use rbuild_image::{write_docker_archive, write_oci_archive};
use rbuild_rooted::Root;
use rbuild_types::{Ctx, Reference};

use crate::export::package::Package;
use crate::export::to;
use crate::{BuildError, Destination};

pub(super) fn oci(
    package: &Package<'_>,
    tags: &[Reference],
    destination: &Destination,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    package.fetch(ctx)?;
    let exports = [package.export(tags)];
    to(destination, &mut |sink| Ok(write_oci_archive(&exports, package, sink, ctx.cancel)?))
}

pub(super) fn docker(
    package: &Package<'_>,
    tags: &[Reference],
    destination: &Destination,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    package.fetch(ctx)?;
    let exports = [package.export(tags)];
    to(destination, &mut |sink| Ok(write_docker_archive(&exports, package, sink, ctx.cancel)?))
}

pub(super) fn layout(
    package: &Package<'_>,
    tags: &[Reference],
    path: &Path,
    ctx: Ctx<'_>,
) -> Result<(), BuildError> {
    package.fetch(ctx)?;
    fs_err::create_dir_all(path)
        .map_err(|source| BuildError::Io { what: format!("make {}", path.display()), source })?;
    Ok(Layout::write(&Root::open(path)?, &[package.export(tags)], package, ctx.cancel)?)
}
