//! Images made of another one, or of nothing, by one layer more: `commit` and `import`.

use std::sync::Arc;

use rbuild_cache::{SnapshotId, SnapshotMeta};
use rbuild_image::config;
use rbuild_image::layer::{PackOptions, pack};
use rbuild_image::manifest::{Descriptor, Manifest, chain_id, chain_ids};
use rbuild_image::media_type::{Family, OCI_CONFIG, OCI_LAYER};
use rbuild_parser::ast::InstructionKind;
use rbuild_plan::{ImageConfigs, ImageError, Options, ResolvedImage, lower};
use rbuild_rooted::Root;
use rbuild_types::{
    ContainerConfig, Ctx, Diagnostic, Digest, History, ImageConfig, Platform, Reference, Severity,
};

use crate::assemble::in_family;
use crate::sources::image::Resolved;
use crate::{BuildError, Engine};

/// The words of an image that is made by hand.
#[derive(Debug, Clone, Default)]
pub struct ImageWords {
    /// Its name; none when not given.
    pub name: Option<String>,
    /// Who made it.
    pub author: String,
    /// What is said of it.
    pub message: String,
    /// Instructions of a Dockerfile that change the config, as `CMD ["x"]`.
    pub changes: Vec<String>,
}

/// What a layer is put upon.
pub(crate) struct Base {
    pub(crate) image: Arc<Resolved>,
    /// Its layers.
    pub(crate) layers: Vec<SnapshotId>,
}

impl Engine {
    /// Makes an image of `base`'s layers and one more, which `fill` writes in overlay's form, with
    /// what containers of it start with; its id. The caller has a lease.
    pub(crate) fn grow(
        &self,
        base: Option<Base>,
        mut config: ImageConfig,
        words: &ImageWords,
        created_by: String,
        fill: &mut dyn FnMut(&Root) -> Result<(), BuildError>,
        ctx: Ctx<'_>,
    ) -> Result<Digest, BuildError> {
        let name = words.name.as_deref().map(|name| self.reference(name)).transpose();
        let name = name.map_err(|error| BuildError::Request { message: error.to_string() })?;
        config.config = changed(&config, &words.changes)?;
        let (diff_id, tar_size) = self.layer(base.as_ref(), fill, ctx)?;
        config::complete_history(&mut config);
        let created = jiff::Timestamp::now().to_string();
        if !words.author.is_empty() {
            config.author = words.author.clone();
        }
        config.history.push(History {
            created: Some(created.clone()),
            created_by,
            author: words.author.clone(),
            comment: words.message.clone(),
            empty_layer: false,
        });
        let mut diff_ids = Vec::new();
        let mut layers = Vec::new();
        if let Some(Base { image, .. }) = &base {
            diff_ids.extend(&image.config.rootfs.diff_ids);
            for layer in &image.manifest.layers {
                layers.push(in_family(layer, Family::Oci)?);
            }
        }
        diff_ids.push(diff_id);
        layers.push(Descriptor::new(OCI_LAYER, diff_id, tar_size));
        let config_bytes = config::assemble(&config, &diff_ids, Some(&created))?;
        let manifest =
            Manifest::new(Family::Oci, Descriptor::of(OCI_CONFIG, &config_bytes), layers);
        self.publish_made(&config_bytes, manifest, name.as_ref())
    }

    /// Makes the layer a snapshot; its diff id and the bytes of its tar.
    fn layer(
        &self,
        base: Option<&Base>,
        fill: &mut dyn FnMut(&Root) -> Result<(), BuildError>,
        ctx: Ctx<'_>,
    ) -> Result<(Digest, u64), BuildError> {
        let io = |source| BuildError::Io { what: "make a snapshot".to_owned(), source };
        let snapshots = self.store.snapshots();
        let new = snapshots.allocate("layer", ctx.cancel)?;
        let tree = new.path().join("fs");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::create_dir(&tree).map_err(io)?;
        fs_err::set_permissions(&tree, mode).map_err(io)?;
        let root = Root::open(&tree)?;
        fill(&root)?;
        // What the image is packed from when it leaves.
        let options = PackOptions { write_back: true, ..PackOptions::default() };
        let packed = pack(&root, &options, &mut std::io::sink(), ctx.cancel)?;
        let upon = base.and_then(|base| chain_ids(&base.image.config.rootfs.diff_ids).pop());
        let meta = SnapshotMeta {
            parent: base.and_then(|base| base.layers.last().cloned()),
            chain_id: Some(chain_id(upon.as_ref(), &packed.diff_id)),
            diff_id: Some(packed.diff_id),
            tar_size: Some(packed.size),
            ..SnapshotMeta::default()
        };
        drop(root);
        snapshots.publish(new, meta)?;
        Ok((packed.diff_id, packed.size))
    }

    fn publish_made(
        &self,
        config: &[u8],
        manifest: Manifest,
        name: Option<&Reference>,
    ) -> Result<Digest, BuildError> {
        let blobs = self.store.blobs();
        blobs.put(config)?;
        let bytes = manifest.to_bytes()?;
        blobs.put(&bytes)?;
        let top = Descriptor::of(Family::Oci.manifest(), &bytes);
        let tags = self.store.tags();
        match name {
            Some(name) => tags.set(name, &top.digest, top.size, &top.media_type)?,
            None => tags.add_image(&top.digest, top.size, &top.media_type)?,
        }
        Ok(Digest::of(config))
    }
}

/// The config of containers with the changes that instructions make.
fn changed(config: &ImageConfig, changes: &[String]) -> Result<ContainerConfig, BuildError> {
    if changes.is_empty() {
        return Ok(config.config.clone());
    }
    let text = format!("FROM image\n{}\n", changes.join("\n"));
    let wrong = |diagnostics: Vec<Diagnostic>| {
        let why = diagnostics.iter().find(|one| one.severity == Severity::Error);
        let why = why.map_or("it cannot be understood", |one| one.message.as_str());
        BuildError::Request { message: format!("--change {}: {why}", changes.join("; ")) }
    };
    let (dockerfile, diagnostics) = rbuild_parser::parse(&text);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(wrong(diagnostics));
    }
    let stages = dockerfile.stages.as_slice();
    let [stage] = stages else { return Err(not_a_change("FROM")) };
    for instruction in &stage.instructions {
        use InstructionKind as Kind;
        match instruction.kind {
            Kind::Cmd { .. }
            | Kind::Entrypoint { .. }
            | Kind::Env { .. }
            | Kind::Expose { .. }
            | Kind::Healthcheck(_)
            | Kind::Label { .. }
            | Kind::Onbuild { .. }
            | Kind::Stopsignal { .. }
            | Kind::User { .. }
            | Kind::Volume { .. }
            | Kind::Workdir { .. } => {}
            _ => return Err(not_a_change(&instruction.keyword.value)),
        }
    }
    let images = Only(config);
    let options = Options { platforms: vec![config.platform()], ..Options::default() };
    let plan = lower(&text, &dockerfile, &options, &images).map_err(wrong)?;
    let target = plan.targets.into_iter().next();
    Ok(target.map(|target| target.config.config).unwrap_or_default())
}

fn not_a_change(keyword: &str) -> BuildError {
    let message = format!(
        "--change {keyword}: there are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, \
         STOPSIGNAL, USER, VOLUME and WORKDIR"
    );
    BuildError::Request { message }
}

/// The one image that there is.
struct Only<'a>(&'a ImageConfig);

impl ImageConfigs for Only<'_> {
    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let config = self.0.clone();
        Ok(ResolvedImage { reference: reference.clone(), platform: platform.clone(), config })
    }
}
