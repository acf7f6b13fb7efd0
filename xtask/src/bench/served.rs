//! An image in a registry, for those who pull it.

use std::path::Path;

use super::contexts;
use crate::failure::Outcome;
use crate::rbuild::Rbuild;
use crate::registry::Registry;

/// A registry with one image, which goes with this value.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) reference: String,
    _registry: Registry,
}

impl Served {
    /// Builds `context` and serves what it gives, with layers compressed by gzip.
    pub(crate) fn start(context: &Path, dir: &Path) -> Outcome<Self> {
        let rbuild = Rbuild::release(dir.join("rbuild"))?;
        rbuild.build_busybox()?;
        let dockerfile = contexts::dockerfile(context, "served", "served")?;
        let archive = dir.join("served.tar");
        let build = rbuild.cmd("build").words("-q --network host -f").arg(dockerfile);
        let output = format!("type=oci,dest={},compression=gzip", archive.display());
        build.arg("-o").arg(output).arg(context).output()?;
        let registry = Registry::start(&dir.join("registry"))?;
        registry.push(&format!("oci-archive:{}", archive.display()), "served:latest")?;
        Ok(Self { reference: registry.reference("served:latest"), _registry: registry })
    }
}
