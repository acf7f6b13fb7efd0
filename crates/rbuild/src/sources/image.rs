//! Base images: found in the store first, asked of the registry only when they are not there.
//!
//! Looking an image up needs its manifest and config, two small documents. Its layers are another
//! matter: [`super::layers`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_cache::Store;
use rbuild_image::ImageError;
use rbuild_image::config::{complete_history, parse_config};
use rbuild_image::index::pick;
use rbuild_image::manifest::{Document, Manifest, parse_manifest};
use rbuild_plan::{ImageConfigs, ResolvedImage};
use rbuild_registry::RegistryError;
use rbuild_types::{Ctx, Digest, ImageConfig, Platform, Reference, ReferenceError};

use super::layout::LayoutImage;
use crate::lock_file::Lock;
use crate::{BuildError, Engine, Pull};

/// Largest manifest or config that is read (R4 of the threat register).
pub(crate) const MAX_DOCUMENT: usize = 4 << 20;
/// Indexes inside indexes that are followed.
pub(crate) const MAX_INDEX_DEPTH: usize = 3;

/// An image that was looked up.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// What was asked for, pinned to the manifest.
    pub(crate) reference: Reference,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
}

/// Looks images up for one build or one container.
pub(crate) struct ImageSource<'a> {
    pub(crate) engine: &'a Engine,
    pub(super) pull: Pull,
    ctx: Ctx<'a>,
    /// Layouts by the repository that stands for them.
    pub(super) layouts: HashMap<String, LayoutImage>,
    /// What images are taken in the place of what their names stand for.
    lock: Option<Arc<Lock>>,
    /// By manifest digest.
    resolved: Mutex<HashMap<Digest, Arc<Resolved>>>,
}

impl<'a> ImageSource<'a> {
    pub(crate) fn new(engine: &'a Engine, pull: Pull, ctx: Ctx<'a>) -> Self {
        let (layouts, resolved) = (HashMap::new(), Mutex::default());
        Self { engine, pull, ctx, layouts, lock: None, resolved }
    }

    /// Takes the images that a lock file names.
    pub(crate) fn with_lock(self, lock: Option<Arc<Lock>>) -> Self {
        Self { lock, ..self }
    }

    /// Whether a reference may stand for another image tomorrow.
    pub(crate) fn can_move(&self, reference: &Reference) -> bool {
        reference.digest().is_none() && !self.is_layout(reference)
    }

    /// Whether a reference stands for an image of a layout.
    pub(crate) fn is_layout(&self, reference: &Reference) -> bool {
        self.layouts.contains_key(&reference.repository())
    }

    /// Takes images of these repositories from layouts.
    pub(crate) fn with_layouts(self, layouts: HashMap<String, LayoutImage>) -> Self {
        Self { layouts, ..self }
    }

    pub(super) fn store(&self) -> &'a Store {
        &self.engine.store
    }

    /// Finds an image.
    pub(crate) fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        let Some(lock) = self.lock.as_ref().filter(|_| self.can_move(reference)) else {
            return self.find(reference, platform);
        };
        let locked = reference.pinned(lock.image(reference, platform)?);
        self.find(&locked, platform).map_err(|error| match error {
            BuildError::Registry(RegistryError::NotFound { .. }) => lock.gone(&locked).into(),
            error => error,
        })
    }

    fn find(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        if let Some(layout) = self.layouts.get(&reference.repository()) {
            let digest = self.of_layout(layout, platform)?;
            return self.load(reference, digest);
        }
        let digest = match self.local(reference, platform)? {
            Some(digest) => digest,
            None => self.remote(reference, platform)?,
        };
        let known = self.known(digest);
        match known {
            Some(resolved) => Ok(resolved),
            None => self.load(reference, digest),
        }
    }

    fn known(&self, digest: Digest) -> Option<Arc<Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
    }

    /// The manifest digest, if the store knows it and has its documents.
    fn local(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Digest>, BuildError> {
        if self.pull == Pull::Always {
            return Ok(None);
        }
        let tags = self.store().tags();
        let recalled = || Ok::<_, BuildError>(tags.recall(reference, platform)?.map(|it| it.0));
        if let Some(digest) = reference.digest() {
            return self.usable(recalled()?.unwrap_or(digest), platform);
        }
        if let Some(image) = tags.get(reference)? {
            let found = self.usable(image.manifest_digest, platform)?;
            if let Some(digest) = found
                && !self.is_elsewhere(reference, digest, platform)?
            {
                return Ok(found);
            }
        }
        match recalled()? {
            Some(digest) => self.usable(digest, platform),
            None => Ok(None),
        }
    }

    /// The image that a digest of the store leads to, if its documents are there.
    fn usable(&self, digest: Digest, platform: &Platform) -> Result<Option<Digest>, BuildError> {
        let Some(bytes) = self.document(digest)? else { return Ok(None) };
        let (digest, manifest) = match parse_manifest(&bytes, None)? {
            Document::Manifest(manifest) => (digest, manifest),
            Document::Index(index) => {
                let digest = pick(&index, platform)?.digest;
                let Some(bytes) = self.document(digest)? else { return Ok(None) };
                let Document::Manifest(manifest) = parse_manifest(&bytes, None)? else {
                    return Ok(None);
                };
                (digest, manifest)
            }
        };
        Ok(self.store().blobs().contains(&manifest.config.digest)?.then_some(digest))
    }

    /// Whether a name in the store is that of an image which came from a registry for another
    /// platform: the registry may have it for this one too. What was built here is all there is.
    fn is_elsewhere(
        &self,
        reference: &Reference,
        digest: Digest,
        platform: &Platform,
    ) -> Result<bool, BuildError> {
        let found = &self.load(reference, digest)?.platform;
        let asks = self.pull != Pull::Never && !self.engine.options.offline;
        if !asks || found.satisfies(platform) {
            return Ok(false);
        }
        let came_from_there = self.store().tags().recall(reference, found)?;
        Ok(came_from_there.is_some_and(|(remembered, _)| remembered == digest))
    }

    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, BuildError> {
        let blobs = self.store().blobs();
        if !blobs.contains(&digest)? {
            return Ok(None);
        }
        Ok(Some(blobs.read_small(&digest, MAX_DOCUMENT)?))
    }

    /// Reads manifest and config from the store. Layers that are not there may be had from
    /// `reference`'s repository.
    pub(crate) fn load(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<Arc<Resolved>, BuildError> {
        let missing = || ImageError::MissingBlob { digest };
        let bytes = self.document(digest)?.ok_or_else(missing)?;
        let Document::Manifest(manifest) = parse_manifest(&bytes, None)? else {
            return Err(bad_document("manifest", "is an index").into());
        };
        let config = self.document(manifest.config.digest)?.ok_or_else(missing)?;
        let mut config = parse_config(&config)?;
        complete_history(&mut config);
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let problem = "names another number of layers than the config";
            return Err(bad_document("manifest", problem).into());
        }
        let platform = config.platform();
        let reference = reference.pinned(digest);
        let resolved = Arc::new(Resolved { reference, manifest, config, platform });
        let mut all = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(digest, resolved.clone());
        Ok(resolved)
    }

    /// Asks the registry and keeps what it says.
    fn remote(&self, reference: &Reference, platform: &Platform) -> Result<Digest, BuildError> {
        if self.pull == Pull::Never {
            return Err(BuildError::NoSuchImage {
                name: format!("{} (and pulling was forbidden)", reference.familiar()),
            });
        }
        let registry = self.engine.registry(|| {
            let name = reference.familiar();
            match self.pull {
                Pull::Always => format!("{name} is to be asked of its registry"),
                Pull::Missing | Pull::Never => format!("{name} for {platform} is not in the store"),
            }
        })?;
        let mut at = reference.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            let answer = registry.manifest(&at, self.ctx)?;
            match parse_manifest(&answer.bytes, Some(&answer.media_type))? {
                Document::Index(index) => {
                    let picked = pick(&index, platform)?;
                    at = reference.with_digest(picked.digest);
                }
                Document::Manifest(manifest) => {
                    let config = registry.document(
                        reference,
                        manifest.config.digest,
                        Some(manifest.config.size),
                        self.ctx,
                    )?;
                    let blobs = self.store().blobs();
                    blobs.put(&config)?;
                    blobs.put(&answer.bytes)?;
                    self.store().tags().remember(reference, platform, &answer.digest)?;
                    let layers = manifest.layers.iter().map(|layer| layer.digest);
                    self.store().note_source(reference, layers)?;
                    return Ok(answer.digest);
                }
            }
        }
        Err(too_deep().into())
    }
}

/// Indexes that lie inside one another without an end in sight.
pub(crate) fn too_deep() -> ImageError {
    bad_document("index", format!("more than {MAX_INDEX_DEPTH} indexes inside one another"))
}

pub(crate) fn bad_document(document: &str, problem: impl Into<String>) -> ImageError {
    ImageError::Document { document: document.to_owned(), problem: problem.into() }
}

impl ImageConfigs for ImageSource<'_> {
    fn reference(&self, name: &str) -> Result<Reference, ReferenceError> {
        self.engine.reference(name)
    }

    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, rbuild_plan::ImageError> {
        match self.resolve(reference, platform) {
            Ok(resolved) => Ok(ResolvedImage {
                reference: resolved.reference.clone(),
                platform: resolved.platform.clone(),
                config: resolved.config.clone(),
            }),
            Err(BuildError::Image(ImageError::NoPlatform { wanted, found })) => {
                Err(rbuild_plan::ImageError::Platform { platform: wanted, available: found })
            }
            Err(BuildError::Registry(RegistryError::NotFound { .. })) => {
                Err(rbuild_plan::ImageError::NotFound { reference: reference.clone() })
            }
            Err(error) => Err(rbuild_plan::ImageError::Other { message: chain(&error) }),
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl ImageSource<'_> {
    /// An image that the plan resolved before.
    pub(crate) fn pinned(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Arc<Resolved>, BuildError> {
        if let Some(resolved) = reference.digest().and_then(|digest| self.known(digest)) {
            return Ok(resolved);
        }
        self.resolve(reference, platform)
    }
}
